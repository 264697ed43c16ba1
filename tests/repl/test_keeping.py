"""What is kept of a chat: stored sessions, training rows, evaluation cases."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agentft.evaluation.suites import load_suite
from agentft.records import parse_row
from agentft.repl.store import SessionStore
from agentft.types import Json, ToolCall
from tests.commands.run import run_process
from tests.repl.bank import BankStage, bank

FORMER, FIRST = 200000, 10000  # the limit of the checking account, in cents


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_folder")
def test_mask_shows_that_the_fixed_call_is_supervised(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    stage = BankStage(["limit to 50", '/fix {"account": "checking", "amount": 50}', f"/good {path}", "/mask"])
    stage.repl.tokenizer_of = "smollm2-135m"
    stage.run()
    assert "[[" in stage.shown
    done = run_process(["data", "mask", str(path), "--model", "smollm2-135m", "--json"])
    tokens = json.loads(done.stdout)["rows"][0]["tokens"]
    learnt = "".join(token["text"] for token in tokens if token["weight"] > 0)
    assert '"parameters": {"account": "checking", "amount": 50}' in learnt
    assert '"amount": 100' not in learnt
    done = run_process(["data", "inspect", str(path), "--json"])
    assert json.loads(done.stdout)["rejected"] == 0
    done = run_process(
        ["train", "--data", str(path), "--model", "smollm2-135m", "--dry-run", "--output", str(tmp_path / "r")]
    )
    assert done.returncode == 0, done.stderr


def test_a_session_is_stored_and_loaded_with_the_state(tmp_path: Path) -> None:
    first = bank("/load", "limit to 100", "/branch", "and 200", store=tmp_path)
    assert "no sessions yet" in first.shown
    assert len(list(tmp_path.iterdir())) == 2
    later = BankStage(["/load", "/load 2", "/state", "/rewind", "/load chat-x"], store=tmp_path)
    later.run()
    assert re.search(r"1 just now · 2 rounds · limit to 100\n +2 just now · 1 round · limit to 100", later.shown)
    assert later.limit() == FIRST
    assert "there is no session 'chat-x'" in later.noted
    assert later.session.conversation.turns[-1].raw == "The limit is 100."
    again = BankStage(["/undo"], store=tmp_path)
    again.repl.resumed = SessionStore(tmp_path).find()
    again.run()
    assert "resumed chat-" in again.noted
    assert again.limit() == FORMER
    assert "sessions are stored for chats on a terminal only" in bank("/load").noted


def test_a_stored_session_of_another_format_or_version_is_refused(tmp_path: Path) -> None:
    bank("limit to 100", store=tmp_path)
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "conversation": {**document["conversation"], "source": "hermes"}}))
    assert "its turns are in the format hermes" in bank("/load 1", store=tmp_path).noted
    for broken in ("{", "[]", json.dumps({**document, "version": 9}), "{}"):
        path.write_text(broken)
        found = bank("/load", "/load 1", store=tmp_path)
        assert "no sessions yet" in found.shown
        assert str(path) in found.noted


def rows(path: Path) -> list[dict[str, Json]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_good_keeps_one_row_for_a_conversation(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    path.write_text('{"id": "mine"}')
    stage = bank("/good", f"/good {path}", "limit to 100", f"/good {path}", "and 200", "/good")
    assert "name a JSONL file: /good chats.jsonl" in stage.noted
    assert "name a JSONL file" in bank("limit to 100", f"/good {path.parent}/b.jsonl opneai").noted
    assert "the conversation is empty; nothing was saved" in stage.noted
    mine, kept = rows(path)
    assert mine == {"id": "mine"}
    assert kept["provenance"] == {**kept["provenance"], "model": "scripted:answers", "fixed": []}  # type: ignore[dict-item]
    assert "Now 200." in json.dumps(kept)
    assert stage.noted.count(f"saved to {path}") == 2


@pytest.mark.parametrize("form", ["openai", "msagent"])
def test_a_row_that_training_would_reject_is_told(tmp_path: Path, form: str) -> None:
    """As a small model writes it: it invents a result, with the markers around it."""
    path = tmp_path / "kept.jsonl"
    answers = {"*/0/0": "It is done.\n<|startofexec|>```JSON\n{}\n```<|endofexec|>"}
    questions = ["limit", f"/good {path} {form}", "/mask"]
    stage = BankStage([*questions, "/fix answer It is done.", "/good"], answers)
    stage.repl.tokenizer_of = "smollm2-135m"
    stage.run()
    wrong = f"saved to {path}; training rejects this row (a result, but no call is open): /fix answer TEXT corrects it"
    assert stage.noted.count(wrong) == (form == "msagent")  # an OpenAI row holds any text
    assert "result-without-call: a result, but no call is open" in stage.noted
    assert str(tmp_path) not in stage.noted.partition("result-without-call")[2].partition("\n")[0]
    assert stage.noted.rstrip().endswith(f"saved to {path}")


@pytest.mark.parametrize("form", ["openai", "msagent"])
def test_a_row_that_is_kept_reads_back_whole(tmp_path: Path, form: str) -> None:
    path = tmp_path / "kept.jsonl"
    bank("limit to 100", f"/good {path} {form}")
    (row,) = rows(path)
    read = parse_row(row, "row")
    assert not read.unread, "`--strict` would refuse it"
    calls = [part for turn in read.turns for part in turn.parts if isinstance(part, ToolCall)]
    assert [(one.name, one.arguments["amount"]) for one in calls] == [("set_daily_limit", 100)]


def test_fix_corrects_the_call_runs_it_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    stage = BankStage(
        ["limit to 50", f"/good {path}", '/fix {"account": "checking", "amount": 50}', "/fix answer It is 50."]
    )
    stage.run()
    assert stage.limit() == 5000
    (row,) = rows(path)
    assert row["provenance"]["fixed"] == ["call set_daily_limit", "answer"]  # type: ignore[call-overload,index]
    read = parse_row(row, "row")
    parts = read.turns[-1].parts
    assert [dict(part.arguments)["amount"] for part in parts if isinstance(part, ToolCall)] == [50]
    assert read.turns[-1].raw.endswith("It is 50.")


def test_fix_can_put_a_call_in_place_of_an_answer() -> None:
    answers = {"*/0/0": "I cannot do that.", "*/0/1": "Done."}
    stage = BankStage(["limit to 100", "/fix", 'set_daily_limit {"account": "checking", "amount": 100}'], answers)
    stage.run()
    assert ("call › ", "") in stage.asked
    assert stage.limit() == FIRST
    assert [turn.role for turn in stage.session.conversation.turns[1:]] == ["user", "assistant", "tool", "assistant"]
    assert "/good FILE keeps the conversation" in stage.noted


def test_a_fix_that_fails_changes_nothing() -> None:
    stage = BankStage(["/fix", "limit to 100", '/fix {"account": "nope", "amount": 1}', "/fix withdraw {}"])
    stage.run()
    assert "nothing was asked yet" in stage.noted
    assert "the call failed, and nothing was changed" in stage.noted
    assert "there is no tool 'withdraw'" in stage.noted
    assert stage.limit() == FIRST
    assert stage.session.conversation.turns[-1].raw == "The limit is 100."
    assert stage.session.fixes == []


def test_an_answer_is_fixed_only_if_there_is_one() -> None:
    stage = bank("limit to 100", "/fix answer", "It is set to 100.")
    assert stage.session.conversation.turns[-1].raw == "It is set to 100."
    assert ("answer › ", "The limit is 100.") in stage.asked
    stage = bank("limit to 100", "/fix answer", "")
    assert "the answer is empty; nothing was changed" in stage.noted
    assert stage.session.conversation.turns[-1].raw == "The limit is 100."


def test_case_makes_a_suite_that_can_be_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    stage = bank("/case", f"/case {folder}", "limit to 100", f"/case {folder}", "and 200", f"/case {folder}")
    assert "name the folder of a suite" in stage.noted
    assert "there is no answered round" in stage.noted
    (case,) = load_suite(str(folder)).cases
    assert case.category == "multi_round", "a conversation has one case"
    assert [call.arguments["amount"] for turn in case.turns for call in turn.calls] == [100, 200]


def test_case_of_rounds_without_calls_expects_none(tmp_path: Path) -> None:
    """It was of multi_round, and so solved by any reply."""
    BankStage(["Hi", "And now?", f"/case {tmp_path}/mine"], {"*/0/0": "Hello.", "*/1/0": "Nothing."}).run()
    (case,) = load_suite(str(tmp_path / "mine")).cases
    assert (case.category, len(case.turns), case.calls) == ("irrelevance", 2, ())


def test_case_writes_a_suite_for_any_persona(tmp_path: Path) -> None:
    stage = BankStage(["limit to 100", f"/case {tmp_path}/mine"])
    stage.session.persona = 'Be "brief" 🌧\n\\'
    stage.run()
    suite = load_suite(str(tmp_path / "mine"))
    assert (suite.persona, suite.worlds) == (stage.session.persona, ("bank",))
    assert [case.category for case in suite.cases] == ["single"]


def test_a_resumed_chat_shows_what_was_said_and_can_be_kept(tmp_path: Path) -> None:
    bank("limit to 100", "and 200", "/fix answer It is 200.", store=tmp_path)
    fixed = '/fix {"account": "checking", "amount": 50}'
    again = BankStage(["/rewind", "/show 2", f"/case {tmp_path}/mine", fixed, "/fix"], store=tmp_path)
    again.repl.resumed = SessionStore(tmp_path).find()
    again.run()
    shown = again.shown.partition("╭")[0]
    assert re.search(
        "› limit to 100\n⚙ 1 set_daily_limit checking, 100 · 200 · .*\n  The limit is 100.\n\n"
        "› and 200\n⚙ 2 set_daily_limit checking, 200 · 200 · .*\n  It is 200.\n\n",
        shown,
    ), shown
    assert '"daily_limit": 200' in again.shown
    (case,) = load_suite(str(tmp_path / "mine")).cases
    assert [call.arguments["amount"] for turn in case.turns for call in turn.calls] == [100, 200]
    assert again.limit() == 5000
    assert ("call › ", 'set_daily_limit {"account": "checking", "amount": 50}') in again.asked


def test_export(tmp_path: Path) -> None:
    stage = bank("limit to 100", f"/export {tmp_path}/a.json", f"/export {tmp_path}/a.json", "/export")
    document = json.loads((tmp_path / "a.json").read_text())
    assert [message["role"] for message in document["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert "a.json exists already" in stage.noted
    assert "name a file: /export chat.json" in stage.noted


def test_a_session_has_a_name(tmp_path: Path) -> None:
    first = bank("limit to 100", "/save  oslo   test ", "/reset", "/load", store=tmp_path)
    assert "this session is oslo test; `agentft chat --resume 'oslo test'` goes on with it" in first.noted
    assert "1 oslo test just now · 1 round · limit to 100\n" in first.shown
    stored = SessionStore(tmp_path).find("oslo test")
    later = BankStage(["/branch", "and 200", "/load", "/load oslo test"], store=tmp_path)
    later.repl.resumed = stored
    later.run()
    assert "resumed oslo test" in later.noted
    assert re.search(r"1 just now · 2 rounds .*\n +2 oslo test just now · 1 round ", later.shown), "a copy has none"
    assert (later.limit(), later.session.name) == (FIRST, "oslo test")
    refused = bank("/save", "/save 12", f"/save {'x' * 41}", f"/save {tmp_path}/no/rows.jsonl", store=tmp_path)
    assert refused.noted.count("name the session, with letters and at most 40 characters: /save oslo") == 3
    assert "does not exist; create it" in refused.noted, "a path is a file of rows"


def test_sessions_and_rounds_are_listed_on_one_line_each(tmp_path: Path) -> None:
    stage = bank("limit to " + "100 " * 99, "/load", "/rewind", "/undo", store=tmp_path)
    listed = [line for line in stage.shown.splitlines() if line.endswith("…") and "⚙" not in line]
    assert [line[:12] for line in listed] == ["  1 just now", "  1 limit to"]
    assert max(map(len, listed)) <= 80
    assert len(stage.noted) < 120


@pytest.mark.parametrize(("minutes", "shown"), [(0.9, "just now"), (1, "1 minute"), (119, "1 hour"), (4320, "3 days")])
def test_the_age_of_a_session(minutes: float, shown: str, tmp_path: Path) -> None:
    bank("limit to 100", store=tmp_path)
    (path,) = tmp_path.glob("chat-*.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    document["saved"] -= 60 * minutes
    path.write_text(json.dumps(document), encoding="utf-8")
    assert f"1 {shown}{' ago' * (minutes >= 1)} · 1 round" in bank("/load", store=tmp_path).shown


def test_the_command_after_case_is_no_subcommand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "check it with `agentft eval --check './mine too'`" in bank("limit to 100", "/case mine too").noted
    assert run_process(["eval", "--check", "./mine too"], cwd=tmp_path).returncode == 0


def test_a_name_needs_resume() -> None:
    done = run_process(["chat", "oslo"])
    assert done.returncode == 2
    assert "pipe a question to ask it; --resume NAME is for sessions" in done.stderr


@pytest.mark.parametrize(
    "part",
    [
        {"conversation": {}},
        {"rounds": 5},
        {"rounds": [{"question": "?"}]},
        {"fixes": 5},
        {"states": [1]},
        {"origin": 5},
    ],
)
def test_a_damaged_session_is_named_and_the_chat_goes_on(part: dict[str, object], tmp_path: Path) -> None:
    bank("limit to 100", store=tmp_path)
    (path,) = tmp_path.glob("chat-*.json")
    stored = json.loads(path.read_text())
    if "conversation" in part:
        part = {"conversation": {**stored["conversation"], "turns": [{"x": 1}]}}
    path.write_text(json.dumps({**stored, **part}))
    found = bank("limit to 200", f"/load {path.stem}", "/undo", store=tmp_path)
    assert f"{path}: not a session of this version" in found.noted
    assert not found.repl.session.rounds


def test_a_chat_goes_on_when_its_session_cannot_be_stored(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    full = bank("limit to 100", "/save oslo", "limit to 200", store=tmp_path / "file")
    assert full.noted.count("this chat is not stored any more") == 1
    assert f"({tmp_path}/file: File exists); `/good FILE` keeps it elsewhere" in full.noted
    assert "this chat is not stored, so that no name leads to it" in full.noted
    assert "goes on with it" not in full.noted
    assert "to go on" not in full.noted
    assert len(full.repl.session.rounds) == 2
