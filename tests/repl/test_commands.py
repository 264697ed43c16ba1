"""The commands of a chat, each by what it shows and changes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from agentft.evaluation.suites import load_suite
from agentft.models import Sampling
from agentft.records import parse_row
from agentft.repl.changes import changes
from agentft.repl.commands import COMMANDS
from agentft.repl.gate import fault_kinds
from agentft.types import Json, ToolCall
from tests.repl.bank import LIMIT, BankStage, call
from tests.repl.stage import Stage

FORMER, FIRST, SECOND = 200000, 10000, 20000  # the limit of the checking account, in cents


def bank(
    *questions: str | BaseException, answers: Mapping[str, str] | None = None, store: Path | None = None
) -> BankStage:
    stage = BankStage(questions, answers, store=store)
    stage.run()
    return stage


def test_every_command_has_a_test() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert {name for name in COMMANDS if not re.search(rf'"{name}[ "]', text)} == set()


def test_help_lists_every_command_on_one_screen() -> None:
    shown = Stage(["/help"]).run().shown
    lines = shown.splitlines()
    assert all(any(line.startswith(f"  {name}") for line in lines) for name in COMMANDS)
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80


def test_the_state_goes_back_with_the_conversation() -> None:
    stage = BankStage(["limit to 100", "and 200"])
    stage.run()
    assert stage.limit() == SECOND
    stage = BankStage(["limit to 100", "and 200", "/undo"])
    stage.run()
    assert stage.limit() == FIRST
    stage = BankStage(["limit to 100", "and 200", "/rewind", "/rewind 3", "/rewind x", "/rewind 1"])
    stage.run()
    assert stage.limit() == FORMER
    assert stage.session.is_empty
    assert re.search(r"1 limit to 100\n +2 and 200", stage.shown)
    assert "there is no round 3; rounds are counted from 1 to 2" in stage.noted
    assert "there is no round x" in stage.noted
    assert "back to before round 1, the tools' state too: limit to 100" in stage.noted


def test_retry_asks_the_same_question_in_the_same_state() -> None:
    stage = bank("limit to 100", "/set temperature 0.5", "/retry")
    assert stage.limit() == FIRST
    assert [turn.raw for turn in stage.session.conversation.turns if turn.role == "user"] == ["limit to 100"]
    assert stage.session.sampling == Sampling(temperature=0.5, seed=1)
    assert "nothing was asked yet" in bank("/retry").noted


def test_edit_puts_the_question_into_the_input_line() -> None:
    stage = bank("limit to 100", "and 200", "/edit 1", "limit to a hundred", "/edit", "")
    assert ("question › ", "limit to 100") in stage.asked
    assert ("question › ", "limit to a hundred") in stage.asked
    assert [turn.raw for turn in stage.session.conversation.turns if turn.role == "user"] == ["limit to a hundred"]


def test_state_shows_what_changed() -> None:
    stage = bank("/state", "limit to 100", "/state", "/state all")
    assert "nothing has changed" in stage.shown
    assert "bank.accounts.ACC-1001.daily_limit: 200000 → 10000\n" in stage.shown
    assert '"customer": "Maya Fischer"' in stage.shown
    assert "these tools keep their state elsewhere" in Stage(["/state"]).run().noted


def test_changes() -> None:
    before = {"a": 1, "b": {"c": [1, 2]}, "d": "x", "same": [0]}
    after = {"a": 2, "b": {"c": [1, 3, 4]}, "e": "y" * 99, "same": [0]}
    found = list(changes(before, after))
    assert found[:4] == ["a: 1 → 2", "b.c.1: 2 → 3", "+ b.c.2: 4", '- d: "x"']
    assert found[4] == f'+ e: "{"y" * 58}…'
    assert list(changes([1, 2], [1])) == ["- 1: 2"]
    assert list(changes({}, {})) == []


def test_a_fault_fails_one_call_and_nothing_is_changed() -> None:
    stage = BankStage(["/fault", "limit to 100"])
    stage.run()
    assert "the next call fails with 503" in stage.noted
    assert "set_daily_limit checking, 100 · 503" in stage.shown
    assert "the service is overloaded; try again later" in stage.session.conversation.turns[3].raw
    assert stage.limit() == FORMER
    stage = bank("/fault 5000", "/fault 429", "/fault off", "limit to 100")
    assert "there is no fault '5000'; did you mean '500'?" in stage.noted
    assert stage.limit() == FIRST


@pytest.mark.parametrize("kind", fault_kinds())
def test_each_fault_is_what_the_model_gets(kind: str) -> None:
    stage = bank(f"/fault {kind}", "limit to 100")
    result = stage.session.rounds[0].steps[0].exchanges[0]
    assert (result.is_error, result.fault) == (True, kind)
    assert "{seconds}" not in result.received
    assert result.received in stage.session.conversation.turns[3].raw


def test_tools_can_be_shown_and_switched_off() -> None:
    stage = bank(
        "/tools off set_daily_limit", "/tools", "limit to 100", "/tools on set_daily_limit", "/tools block_card"
    )
    assert "set_daily_limit is off; the model has 10 of 11 tools" in stage.noted
    assert "off: set_daily_limit" in stage.noted
    assert "there is no tool set_daily_limit" in stage.session.conversation.turns[3].raw
    assert "set_daily_limit is on; the model has 11 of 11 tools" in stage.noted
    assert '"enum": [' in stage.shown
    assert "set_daily_limit" in {tool.name for tool in stage.session.conversation.tools}
    assert "there is no tool 'block'; did you mean 'block_card'?" in bank("/tools block").noted
    assert "there are no tools" in Stage(["/tools on x"]).run().noted


def test_a_call_by_hand_changes_the_state_and_not_the_conversation() -> None:
    stage = BankStage(['/call set_daily_limit {"account": "checking", "amount": 7}', "/call set_daily_limit [1]"])
    stage.session.gate.approve = "always"
    stage.run()
    assert stage.limit() == 700
    assert stage.session.is_empty
    assert stage.session.gate.approve == "always"
    assert "the arguments are [1]; write a JSON object" in stage.noted
    assert "the arguments cannot be read" in bank("/call set_daily_limit {").noted


def test_prompt_and_raw_are_exact() -> None:
    stage = bank("/raw", "limit to 100", "/raw")
    assert "the model has not replied yet" in stage.noted
    assert stage.shown.count("The limit is 100.") == 2
    shown = bank("limit to 100", "/prompt").shown
    assert '"role": "system"' in shown
    assert '"name": "set_daily_limit"' in shown


def test_settings() -> None:
    stage = bank("/set", "/set temperature 0.25", "/set top-k=5", "/set max_steps 2", "/set approve writes")
    assert re.search(r"max_new_tokens +256", stage.shown)
    assert (stage.session.sampling.temperature, stage.session.sampling.top_k) == (0.25, 5)
    assert (stage.session.max_steps, stage.session.gate.approve) == (2, "writes")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set temprature 1", "there is no setting 'temprature'; did you mean 'temperature'?"),
        ("/set temperature hot", "temperature is 'hot'; use a number, such as 0.0"),
        ("/set top_k 1.5", "top_k is '1.5'; use a whole number, such as 0"),
        ("/set top_p 1.1", "top_p is 1.1; it must be at least 0 and at most 1"),
        ("/set temperature nan", "temperature is nan; it must be at least 0"),
        ("/set max_new_tokens 0", "max_new_tokens is 0; it must be at least 1"),
        ("/set max_steps 101", "max_steps is 101; it must be at least 1 and at most 100"),
        ("/set approve yes", "approve is 'yes'; use never, writes, always"),
    ],
)
def test_bad_settings_are_one_line(line: str, message: str) -> None:
    stage = bank(line)
    assert message in stage.noted
    assert stage.session.sampling == Sampling()


@pytest.mark.parametrize(
    ("said", "limit", "result"),
    [
        (["y"], FIRST, '"daily_limit": 100'),
        (["n"], FORMER, "the user did not allow this call"),
        (["what?", "No too low"], FORMER, "the user did not allow this call: too low"),
        (["e", '{"account": "checking", "amount": 50}'], 5000, '"daily_limit": 50'),
        (["e", "[", "y"], FIRST, '"daily_limit": 100'),
        ([KeyboardInterrupt()], FORMER, "the user did not allow this call: stopped"),
    ],
)
def test_writes_are_approved(said: list[str | BaseException], limit: int, result: str) -> None:
    stage = BankStage(["/set approve writes", "limit to 100", *said])
    stage.run()
    assert stage.limit() == limit
    assert result in stage.session.conversation.turns[3].raw
    assert "⚙ set_daily_limit · write" in stage.shown


def test_always_is_for_this_tool_and_reads_are_not_asked() -> None:
    answers = {
        "*/0/0": LIMIT,
        "*/0/1": call("list_accounts"),
        "*/0/2": call("set_daily_limit", account="checking", amount=3),
        "*/0/3": call("block_card", card="travel card", reason="lost"),
        "*/0/4": "Done.",
    }
    stage = bank("/set approve writes", "go", "a", "n", answers=answers)
    prompts = [prompt for prompt, _ in stage.asked if prompt.startswith("allow")]
    assert [prompt.split("?")[0] for prompt in prompts] == ["allow set_daily_limit", "allow block_card"]
    stage = bank("/set approve always", "go", "a", "y", "n", answers=answers)
    asked = [prompt.split("?")[0] for prompt, _ in stage.asked if prompt.startswith("allow")]
    assert asked == ["allow set_daily_limit", "allow list_accounts", "allow block_card"]


def test_an_edited_call_is_what_the_conversation_has() -> None:
    stage = bank("/set approve writes", "limit to 100", "e", '{"account": "checking", "amount": 50}')
    (made,) = [part for part in stage.session.conversation.turns[2].parts if isinstance(part, ToolCall)]
    assert dict(made.arguments) == {"account": "checking", "amount": 50}
    assert made.endpoint == "http://bank.test/set_daily_limit"
    assert stage.session.conversation.turns[3].parts[0].call_id == made.id  # type: ignore[union-attr]


def test_a_session_is_stored_and_loaded_with_the_state(tmp_path: Path) -> None:
    first = bank("/load", "limit to 100", "/branch", "and 200", store=tmp_path)
    assert "no sessions yet" in first.shown
    assert len(list(tmp_path.iterdir())) == 2
    later = BankStage(["/load", "/load 2", "/state", "/rewind", "/load chat-x"], store=tmp_path)
    later.run()
    assert re.search(r"1 .* 2 · limit to 100\n +2 .* 1 · limit to 100", re.sub(r" rounds?", "", later.shown))
    assert later.limit() == FIRST
    assert "there is no session 'chat-x'" in later.noted
    assert later.session.conversation.turns[-1].raw == "The limit is 100."
    again = BankStage(["/undo"], store=tmp_path)
    again.repl.resumes = True
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
    stage = bank("/good", f"/good {path}", "limit to 100", f"/good {path}", "and 200", "/good", f"/good {path} xml")
    assert "name a file: /good chats.jsonl" in stage.noted
    assert "the conversation is empty; nothing was kept" in stage.noted
    assert "there is no form 'xml'" in stage.noted
    mine, kept = rows(path)
    assert mine == {"id": "mine"}
    assert kept["provenance"] == {**kept["provenance"], "model": "scripted:answers", "fixed": []}  # type: ignore[dict-item]
    assert "Now 200." in json.dumps(kept)
    assert f"replaced its row in {path}" in stage.noted


def test_good_in_the_form_of_openai_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    bank("limit to 100", f"/good {path} openai")
    (row,) = rows(path)
    read = parse_row(row, "row")
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


def test_case_makes_a_suite_that_can_be_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    stage = bank("/case", f"/case {folder}", "limit to 100", f"/case {folder}", "and 200", f"/case {folder}")
    assert "name the folder of a suite" in stage.noted
    assert "there is no answered round" in stage.noted
    lines = rows(folder / "cases.jsonl")
    assert [line["category"] for line in lines] == ["single", "multi_round"]
    lines[1]["id"] = "other"
    (folder / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    suite = load_suite(str(folder))
    assert suite.worlds == ("bank",)
    assert [call.arguments["amount"] for turn in suite.cases[1].turns for call in turn.calls] == [100, 200]


def test_export(tmp_path: Path) -> None:
    stage = bank(
        "limit to 100",
        f"/export {tmp_path}/a.md",
        f"/export {tmp_path}/a.json",
        f"/export {tmp_path}/a.md",
        "/export x",
    )
    text = (tmp_path / "a.md").read_text()
    assert "## limit to 100" in text
    assert '```json\nset_daily_limit {"account": "checking", "amount": 100}\n```' in text
    document = json.loads((tmp_path / "a.json").read_text())
    assert [message["role"] for message in document["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert "a.md exists already" in stage.noted
    assert "name a file that ends in .md or .json" in stage.noted
