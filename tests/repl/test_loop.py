"""The terminal agent's loop: answers, commands, interruptions, saving."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentft.errors import InputError
from agentft.types import Exchange, ToolCall
from tests.repl.stage import CALL, Doubler, Stage


def rows(path: Path) -> list[list[str]]:
    """The values of each saved row, without the system value."""
    found = [json.loads(line)["conversations"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [[turn["value"] for turn in row[1:]] for row in found]


def test_a_question_leads_to_a_call_and_an_answer() -> None:
    stage = Stage(["double 4", "thanks"]).run()
    text = stage.shown
    assert text.index("I work it out.") < text.index("⚙ double") < text.index('{"result": 8}') < text.index("It is 8.")
    assert "You are welcome." in text
    assert "1 call · " in text
    assert [turn.role for turn in stage.session.conversation.turns] == [
        *("system", "user", "assistant", "tool", "assistant", "user", "assistant")
    ]


def test_blank_lines_are_ignored() -> None:
    assert Stage(["", "   "], answers={}).run().shown == ""


def test_a_question_of_several_lines_is_one_question() -> None:
    stage = Stage(["first\nsecond"], answers={"*": "ok"}).run()
    assert stage.session.conversation.turns[1].raw == "first\nsecond"


def test_ctrl_c_at_the_prompt_shows_how_to_leave() -> None:
    stage = Stage([KeyboardInterrupt(), "double 4"]).run()
    assert "press Ctrl-D or type /quit to leave" in stage.noted
    assert "It is 8." in stage.shown


class Interrupting(Doubler):
    """Ctrl-C while the first call runs."""

    def call(self, call: ToolCall, session: str) -> Exchange:
        if not self.sessions:
            self.sessions.append(session)
            raise KeyboardInterrupt
        return super().call(call, session)


def test_ctrl_c_stops_the_answer_and_removes_the_question() -> None:
    stage = Stage(["double 4", "double 4"])
    stage.session.client = Interrupting()
    stage.run()
    assert "stopped; the question was removed from the conversation" in stage.noted
    assert stage.shown.count("It is 8.") == 1
    assert [turn.role for turn in stage.session.conversation.turns].count("user") == 1


def test_ctrl_c_in_a_pipe_ends_the_run_and_saves_the_chat(tmp_path: Path) -> None:
    kept = tmp_path / "chats.jsonl"
    stage = Stage(["double 4", KeyboardInterrupt()], save_to=kept, interactive=False)
    with pytest.raises(KeyboardInterrupt):
        stage.run()
    assert rows(kept)[0][-1].endswith("It is 8.")
    stage = Stage(["double 4"], interactive=False)
    stage.session.client = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        stage.run()


def test_an_error_is_shown_and_the_chat_continues() -> None:
    stage = Stage(["hello", "/quit"], answers={}).run()
    assert "error: answers: no answer for" in stage.noted
    assert stage.session.is_empty


def test_an_error_in_a_pipe_ends_the_run() -> None:
    with pytest.raises(InputError, match="no answer for"):
        Stage(["hello"], answers={}, interactive=False).run()


def test_the_steps_for_one_question_are_limited() -> None:
    stage = Stage(["double for ever"], answers={"*": CALL}).run()
    assert len(stage.tools.sessions) == 6
    assert "stopped after 6 steps without an answer" in stage.noted


def test_help_and_tools_and_unknown_commands() -> None:
    stage = Stage(["/help", "/tools", "/rest", "/xyzzy", "/quit", "never asked"]).run()
    assert "/save FILE  append the conversation" in stage.shown
    assert "no tools" in stage.shown
    assert "unknown command /rest; did you mean /reset?" in stage.noted
    assert "unknown command /xyzzy; try /help" in stage.noted
    assert "never asked" not in stage.shown


def test_reset_begins_anew_with_a_fresh_tool_session(tmp_path: Path) -> None:
    stage = Stage(["double 4", "/reset", "double 4"], save_to=tmp_path / "chats.jsonl").run()
    assert len(set(stage.tools.sessions)) == 2
    assert len(rows(tmp_path / "chats.jsonl")) == 2
    assert "new conversation" in stage.noted


def test_save_command(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    stage = Stage(["/save", f"/save {path}", "double 4", f"/save {path}", f"/save {path}", f"/save {tmp_path}"]).run()
    assert "name a file: /save chats.jsonl" in stage.noted
    assert "the conversation is empty; nothing was saved" in stage.noted
    assert "this is a folder" in stage.noted
    assert len(rows(path)) == 1, "the same conversation is added once"


def test_a_conversation_that_went_on_is_saved_again(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    Stage(["double 4", f"/save {path}", "thanks"], save_to=path).run()
    assert [len(row) for row in rows(path)] == [2, 4]


def test_a_piped_question_is_echoed_as_text() -> None:
    shown = Stage(["[bold]hi[/bold] \x1b[31m"], answers={"*": "ok"}, interactive=False).run().shown
    assert shown.startswith("› [bold]hi[/bold] ␛[31m\n  ok\n")
