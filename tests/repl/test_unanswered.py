"""After an error or a stop: what the commands about the last question do, and what is said of calls that were left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest

from agentft.models import OnDelta, Reply, Request, Sampling
from agentft.models.scripted import ScriptedModel
from agentft.repl.gate import Decision
from agentft.types import Exchange, ToolCall
from tests.repl.bank import ANSWERS, BankStage
from tests.repl.stage import CALL, Inspectable, Stage

FIRST, SECOND = 10000, 20000


class Recovering(ScriptedModel):
    """Answers the second round's last step only when it is asked again."""

    failed = False

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        if requests[0].key.endswith("/1/1") and not self.failed:
            self.failed = True
            raise OSError("the endpoint answers 500")
        return super().reply(requests, sampling)


def ask(*lines: str | BaseException, store: Path | None = None) -> BankStage:
    """A chat whose second question fails after its call."""
    stage = BankStage(lines, store=store)
    stage.session.model = Recovering(ANSWERS)
    stage.run()
    return stage


def questions(stage: Stage) -> list[str]:
    return [one.question for one in stage.session.rounds]


def test_retry_asks_the_question_that_got_no_answer() -> None:
    stage = ask("limit to 100", "and 200")
    assert "error: the endpoint answers 500; the question was removed" in stage.noted
    assert (questions(stage), stage.limit()) == (["limit to 100"], FIRST)
    stage = ask("limit to 100", "and 200", "/retry")
    assert (questions(stage), stage.limit()) == (["limit to 100", "and 200"], SECOND)
    first = BankStage(["limit to 100", "/retry"], {})
    first.run()
    assert first.noted.count("no answer for") == 2, "also where it was the first question"


def test_edit_offers_the_question_that_got_no_answer() -> None:
    stage = ask("limit to 100", "and 200", "/edit", "and two hundred")
    assert ("question › ", "and 200") in stage.asked
    assert questions(stage) == ["limit to 100", "and two hundred"]
    assert questions(ask("limit to 100", "and 200", "/edit 1", "limit to a hundred")) == ["limit to a hundred"]


@pytest.mark.parametrize("line", ["/undo", '/fix {"amount": 1}', "/fix answer No."])
def test_the_round_before_an_unanswered_question_stays(line: str) -> None:
    stage = ask("limit to 100", "and 200", line)
    assert "the last question got no answer and was removed already; /retry asks it again" in stage.noted
    assert (questions(stage), stage.limit()) == (["limit to 100"], FIRST)


@pytest.mark.parametrize("line", ["/rewind 1", "/reset", "/load 1"])
def test_going_elsewhere_forgets_the_unanswered_question(line: str, tmp_path: Path) -> None:
    stage = ask("limit to 100", "and 200", line, "/retry", store=tmp_path)
    assert "and 200" not in questions(stage)


def test_a_question_that_fails_after_rounds_were_left_out_is_removed() -> None:
    stage = Stage(["one", "two", "three", "/retry"], answers={"*/0/0": "a", "*/1/0": "b"})
    model = Inspectable(stage.session.model)
    model.context = 733  # 550 for the prompt
    stage.session.model = model
    stage.run()
    assert (questions(stage), stage.session.dropped) == (["two", "three"], 1)
    stage = Stage(["one", "two", "boom", "/tools"], answers={"*/0/0": "a", "*/1/0": "b"})
    stage.session.model = model = Inspectable(Failing(stage.session.model))
    model.context = 733  # 550 for the prompt
    stage.run()
    assert questions(stage) == ["two"]
    assert "no tools" in stage.shown, "the chat goes on"


class Failing(Inspectable):
    """Fails at `boom`."""

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        if requests[0].conversation.turns[-1].raw == "boom":
            raise OSError("boom")
        return self.model.reply(requests, sampling)


def test_a_question_that_alone_does_not_fit_is_refused() -> None:
    stage = Stage(["one"])
    stage.session.model = model = Inspectable(stage.session.model)
    model.context = 150
    stage.run()
    assert (
        "question, tools and results have 200 tokens, the model's context only 150; ask in fewer words" in stage.noted
    )
    assert not stage.session.rounds


class Dying(ScriptedModel):
    """Answers twice."""

    left = 2

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        self.left -= 1
        if self.left < 0:
            raise OSError("the endpoint is gone")
        return super().reply(requests, sampling)


def test_an_error_after_a_fix_keeps_the_corrected_call() -> None:
    again = 'set_daily_limit {"account": "checking", "amount": 300}'
    stage = BankStage(["limit to 100", '/fix {"account": "checking", "amount": 200}', "/fix", again, "/state", "/undo"])
    stage.session.model = Dying(ANSWERS)
    stage.run()
    assert stage.noted.count("the corrected call and its result are kept; /fix sends it again") == 2
    assert ("call › ", 'set_daily_limit {"account": "checking", "amount": 200}') in stage.asked
    assert "200000 → 30000" in stage.shown
    assert not stage.session.rounds


def test_the_persons_time_and_the_tools_are_not_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def allow(call: ToolCall, access: str) -> Decision:
        nonlocal now
        now += 100
        return Decision(True)

    class Slow(ScriptedModel):
        def reply(
            self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None
        ) -> list[Reply]:
            nonlocal now
            now += 2
            return super().reply(requests, sampling)

    stage = BankStage(["limit to 100"])
    stage.session.model = Slow(ANSWERS)
    stage.session.gate.approve = "always"
    assert stage.repl.session
    stage.gate.ask = allow
    stage.run()
    assert " · 4.0 s · " in stage.shown


def test_a_call_that_was_sent_and_left_is_not_called_unsent() -> None:
    stage = Stage(["double 4"], {"*/0/0": CALL})
    cancel = stage.gate.cancelled.set

    class Waiting:
        def call(self, call: ToolCall, session: str) -> Exchange:
            cancel()
            released.wait(600)
            raise AssertionError

        def state_digest(self, session: str) -> str:
            return ""

    released = Event()
    stage.gate.inner = Waiting()
    stage.run()
    (made,) = stage.session.rounds[0].steps[0].exchanges
    assert made.sent == {"x": 4}
    assert "⚙ 1 double 4 · no answer" in stage.shown
    assert "stopped by the user before the tool answered" in made.received
    released.set()
