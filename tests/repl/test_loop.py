"""The terminal agent's loop: answers, commands, interruptions, saving."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agentft.errors import FrameError, InputError
from agentft.models import CallStarted, CallText, Delta, Model, OnDelta, Reply, Request, Sampling, TextDelta
from agentft.records import parse_row
from agentft.repl.session import repeats
from agentft.repl.store import SessionStore
from agentft.types import Conversation, Exchange, ToolCall
from tests.repl.stage import ANSWERS, CALL, Doubler, Inspectable, Stage


def rows(path: Path) -> list[list[str]]:
    """The values of each saved row, without the system value."""
    found = [json.loads(line)["conversations"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [[turn["value"] for turn in row[1:]] for row in found]


def test_a_question_leads_to_a_call_and_an_answer() -> None:
    stage = Stage(["double 4", "thanks"]).run()
    text = stage.shown
    assert (
        text.index("I work it out.")
        < text.index("⚙ 1 double 4 · 200")
        < text.index('{"result": 8}')
        < text.index("It is 8.")
    )
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


def test_ctrl_c_in_a_call_keeps_what_came_and_tells_the_model() -> None:
    stage = Stage(["double 4", "thanks"])
    stage.gate.inner = Interrupting()
    stage.run()
    assert "stopped; what came is kept (/undo removes it)" in stage.noted
    assert [turn.role for turn in stage.session.conversation.turns] == [
        *("system", "user", "assistant", "tool", "user", "assistant")
    ]
    assert "stopped by the user" in stage.session.conversation.turns[3].raw
    assert "You are welcome." in stage.shown


class Halting:
    """A model whose reply is stopped by Ctrl-C after some deltas."""

    def __init__(self, model: Model, *deltas: Delta) -> None:
        self.model, self.deltas = model, deltas
        self.name, self.source, self.rendering = model.name, model.source, model.rendering

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        deltas, self.deltas = self.deltas, ()
        for delta in deltas:
            assert on_delta is not None
            on_delta(0, delta)
        if deltas:
            raise KeyboardInterrupt
        return self.model.reply(requests, sampling, on_delta)


def test_ctrl_c_in_an_answer_keeps_its_text() -> None:
    stage = Stage(["double 4", "thanks"])
    stage.session.model = Halting(stage.session.model, TextDelta("It is "), TextDelta("8 bec"))
    stage.run()
    assert [turn.raw for turn in stage.session.conversation.turns[1:]] == [
        "double 4",
        "It is 8 bec",
        "thanks",
        "You are welcome.",
    ]
    assert "It is 8 bec" in stage.shown
    assert "stopped; what came is kept" in stage.noted


def test_ctrl_c_before_anything_came_removes_the_question() -> None:
    stage = Stage(["double 4"])
    stage.session.model = Halting(stage.session.model, CallStarted("double"), CallText("double", "{"))
    stage.run()
    assert "stopped; the question was removed from the conversation" in stage.noted
    assert not stage.session.rounds
    assert stage.session.rounds == []


def test_a_degenerate_answer_is_stopped_and_kept_once() -> None:
    stage = Stage(["go"], answers={"*": "Well. " + "so and " * 200})
    stage.run()
    assert "stopped: the model repeats itself" in stage.noted
    assert stage.session.conversation.turns[-1].raw == "Well. so and"


@pytest.mark.parametrize(
    ("text", "spare"),
    [
        ("ab" * 80, 158),
        ("ab" * 79, 0),
        ("x" + "a" * 160, 159),
        ("a" * 159, 0),
        (("y" * 40 + "z") * 4, 123),
        (("y" * 40 + "z") * 3, 0),
        (f"{'w' * 199}v" * 4, 600),
        (f"{'w' * 200}v" * 4, 0),
        ("a b c " * 10 + "and then something else", 0),
        ("", 0),
    ],
)
def test_repetition(text: str, spare: int) -> None:
    assert repeats(text) == spare


def test_the_same_call_over_and_over_is_stopped() -> None:
    stage = Stage(["double for ever"], answers={"*": CALL}).run()
    assert len(stage.tools.sessions) == 3
    assert "stopped: the same call 3 times" in stage.noted


def test_ctrl_c_in_a_pipe_ends_the_run_and_saves_the_chat(tmp_path: Path) -> None:
    kept = tmp_path / "chats.jsonl"
    stage = Stage(["double 4", KeyboardInterrupt()], save_to=kept, interactive=False)
    with pytest.raises(KeyboardInterrupt):
        stage.run()
    assert rows(kept)[0][-1].endswith("It is 8.")
    stage = Stage(["double 4"], interactive=False)
    stage.gate.inner = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        stage.run()


def test_an_error_is_shown_and_the_chat_continues() -> None:
    stage = Stage(["hello", "/quit"], answers={}).run()
    assert "error: answers: no answer for" in stage.noted
    assert "; the question was removed from the conversation (/retry asks it again)\n" in stage.noted
    assert not stage.session.rounds


def test_an_error_in_a_pipe_ends_the_run() -> None:
    with pytest.raises(InputError, match="no answer for"):
        Stage(["hello"], answers={}, interactive=False).run()


def test_the_steps_for_one_question_are_limited() -> None:
    calls = {f"*/0/{step}": CALL.replace("4", str(step)) for step in range(9)}
    stage = Stage(["double for ever"], answers=calls).run()
    assert len(stage.tools.sessions) == 6
    assert "stopped after 6 steps without an answer" in stage.noted


def test_help_and_tools_and_unknown_commands() -> None:
    stage = Stage(["/help", "/tools", "/rest", "/xyzzy", "/quit", "never asked"]).run()
    assert re.search(r"/save NAME +name the session", stage.shown)
    assert "no tools" in stage.shown
    assert "unknown command /rest; did you mean /reset?" in stage.noted
    assert "unknown command /xyzzy; try /help" in stage.noted
    assert "never asked" not in stage.shown
    stage = Stage(["double 4", "/clear", "/new", "/resume", "/continue", "/exit", "never asked"]).run()
    assert stage.noted.count("new conversation") == 2
    assert stage.noted.count("sessions are stored for chats on a terminal only") == 2, "as of /load"
    assert "never asked" not in stage.shown


def test_the_end_of_a_chat_tells_a_person_how_to_go_on_with_it(tmp_path: Path) -> None:
    for said, name in ((["double 4"], "chat-"), (["double 4", "/save my trip"], "'my trip'")):
        stage = Stage([*said, "/quit"])
        stage.repl.store = SessionStore(tmp_path)
        assert f"to go on: agentft chat --resume {name}" in stage.run().noted.splitlines()[-1]
    stage = Stage(["/quit"])
    stage.repl.store = SessionStore(tmp_path)
    assert "--resume" not in stage.run().noted, "nothing was said"
    assert "--resume" not in Stage(["double 4"]).run().noted, "it is not stored"


def test_reset_begins_anew_with_a_fresh_tool_session(tmp_path: Path) -> None:
    stage = Stage(["double 4", "/reset", "double 4"], save_to=tmp_path / "chats.jsonl").run()
    assert len(set(stage.tools.sessions)) == 2
    assert len(rows(tmp_path / "chats.jsonl")) == 2
    assert "new conversation" in stage.noted


def test_save_command(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    stage = Stage(["/good", f"/save {path}", "double 4", f"/save {path}", f"/save {path}", f"/save {tmp_path}"]).run()
    assert "name a JSONL file: /good chats.jsonl" in stage.noted
    assert "the conversation is empty; nothing was saved" in stage.noted
    assert "this is a folder" in stage.noted
    assert len(rows(path)) == 1, "a conversation has one row"


def test_a_conversation_that_went_on_replaces_its_row(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    Stage(["double 4", f"/save {path}", "thanks"], save_to=path).run()
    assert [len(row) for row in rows(path)] == [4]


def test_on_a_pipe_there_is_only_the_answer() -> None:
    stage = Stage(["[bold]double[/bold] 4"], interactive=False).run()
    assert stage.shown == "I work it out.\nIt is 8.\n"
    assert re.fullmatch(r'⚙ 1 double 4 · 200 · \d+ ms · \{"result": 8\}\n', stage.noted)


def test_undo_takes_the_last_round_back() -> None:
    stage = Stage(["/undo", "double 4", "thanks", "/undo"]).run()
    assert "nothing was asked yet" in stage.noted
    assert "undone, but not what its calls changed: thanks" in stage.noted
    assert stage.session.conversation.turns[-1].raw == "It is 8."


def test_show_has_the_whole_call_and_result() -> None:
    stage = Stage(["/show", "double 4", "/show", "/show 1 all", "/show 2", "/show x"]).run()
    assert "/show takes the number of a call or thought; there is none yet" in stage.noted
    assert stage.shown.count("╭─ ⚙ double") == 2
    assert '{"x": 4}' in stage.shown
    assert stage.noted.count("there are 1") == 2


def steering(stage: Stage, *texts: str) -> list[bool]:
    """The person types these texts for the model while it answers."""
    waiting, taken = [*texts], []

    def give(take: Callable[[str], bool]) -> None:
        if waiting:
            taken.append(take(waiting.pop(0)))

    stage.repl.steering = give
    return taken


STEERED = {**ANSWERS, "*/1/0": "It is eight.", "*/2/0": "Fine."}


def test_a_text_that_steers_follows_the_next_result_in_the_same_round(tmp_path: Path) -> None:
    kept = tmp_path / "rows.jsonl"
    stage = Stage(["double 4", "thanks", f"/good {kept}"], STEERED)
    taken = steering(stage, "in words, please")
    stage.run()
    assert taken == [True]
    assert [turn.role for turn in stage.session.conversation.turns] == [
        *("system", "user", "assistant", "tool", "user", "assistant", "user", "assistant")
    ]
    assert [one.question for one in stage.session.rounds] == ["double 4", "thanks"]
    read = parse_row(json.loads(kept.read_text(encoding="utf-8")), "row")
    assert [turn.role for turn in read.turns][1:] == ["user", "assistant"] * 3
    assert stage.session.rewind(1) == "double 4"
    assert not stage.session.rounds


def test_a_text_that_steered_is_shown_again_and_is_a_turn_of_the_case(tmp_path: Path) -> None:
    stage = Stage(["double 4", "thanks", f"/case {tmp_path}/mine"], STEERED)
    stage.repl.store = SessionStore(tmp_path)
    steering(stage, "in words, please")
    stage.run()
    (case,) = (tmp_path / "mine" / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    assert [(turn["user"], len(turn["calls"])) for turn in json.loads(case)["turns"]] == [
        *(("double 4", 1), ("in words, please", 0), ("thanks", 0))
    ]
    again = Stage([])
    again.repl.resumed = stage.repl.store.find()
    assert len(again.repl.session.rounds) == 2
    assert re.search("\n⚙ 1 .*\n\n› in words, please\n  It is eight.\n\n› thanks\n", again.shown), again.shown


def test_a_model_whose_template_refuses_a_text_after_a_result_is_not_steered() -> None:
    stage = Stage(["double 4"])
    strict = Inspectable(stage.session.model)

    def prompt(conversation: Conversation) -> str:
        if conversation.turns[-2].role == "tool":
            raise FrameError("roles must alternate")
        return ""

    strict.prompt = prompt  # type: ignore[method-assign]
    stage.session.model = strict
    taken = steering(stage, "in words, please")
    stage.run()
    assert taken == [False]
    assert "It is 8." in stage.shown
    assert "in words" not in stage.shown


def test_an_answer_without_a_call_is_not_steered() -> None:
    stage = Stage(["hello"], {"*": "Hello."})
    taken = steering(stage, "in words, please")
    stage.run()
    assert taken == []


def test_a_model_on_this_machine_reads_the_tools_before_the_first_question() -> None:
    stage = Stage([])
    asked: list[tuple[Conversation, int]] = []

    class Reading(Inspectable):
        def reply(
            self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None
        ) -> list[Reply]:
            assert on_delta is not None
            asked.append((requests[0].conversation, sampling.max_new_tokens))
            on_delta(0, TextDelta(""))
            raise FrameError("no such prompt")

    model = Reading(stage.session.model)
    stage.session.model = model
    stage.session.warm()
    assert asked == [], "the context of an endpoint's model is unknown"
    model.context = 100
    stage.session.warm()
    stage.session.gate.cancelled.set()
    stage.session.warm()
    assert asked[0][0].tools == stage.session.offered
    assert [tokens for _, tokens in asked] == [1, 1]
    assert not stage.session.rounds
