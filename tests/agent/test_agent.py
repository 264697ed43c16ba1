from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from agentft.agent import Job, Options, add_user_turn, open_conversation, run_cases, step
from agentft.calls import CallFormat, call_format
from agentft.errors import InputError
from agentft.models import CallDone, CallStarted, Delta, OnDelta, Reply, Request, Sampling
from agentft.models.scripted import ScriptedModel
from agentft.types import (
    CallExpectation,
    Case,
    CaseTurn,
    Exchange,
    Span,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Trajectory,
)

TOOL = ToolDefinition("echo", "Says it again.", {"type": "object", "properties": {"text": {"type": "string"}}})


@dataclass
class FakeClient:
    """Answers every call with its arguments; raises `error` for all sessions but the first `healthy` ones."""

    error: Exception | None = None
    calls: list[tuple[str, str]] = field(default_factory=list)

    def call(self, call: ToolCall, session: str) -> Exchange:
        if self.error:
            raise self.error
        self.calls.append((session, call.name))
        received = json.dumps({"echo": dict(call.arguments)}, ensure_ascii=False)
        return Exchange(call, "POST", "http://echo.test/echo", dict(call.arguments), 200, received, False)

    def state_digest(self, session: str) -> str:
        return f"state of {sum(name == session for name, _ in self.calls)}"


class CountingModel:
    """A scripted model that records its batches and prompts, and fails for some keys."""

    def __init__(self, answers: Mapping[str, str], fmt: str = "hermes", failing: Sequence[str] = ()) -> None:
        self.inner = ScriptedModel(answers, fmt=fmt)
        self.failing = failing
        self.batches: list[list[str]] = []
        self.prompts: dict[str, str] = {}
        self.name, self.source, self.rendering = self.inner.name, self.inner.source, self.inner.rendering

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        self.batches.append([request.key for request in requests])
        if any(request.key in self.failing for request in requests):
            raise RuntimeError("out of memory")
        replies = self.inner.reply(requests, sampling, on_delta)
        self.prompts |= {request.key: reply.prompt or "" for request, reply in zip(requests, replies, strict=True)}
        return replies


def call_text(fmt: CallFormat, text: str) -> str:
    return fmt.write_parts([ToolCall("c", "echo", {"text": text}, Span(0, 0))])


def job(name: str, *users: str) -> Job:
    return Job(Case(name, "s", "single", "en", ("w",), tuple(CaseTurn(user) for user in users)), "You help.", (TOOL,))


def run(jobs: Sequence[Job], model: CountingModel, client: FakeClient, **options: int) -> dict[str, Trajectory]:
    done = run_cases(jobs, model, lambda _: client, Options(**options))  # type: ignore[arg-type]
    return {trajectory.case_id: trajectory for trajectory in done}


@pytest.mark.parametrize("name", ["msagent", "hermes"])
def test_calls_are_executed_and_their_results_go_back_to_the_model(name: str) -> None:
    fmt = call_format(name)
    model = CountingModel({"a/0/0": call_text(fmt, "hé"), "a/0/1": "It says hé.", "a/1/0": "Bye."}, name)
    client = FakeClient()
    trajectory = run([job("a", "Say hé", "Thanks")], model, client)["a"]
    assert trajectory.outcome == "done"
    assert [(made.turn, len(made.exchanges)) for made in trajectory.steps] == [(0, 1), (0, 0), (1, 0)]
    assert '{"echo": {"text": "hé"}}' in model.prompts["a/0/1"]
    assert "It says hé." in model.prompts["a/1/0"]
    assert model.prompts["a/1/0"].count("Thanks") == 1
    assert trajectory.state == "state of 1"
    assert trajectory.prompt == model.prompts["a/0/0"]
    assert "You help." in trajectory.prompt
    assert "Says it again." in trajectory.prompt


@pytest.mark.parametrize("name", ["msagent", "hermes"])
def test_each_prompt_continues_the_previous_one(name: str) -> None:
    fmt = call_format(name)
    texts = {"a/0/0": call_text(fmt, "one"), "a/0/1": call_text(fmt, "two"), "a/0/2": "Done."}
    model = CountingModel(texts, name)
    run([job("a", "Go")], model, FakeClient())
    for index in range(2):
        said = model.prompts[f"a/0/{index}"] + texts[f"a/0/{index}"]
        assert model.prompts[f"a/0/{index + 1}"].startswith(said)


def test_cases_share_batches_that_are_refilled() -> None:
    fmt = call_format("hermes")
    answers = {"a/0/0": call_text(fmt, "x"), "a/0/1": "A.", "b/0/0": "B.", "c/0/0": "C."}
    model = CountingModel(answers)
    jobs = [job(name, "Go") for name in "abc"]
    client = FakeClient()
    done = [t.case_id for t in run_cases(jobs, model, lambda _: client, Options(batch_size=2))]
    assert model.batches == [["a/0/0", "b/0/0"], ["a/0/1", "c/0/0"]]
    assert done == ["b", "a", "c"]


def test_sessions_differ_between_cases_trials_and_runs() -> None:
    fmt = call_format("hermes")
    client = FakeClient()
    model = CountingModel({"*/0/0": call_text(fmt, "x"), "*/0/1": "Done."})
    first = job("a", "Go")
    jobs = [first, job("b", "Go"), Job(first.case, first.persona, first.tools, trial=1)]
    list(run_cases(jobs, model, lambda _: client, Options()))
    list(run_cases(jobs, model, lambda _: client, Options(run="other")))
    assert len({session for session, _ in client.calls}) == 6


def test_a_model_that_never_stops_calling_is_stopped() -> None:
    fmt = call_format("hermes")
    trajectory = run([job("a", "Go", "More")], CountingModel({"*": call_text(fmt, "x")}), FakeClient(), max_steps=3)[
        "a"
    ]
    assert trajectory.outcome == "step-limit"
    assert len(trajectory.steps) == 3


def test_a_turn_of_many_calls_has_room_to_make_them_one_by_one() -> None:
    fmt = call_format("hermes")
    turn = CaseTurn("Go", tuple(CallExpectation("echo", {"text": str(number)}) for number in range(4)))
    long = job("a")
    long = Job(replace(long.case, turns=(turn,)), long.persona, long.tools)
    trajectory = run([long], CountingModel({"*": call_text(fmt, "x")}), FakeClient(), max_steps=3)["a"]
    assert (trajectory.outcome, len(trajectory.steps)) == ("step-limit", 6)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("hermes", '<tool_call>\n{"name": "echo", "arguments": {"text": \n</tool_call>'),
        ("msagent", '<|startofthink|>```JSON\n{"api_name": "echo", "parameters": {"text": \n```<|endofthink|>'),
    ],
)
def test_an_unreadable_call_gets_a_result_and_is_never_sent(name: str, broken: str) -> None:
    fmt = call_format(name)
    client = FakeClient()
    model = CountingModel({"a/0/0": broken, "a/0/1": call_text(fmt, "x"), "a/0/2": "Mended."}, name)
    trajectory = run([job("a", "Go")], model, client)["a"]
    first = trajectory.steps[0].exchanges[0]
    assert (first.status, first.url, first.is_error) == (None, None, True)
    assert "the call could not be read" in json.loads(first.received)["error"]
    assert "the call could not be read" in model.prompts["a/0/1"]
    assert len(client.calls) == 1
    assert trajectory.outcome == "done"


def test_a_dead_server_makes_the_case_invalid_and_the_run_continues() -> None:
    fmt = call_format("hermes")
    model = CountingModel({"a/0/0": call_text(fmt, "x"), "b/0/0": "Fine."})
    done = run([job("a", "Go"), job("b", "Go")], model, FakeClient(error=ConnectionResetError("gone")))
    assert (done["a"].outcome, done["a"].problem) == ("invalid", "ConnectionResetError: gone")
    assert done["b"].outcome == "done"


def test_one_request_that_breaks_the_model_costs_one_case() -> None:
    model = CountingModel({"*": "Fine."}, failing=["b/0/0"])
    done = run([job(name, "Go") for name in "abc"], model, FakeClient())
    assert {name: trajectory.outcome for name, trajectory in done.items()} == {"a": "done", "b": "invalid", "c": "done"}
    assert done["b"].problem == "RuntimeError: out of memory"


def test_a_missing_answer_is_an_input_error_that_ends_the_run() -> None:
    with pytest.raises(InputError, match="no answer for 'a/0/0'"):
        run([job("a", "Go")], CountingModel({}), FakeClient())


@pytest.mark.parametrize("name", ["msagent", "hermes"])
def test_single_steps_give_the_same_trajectory(name: str) -> None:
    fmt = call_format(name)
    model = CountingModel({"chat/0/0": call_text(fmt, "hé"), "chat/0/1": "It says hé.", "chat/1/0": "Bye."}, name)
    client = FakeClient()
    deltas: list[Delta] = []
    conversation = add_user_turn(open_conversation("chat", "You help.", [TOOL], fmt.name), "Say hé")
    conversation, made = step(conversation, model, client, Sampling(), "s1", lambda _, delta: deltas.append(delta))
    assert made.exchanges[0].call.arguments == {"text": "hé"}
    result = conversation.turns[-1].parts[0]
    assert isinstance(result, ToolResult)
    assert (result.call_id, result.is_error) == (made.exchanges[0].call.id, False)
    conversation, made = step(conversation, model, client, Sampling(), "s1")
    assert (made.raw, made.turn) == ("It says hé.", 0)
    conversation, made = step(add_user_turn(conversation, "Thanks"), model, client, Sampling(), "s1")
    assert (made.raw, made.turn) == ("Bye.", 1)
    assert [turn.role for turn in conversation.turns] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
    ]
    assert [type(delta) for delta in deltas] == [CallStarted, CallDone]
    for turn in conversation.turns:
        assert "".join(turn.raw[part.span.start : part.span.end] for part in turn.parts) == turn.raw
