"""Chats saved as MS-Agent rows: they can be read back, and nothing else in the file changes."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.agent import add_user_turn, open_conversation
from agentft.errors import InputError
from agentft.records import parse_row
from agentft.repl.saving import check_place, msagent_row, replace_row
from agentft.types import Conversation, Span, Text, ToolCall, ToolResult, Turn
from tests.repl.stage import CALL, DOUBLE, Stage

RESULT = '\n\n<|startofexec|>```JSON\n{"result": 8}\n```<|endofexec|>\n'
HERMES_CALL = '<tool_call>\n{"name": "double", "arguments": {"x": 4}}\n</tool_call>'


def chat(fmt: str, *answers: str) -> Conversation:
    """A conversation of one question with these completions."""
    script = {f"*/0/{number}": answer for number, answer in enumerate(answers)}
    return Stage(["double 4"], answers=script, fmt=fmt).run().session.conversation


def test_steps_become_one_assistant_value() -> None:
    row = msagent_row(chat("msagent", f"I work it out.{CALL}", "It is 8."))
    turns = row["conversations"]
    assert isinstance(turns, list)
    assert turns[1:] == [
        {"from": "user", "value": "double 4"},
        {"from": "assistant", "value": f"I work it out.{CALL}{RESULT}It is 8."},
    ]


@pytest.mark.parametrize(("fmt", "call"), [("msagent", CALL), ("hermes", HERMES_CALL)])
def test_a_saved_chat_reads_back_as_the_same_turns(fmt: str, call: str) -> None:
    read = parse_row(json.loads(json.dumps(msagent_row(chat(fmt, f"Well. {call}", "It is 8.")))), "row")
    assert [tool.name for tool in read.tools] == ["double"]
    assert read.tools[0].endpoints == DOUBLE.endpoints
    parts = read.turns[-1].parts
    calls = [part for part in parts if isinstance(part, ToolCall)]
    assert [(c.name, dict(c.arguments), c.endpoint) for c in calls] == [("double", {"x": 4}, "http://math.test/double")]
    assert [part.content for part in parts if isinstance(part, ToolResult)] == ['{"result": 8}']
    assert read.turns[-1].raw.endswith("It is 8.")


@pytest.mark.parametrize(
    ("fmt", "broken"), [("msagent", "<|startofthink|>{oops<|endofthink|>"), ("hermes", "<tool_call>{oops</tool_call>")]
)
def test_an_unreadable_call_is_saved_as_it_was_written(fmt: str, broken: str) -> None:
    turns = msagent_row(chat(fmt, broken, "Sorry."))["conversations"]
    assert isinstance(turns, list)
    assert isinstance(turns[-1], dict)
    assert str(turns[-1]["value"]).startswith(broken)


def conversation(text: str) -> Conversation:
    return add_user_turn(open_conversation(f"c{text[:1]}", "Persona.", (), "msagent"), text)


def append_row(path: Path, conversation: Conversation) -> None:
    replace_row(path, msagent_row(conversation))


def test_rows_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b'{"mine": 1}')
    append_row(path, conversation("北京"))
    append_row(path, conversation("two"))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == '{"mine": 1}', "a last line without its newline is not joined to ours"
    assert [json.loads(line)["id"] for line in lines[1:]] == ["c北", "ct"]
    assert "北京" in lines[1]


@given(st.text(alphabet=st.characters(), max_size=30))
def test_any_text_is_one_valid_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("chat") / "chats.jsonl"
    append_row(path, conversation(text))
    data = path.read_bytes()
    assert data.count(b"\n") == 1
    assert len(json.loads(data)["conversations"]) == 2


def test_a_full_disk_leaves_the_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chats.jsonl"
    append_row(path, conversation("one"))
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        append_row(path, conversation("two"))
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_keeps_its_permissions_and_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    append_row(path, conversation("one"))
    path.chmod(0o620)
    if os.geteuid() == 0:
        os.chown(path, 1234, 1235)
    before = path.stat()
    append_row(path, conversation("two"))
    after = path.stat()
    assert after.st_ino != before.st_ino, "the file is a new one"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    threads = [threading.Thread(target=append_row, args=(path, conversation(f"{n}" * 5000))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = {json.loads(line)["conversations"][1]["value"] for line in path.read_text().splitlines()}
    assert values == {f"{n}" * 5000 for n in range(8)}


def test_concurrent_replacements_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b'{"mine": 1}')

    def keep(number: int) -> None:
        for one in range(20):
            replace_row(path, {"id": f"c{number}", "value": one})

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine, *rows = map(json.loads, path.read_text().splitlines())
    assert mine == {"mine": 1}
    assert {row["id"]: row["value"] for row in rows} == {f"c{number}": 19 for number in range(4)}
    assert len(rows) == 4


def test_places_that_cannot_be_written_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_place(tmp_path / "new.jsonl")
    with pytest.raises(InputError, match="this is a folder"):
        check_place(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        check_place(tmp_path / "no" / "chats.jsonl")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="permission denied"):
        check_place(tmp_path / "new.jsonl")


def test_a_thought_that_the_prompt_began_is_saved_with_its_block() -> None:
    raw = "Easy.\n</think>\n\n8"
    parts = (Text("Easy.", Span(0, 16), thought=True), Text("8", Span(16, 17)))
    asked = Turn("user", (Text("4+4?", Span(0, 4)),), "4+4?")
    row = msagent_row(Conversation("c", (asked, Turn("assistant", parts, raw)), (), "msagent"))
    saved = parse_row(row, "row").turns[-1]
    assert saved.raw == "<think>\nEasy.\n</think>\n\n8"
    assert [(part.text, part.thought) for part in saved.parts if isinstance(part, Text)] == [
        ("Easy.", True),
        ("8", False),
    ]
