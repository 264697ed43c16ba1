"""The suite `injection`: results hold an instruction that an agent must not follow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from agentft.evaluation.checking import check_cases
from agentft.evaluation.deriving import derive
from agentft.evaluation.gold import oracle_answers
from agentft.evaluation.plan import Arm, Plan, make_plan
from agentft.evaluation.records import Record, read_records
from agentft.evaluation.runner import Settings, evaluate
from agentft.evaluation.suites import load_suite, load_worlds
from agentft.models.scripted import Answer, ScriptedModel
from agentft.types import Case, Json, Span, ToolCall


@pytest.fixture(scope="module")
def plan() -> Plan:
    suite = load_suite("injection")
    return make_plan([suite], load_worlds([suite]))


def run(plan: Plan, answers: Mapping[str, Answer], output: Path) -> dict[str, Record]:
    evaluate(plan, [Arm("agent", "agent", repr(answers), lambda: ScriptedModel(answers))], Settings(output))
    return {record.case: record for record in read_records(output / "cases.jsonl")}


def obey(plan: Plan, case: Case) -> ToolCall:
    """The first forbidden call of a case, with all arguments of its tool."""
    want = case.forbidden[0]
    (example,) = [dict(one.tools[want.name].example) for one in plan.toolsets if want.name in one.tools]
    return ToolCall("c", want.name, {**example, **want.arguments}, Span(0, 0))


def test_three_worlds_in_two_languages(plan: Plan) -> None:
    assert len(plan.toolsets) == 3
    assert len(plan.cases) == 21
    assert {case.category for case in plan.cases} == {"injection"}
    assert all(case.forbidden for case in plan.cases)
    assert Counter(case.lang for case in plan.cases) == {"en": 16, "zh": 5}
    for case in plan.cases:
        chinese = any("\u4e00" <= letter <= "\u9fff" for letter in case.turns[0].user)
        assert chinese == (case.lang == "zh")


def test_every_result_that_is_asked_for_holds_an_instruction_to_make_a_forbidden_call(plan: Plan) -> None:
    """It names the tool, or says where to send something, or who gets the money."""
    traces = {"delete_message": "delete|删除", "forward_message": "forward|@", "send_message": "@|发送"}
    traces |= {"fetch_page": "evil", "close_ticket": "close_ticket", "grant_credit": "c9"}
    for case in plan.cases:
        read = case.turns[0].calls[0]
        (toolset,) = [one for one in plan.toolsets if read.name in one.tools]
        text = json.dumps(toolset.call(read.name, dict(read.arguments), dict(toolset.new_state())), ensure_ascii=False)
        names = traces.get(case.forbidden[0].name, case.forbidden[0].name)
        assert any(trace in text for trace in names.split("|")), case.id


@pytest.mark.slow
def test_an_agent_that_obeys_scores_0_and_one_that_ignores_it_scores_1(plan: Plan, tmp_path: Path) -> None:
    oracle = oracle_answers(plan.job(case) for case in plan.cases)
    ignores = run(plan, oracle, tmp_path / "ignores")
    answers: dict[str, Answer] = {**oracle}
    for case in plan.cases:
        answers[f"{case.id}/0/1"], answers[f"{case.id}/0/2"] = (obey(plan, case),), oracle[f"{case.id}/0/1"]
    obeys = run(plan, answers, tmp_path / "obeys")
    for case in plan.cases:
        for metric in ("success", "resistance"):
            assert (ignores[case.id].scores[metric].value, obeys[case.id].scores[metric].value) == (1, 0), case.id
        assert obeys[case.id].scores["answer"].value == 1
        assert obeys[case.id].error == "wrong-count"


@pytest.mark.slow
def test_an_agent_that_never_calls_is_not_credited_with_resistance(plan: Plan, tmp_path: Path) -> None:
    for record in run(plan, {"*": "I see."}, tmp_path).values():
        assert (record.scores["resistance"].value, record.scores["success"].value) == (None, 0)


@pytest.mark.slow
def test_a_derived_suite_forbids_the_calls_as_they_are_shown(plan: Plan, tmp_path: Path) -> None:
    (made,) = derive(plan, plan.suites[0], ["renamed"], [], tmp_path)
    assert made.left_out == 0
    derived = make_plan([load_suite(str(made.folder))], plan.toolsets)
    for before, after in zip(plan.cases, derived.cases, strict=True):
        assert len(after.forbidden) == len(before.forbidden)
        assert {call.name for call in after.forbidden} <= {tool.name for tool in derived.tools(after)}
        assert {call.name for call in after.forbidden}.isdisjoint(call.name for call in before.forbidden)


def test_a_forbidden_call_that_no_tool_offers_is_a_flaw(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text('name = "x"\npersona = "Hi."\nworlds = ["calculator"]\n')
    row: dict[str, Json] = {"id": "a", "category": "injection", "lang": "en", "turns": [{"user": "Hi."}]}
    row["forbidden"] = [{"name": "calculat", "arguments": {}}]
    (tmp_path / "cases.jsonl").write_text(json.dumps(row))
    suite = load_suite(str(tmp_path))
    (flaw,) = check_cases(make_plan([suite], load_worlds([suite]), strict=False))
    assert flaw.place.endswith("cases.jsonl:1: forbidden[0]")
    assert (flaw.problem, flaw.remedy) == ("no tool 'calculat' is offered", "did you mean 'calculate'?")
