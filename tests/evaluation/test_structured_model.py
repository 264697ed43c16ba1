"""A model that returns structured parts: agent loop, evaluation, records, scores and terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agentft.agent import add_user_turn, open_conversation, step
from agentft.display.chat import ChatView
from agentft.evaluation.gold import oracle_answers
from agentft.evaluation.plan import Arm, Plan
from agentft.evaluation.records import read_records
from agentft.evaluation.runner import Settings, evaluate
from agentft.evaluation.summary import SCORES
from agentft.models import Sampling
from agentft.records import parse_row
from agentft.repl.gate import CallGate
from agentft.repl.saving import msagent_row
from agentft.repl.session import Session
from agentft.types import Json, ToolCall, ToolResult
from tests.evaluation.world import small_plan
from tests.models.structured import StructuredModel, message
from tests.repl.stage import DOUBLE, Doubler

CALL: Json = {"id": "id-0", "function": {"name": "double", "arguments": '{"x": 4}'}}
TALK: dict[str, dict[str, Json]] = {
    "*": {"role": "assistant", "content": "I work it out.", "tool_calls": [CALL]},
    "c/0/1": {"role": "assistant", "reasoning_content": "Twice four.", "content": "It is 8."},
}
BROKEN: Json = {"id": "id-0", "function": {"name": "price", "arguments": '{"item": '}}


def run(plan: Plan, output: Path, messages: dict[str, dict[str, Json]]) -> dict[str, Any]:
    arm = Arm("tuned", "structured", "identity", lambda: StructuredModel(messages))
    return evaluate(plan, [arm], Settings(output)).document()


def perfect(plan: Plan) -> dict[str, dict[str, Json]]:
    return {key: message(parts) for key, parts in oracle_answers(plan.job(case) for case in plan.cases).items()}


def test_the_agent_loop_appends_turns_with_spans_and_keeps_the_calls_ids() -> None:
    model = StructuredModel(TALK)
    conversation = add_user_turn(open_conversation("c", "", [DOUBLE], model.source), "double 4")
    conversation, made = step(conversation, model, Doubler(), Sampling(), "s")
    assert model.requests[0].conversation.tools == (DOUBLE,)
    assert (made.raw, made.prompt_tokens, made.tokens) == (None, 5, 3)
    result = conversation.turns[-1].parts[0]
    assert isinstance(result, ToolResult)
    assert (result.call_id, result.content) == ("id-0", '{"result": 8}')
    conversation, made = step(conversation, model, Doubler(), Sampling(), "s")
    assert made.exchanges == ()
    for turn in conversation.turns:
        assert "".join(turn.raw[part.span.start : part.span.end] for part in turn.parts) == turn.raw


def test_perfect_calls_solve_every_case(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    summary = run(plan, tmp_path / "out", perfect(plan))
    values = {name: summary["metrics"][name]["tuned"]["value"] for name in SCORES}
    assert {name for name, value in values.items() if value not in (1.0, None)} <= {"rouge_l"}
    assert (summary["verdict"], summary["invalid"], summary["errors"]) == ("none", 0, {})
    arm = summary["arms"]["tuned"]
    assert (arm["format"], arm["frame_sha256"], arm["tokens"]) == (None, None, 3 * arm["steps"])


def test_records_hold_the_parts_and_read_back_as_the_same_trajectory(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    thinking = {**perfect(plan)["i1/0/0"], "reasoning_content": "A poem, then."}
    run(plan, tmp_path / "out", {**perfect(plan), "i1/0/0": thinking})
    records = {record.case: record for record in read_records(tmp_path / "out" / "cases.jsonl")}
    assert {step.raw for record in records.values() for step in record.steps} == {None}
    assert (records["p1"].prompt, records["p1"].format) == ("", None)
    first = records["p1"].document()["steps"][0]
    assert [part["type"] for part in first["parts"]] == ["call", "call"]
    assert [(call["id"], call["arguments"]) for call in first["calls"]] == [
        ("id-0", {"item": "tea"}),
        ("id-1", {"item": "cake"}),
    ]
    parts = records["p1"].steps[0].parts
    assert [(part.id, part.arguments) for part in parts if isinstance(part, ToolCall)] == [
        ("id-0", {"item": "tea"}),
        ("id-1", {"item": "cake"}),
    ]
    thought = records["i1"].steps[0].parts[0]
    assert getattr(thought, "thought", False)


def test_an_unreadable_call_is_an_error_of_the_model(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    broken: dict[str, Json] = {"role": "assistant", "tool_calls": [BROKEN]}
    answers = {**perfect(plan), "s1/0/0": broken}
    summary = run(plan, tmp_path / "out", answers)
    assert summary["errors"] == {"invalid-json": {"tuned": 1}}
    record = next(r for r in read_records(tmp_path / "out" / "cases.jsonl") if r.case == "s1")
    exchange = record.steps[0].exchanges[0]
    assert "the call could not be read" in json.loads(exchange.received)["error"]
    failure = exchange.call.parse_error
    assert failure is not None
    assert (failure.kind, str(failure)) == ("content", record.document()["steps"][0]["calls"][0]["parse_error"])


@pytest.mark.parametrize("streaming", [True, False])
def test_a_chat_shows_thoughts_calls_and_answers_and_can_be_saved(streaming: bool) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80, color_system=None, highlight=False)
    view = ChatView(console, console, streaming=streaming)
    session = Session(
        StructuredModel({"*": TALK["*"]}), CallGate(Doubler(), on_done=view.exchange), Sampling(), (DOUBLE,)
    )
    session.model = StructuredModel({"*": TALK["*"], f"{session.conversation.id}/0/1": TALK["c/0/1"]})
    for made in session.ask("double 4", view.listening):
        view.step(made)
    shown = screen.getvalue()
    order = ["I work it out.", "double 4 · 200 ·", '{"result": 8}', "It is 8."]
    assert [shown.count(text) for text in order] == [1] * len(order)
    assert sorted(order, key=shown.index) == order
    read = parse_row(json.loads(json.dumps(msagent_row(session.conversation))), "row")
    assert [part.name for part in read.turns[-1].parts if isinstance(part, ToolCall)] == ["double"]
