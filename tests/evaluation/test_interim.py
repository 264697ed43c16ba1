"""The evaluation of a model that is still being trained: the figures of `agentft eval`, and two conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentft.evaluation.arms import ModelChoice, make_arm
from agentft.evaluation.gold import oracle_answers
from agentft.evaluation.interim import FIGURES, InterimEvaluation
from agentft.evaluation.plan import Plan, make_plan
from agentft.evaluation.runner import Settings, evaluate
from agentft.evaluation.suites import load_worlds, select_suites
from agentft.models import Reply
from agentft.models.scripted import ScriptedModel
from agentft.types import Part, Span, Text, ToolCall


@pytest.fixture(scope="module")
def plan() -> Plan:
    suites = select_suites(["calculator"], [])
    return make_plan(suites, load_worlds(suites), limit=8)


def model(plan: Plan, wrong: int = 0, forced: int = 0) -> ScriptedModel:
    """Answers as expected, but with other arguments in `wrong` cases with calls and calls in `forced` without."""
    answers: dict[str, tuple[Part, ...]] = dict(oracle_answers(plan.job(case) for case in plan.cases))
    other = ToolCall("1", "calculate", {"expression": "1+1"}, Span(0, 0))
    calling = [case for case in plan.cases if case.turns[0].calls]
    for case in calling[:wrong]:
        answers[f"{case.id}/0/0"] = (other,)
    for case in [case for case in plan.cases if case not in calling][:forced]:
        answers |= {f"{case.id}/0/0": (other,), f"{case.id}/0/1": (Text("2", Span(0, 1)),)}
    return ScriptedModel(answers, "oracle", "msagent")


def test_the_figures_are_those_of_an_evaluation(plan: Plan, tmp_path: Path) -> None:
    found = InterimEvaluation(plan)(model(plan, wrong=2), tmp_path / "interim", 8)
    assert found is not None
    figures, samples = found

    arm = make_arm("model", plan, ModelChoice(model="scripted"))
    arm = type(arm)("model", "oracle", "oracle", lambda: model(plan, wrong=2))
    summary = evaluate(plan, [arm], Settings(tmp_path / "evaluation"))
    assert {name: figures[f"eval_{name}"] for name in FIGURES} == {
        name: summary.metrics[name].arms["model"].value for name in FIGURES
    }
    assert figures["eval_cases"] == 8
    assert figures["eval_score"] == 6 / 8
    assert json.loads((tmp_path / "interim" / "summary.json").read_text())["cases"] == 8
    wrong, right = samples
    assert "calculate" in wrong
    assert wrong.partition(" (")[0] != right.partition(" (")[0]
    assert "(right): user: " in right
    assert " | tool: 200 " in right
    assert " | model: <|startofthink|>" in wrong


def test_a_call_where_none_is_expected_is_wrong(plan: Plan, tmp_path: Path) -> None:
    found = InterimEvaluation(plan)(model(plan, forced=1), tmp_path, 8)
    assert found is not None
    assert found[0]["eval_score"] == 7 / 8


def test_a_larger_limit_goes_on_where_a_smaller_one_ended(plan: Plan, tmp_path: Path) -> None:
    evaluation, oracle = InterimEvaluation(plan), model(plan)
    assert evaluation.cases == 8
    few = evaluation(oracle, tmp_path, 3)
    before = (tmp_path / "cases.jsonl").read_text()
    all_ = evaluation(oracle, tmp_path, 8)

    assert few is not None
    assert all_ is not None
    assert (few[0]["eval_cases"], all_[0]["eval_cases"]) == (3, 8)
    assert (tmp_path / "cases.jsonl").read_text().startswith(before)


def test_an_interrupted_evaluation_has_no_figures(plan: Plan, tmp_path: Path) -> None:
    class Ended(ScriptedModel):
        def reply(self, *_: Any, **__: Any) -> list[Reply]:
            raise KeyboardInterrupt

    assert InterimEvaluation(plan)(Ended({}, "ended", "msagent"), tmp_path, 8) is None


def test_invalid_cases_count_for_nothing(plan: Plan, tmp_path: Path) -> None:
    class Broken(ScriptedModel):
        def reply(self, *_: Any, **__: Any) -> list[Reply]:
            raise RuntimeError("out of memory")

    found = InterimEvaluation(plan)(Broken({}, "broken", "msagent"), tmp_path, 4)
    assert found is not None
    figures, samples = found
    assert figures == {"eval_cases": 0.0}
    assert "(RuntimeError: out of memory)" in samples[0]
