"""Agents of known behaviour score on every suite what the metrics' definitions say. No suite has a flaw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agentft.evaluation.checking import check_cases
from agentft.evaluation.gold import oracle_answers
from agentft.evaluation.plan import Arm, Plan, make_plan
from agentft.evaluation.records import read_records
from agentft.evaluation.runner import Settings, evaluate
from agentft.evaluation.suites import load_suite, load_worlds, shipped_suites
from agentft.metrics.calls import ABSTAINING
from agentft.metrics.values import contains_value
from agentft.models.scripted import Answer, ScriptedModel
from agentft.types import Case, Score, Span, ToolCall

FEW = 30
NOWHERE = Span(0, 0)
Scores = list[tuple[Case, Mapping[str, Score]]]


def plan_of(suites: tuple[str, ...], limit: int | None = None) -> Plan:
    chosen = [load_suite(name) for name in suites]
    return make_plan(chosen, load_worlds(chosen), limit=limit)


PLANS = [
    pytest.param(shipped_suites(), FEW, id="some cases of all", marks=pytest.mark.slow),
    *(pytest.param((name,), None, id=name, marks=pytest.mark.slow) for name in shipped_suites()),
]


def score(plan: Plan, answers: Mapping[str, Answer], output: Path) -> Scores:
    arm = Arm("agent", "agent", repr(answers), lambda: ScriptedModel(answers))
    summary = evaluate(plan, [arm], Settings(output))
    assert summary.invalid == 0
    records = {record.case: record.scores for record in read_records(output / "cases.jsonl")}
    return [(case, records[case.id]) for case in plan.cases]


def values(scores: Scores, metric: str) -> list[float]:
    return [value for _, found in scores if (value := found[metric].value) is not None]


def abstention(scores: Scores, expected: float) -> bool:
    """Whether every case that asks for abstention has this score."""
    return set(values(scores, "abstention")) == {expected for case, _ in scores if case.category in ABSTAINING}


def first_example(plan: Plan, case: Case) -> ToolCall:
    tool = plan.tools(case)[0]
    (example,) = [toolset.tools[tool.name].example for toolset in plan.toolsets if tool.name in toolset.tools]
    return ToolCall("call", tool.name, dict(example), NOWHERE, endpoint=tool.endpoints[0])


@pytest.mark.parametrize(("suites", "limit"), PLANS)
def test_the_oracle_is_always_right(suites: tuple[str, ...], limit: int | None, tmp_path: Path) -> None:
    plan = plan_of(suites, limit)
    scores = score(plan, {**oracle_answers(plan.job(case) for case in plan.cases)}, tmp_path)
    others = ("action_em", "input_em", "msagent_f1", "rouge_l")  # those of MSAgent-Bench know no alternatives
    for metric in scores[0][1].keys() - set(others):
        assert set(values(scores, metric)) <= {1.0}, metric


@pytest.mark.parametrize("text", ["", "I see."])
@pytest.mark.parametrize(("suites", "limit"), PLANS)
def test_a_model_that_never_calls(suites: tuple[str, ...], limit: int | None, text: str, tmp_path: Path) -> None:
    """Silence is no abstention: that takes an answer."""
    plan = plan_of(suites, limit)
    scores = score(plan, {"*": text}, tmp_path)
    assert abstention(scores, float(bool(text)))
    for metric in ("exact_call", "tool_name", "argument_f1", "end_state", "recovery", "answer"):
        assert set(values(scores, metric)) <= {0.0}, metric
    assert not values(scores, "json_valid")
    for case, found in scores:
        quiet = [not turn.calls for turn in case.turns]
        asked = any(turn.answer for turn in case.turns)
        assert found["success"].value == float(all(quiet) and bool(text) and not asked)
        assert found["call_decision"].value == pytest.approx(sum(quiet) / len(quiet))


@pytest.mark.parametrize(("suites", "limit"), PLANS)
def test_a_model_that_always_calls(suites: tuple[str, ...], limit: int | None, tmp_path: Path) -> None:
    plan = plan_of(suites, limit)
    calls = {case.id: first_example(plan, case) for case in plan.cases}
    first = {f"{case.id}/{turn}/0": (calls[case.id],) for case in plan.cases for turn in range(len(case.turns))}
    scores = score(plan, {**first, "*": "Done."}, tmp_path)
    assert abstention(scores, 0.0)
    for metric in ("json_valid", "known_tool", "schema_valid"):
        assert set(values(scores, metric)) == {1.0}, metric
    for case, found in scores:
        expected_turns = [bool(turn.calls) for turn in case.turns]
        assert found["call_decision"].value == pytest.approx(sum(expected_turns) / len(expected_turns))
        names = [[call.name for call in turn.calls[turn.skippable :]] for turn in case.turns]
        if any(expected_turns) and any(found_names != [calls[case.id].name] for found_names in names):
            assert found["exact_call"].value == found["success"].value == 0


@pytest.mark.parametrize(("suites", "limit"), PLANS)
def test_a_model_that_repeats_the_user(suites: tuple[str, ...], limit: int | None, tmp_path: Path) -> None:
    plan = plan_of(suites, limit)
    said = {f"{case.id}/{index}/0": turn.user for case in plan.cases for index, turn in enumerate(case.turns)}
    scores = score(plan, said, tmp_path)
    assert abstention(scores, 1.0)
    assert set(values(scores, "exact_call")) <= {0.0}
    for case, found in scores:
        held = [contains_value(turn.user, value) for turn in case.turns for value in turn.answer]
        if held:
            assert found["answer"].value == float(all(held))
        assert found["success"].value == float(not any(turn.calls for turn in case.turns) and all(held))


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_suites())
def test_shipped_suites_have_no_flaws(name: str) -> None:
    assert check_cases(plan_of((name,))) == []
