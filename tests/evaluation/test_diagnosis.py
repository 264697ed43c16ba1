"""Where a model fails: tools confused, arguments that are wrong, and errors before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from agentft.evaluation.diagnosis import NO_CALL, UNKNOWN, UNREADABLE, Diagnosis, diagnose
from agentft.evaluation.plan import Plan
from agentft.evaluation.records import Record
from agentft.evaluation.statistics import ratio
from agentft.types import Step, Text, ToolCall
from tests.evaluation.world import call, small_plan
from tests.reports.samples import make_call, make_run

Cells = dict[tuple[str, str], tuple[dict[str, int], tuple[str, ...]]]


def cells(found: Diagnosis) -> Cells:
    return {(cell.expected, cell.called): (dict(cell.counts), cell.cases) for cell in found.confusion}


def run(plan: Plan, case: str, /, *turns: tuple[ToolCall, ...], text: str = "Done.", **fields: Any) -> Record:
    """A record with these calls in each user turn."""
    steps = tuple(
        Step(turn, (*calls, Text(text, calls[0].span if calls else make_call("x").span)), text, "end", ())
        for turn, calls in enumerate(turns)
    )
    return make_run(case, 0, steps=steps, **fields)


def test_every_call_is_counted_once_against_what_was_expected(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    rows = [
        run(plan, "s1", (make_call("price", item="tea"),)),
        run(plan, "s2", (make_call("price", item="tea"),)),
        run(plan, "p1", (make_call("price", item="tea"), make_call("price", "broken"))),
        run(plan, "m1", (make_call("buy", item="tea"),), ()),
        run(plan, "i1", (), text='{"name": "price", "arguments": {}}'),
        run(plan, "e1", (make_call("price", item="tea"),)),
        run(plan, "r1", ()),
    ]
    assert cells(diagnose(plan, {"tuned": rows})) == {
        ("price", "price"): ({"tuned": 3}, ()),
        ("order", "price"): ({"tuned": 1}, ("s2",)),
        ("price", UNREADABLE): ({"tuned": 1}, ("p1",)),
        (NO_CALL, UNKNOWN): ({"tuned": 1}, ("m1",)),
        ("order", NO_CALL): ({"tuned": 2}, ("m1", "r1")),
        (NO_CALL, UNREADABLE): ({"tuned": 1}, ("i1",)),
        ("price", NO_CALL): ({"tuned": 1}, ("r1",)),
    }


def test_no_call_where_none_is_expected_and_calls_that_are_too_many(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    many = run(plan, "s1", (make_call("price", item="tea"), make_call("price", item="cake"), make_call("buy")))
    rows = [many, run(plan, "i1", ()), run(plan, "s2", (make_call("buy"),))]
    assert cells(diagnose(plan, {"tuned": rows, "base": [run(plan, "i1", ())]})) == {
        ("price", "price"): ({"tuned": 1, "base": 0}, ()),
        (NO_CALL, "price"): ({"tuned": 1, "base": 0}, ("s1",)),
        (NO_CALL, UNKNOWN): ({"tuned": 1, "base": 0}, ("s1",)),
        (NO_CALL, NO_CALL): ({"tuned": 1, "base": 1}, ()),
        ("order", UNKNOWN): ({"tuned": 1, "base": 0}, ("s2",)),
    }


def test_the_most_frequent_errors_of_the_first_arm_are_first(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    silent = [run(plan, "s1", ()), run(plan, "s2", ()), run(plan, "p1", ())]
    found = diagnose(plan, {"tuned": [*silent, run(plan, "i1", ())], "base": []})
    assert [(cell.expected, cell.called) for cell in found.confusion] == [
        ("price", NO_CALL),
        ("order", NO_CALL),
        (NO_CALL, NO_CALL),
    ]


def test_arguments_have_counts_intervals_and_what_is_wrong(tmp_path: Path) -> None:
    optional = {**call("order", item="tea", count=2), "optional": {"note": "x"}}
    plan = small_plan(
        tmp_path,
        [{"id": f"c{n}", "category": "single", "turns": [{"user": f"{n}", "calls": [optional]}]} for n in range(4)],
    )
    right: dict[str, Any] = {"item": "tea", "count": 2}
    tuned = [
        run(plan, "c0", (make_call("order", **right, note="x"),)),
        run(plan, "c1", (make_call("order", item="cake", count=2, size=1),)),
        run(plan, "c2", (make_call("order", item="tea"),)),
        run(plan, "c3", (make_call("price", item="tea"),)),
    ]
    found = diagnose(plan, {"tuned": tuned, "base": [run(plan, "c0", (make_call("order", **right),), arm="base")]})
    assert [
        (one.argument, one.arms["tuned"], one.arms["base"].n, dict(one.wrong), one.cases) for one in found.arguments
    ] == [
        ("count", ratio([(2, 3)]), 1, {"missing": 1}, ("c2",)),
        ("item", ratio([(2, 3)]), 1, {"value": 1}, ("c1",)),
        ("size", ratio([(0, 1)]), 0, {"surplus": 1}, ("c1",)),
        ("note", ratio([(1, 1)]), 0, {}, ()),
    ]
    assert {one.tool for one in found.arguments} == {"order"}


def test_trials_of_one_call_are_one_value(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    rows = [
        run(plan, "s1", (make_call("price", item=item),), trial=trial) for trial, item in enumerate(["tea", "cake"])
    ]
    (found,) = diagnose(plan, {"tuned": rows}).arguments
    assert (found.arms["tuned"].value, found.arms["tuned"].n, found.wrong, found.cases) == (
        0.5,
        1,
        {"value": 1},
        ("s1",),
    )


def test_errors_before_and_after_are_paired_by_case_and_trial(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    tuned = [
        replace(run(plan, name, ()), error=error)
        for name, error in (("s1", None), ("s2", None), ("p1", "type"), ("i1", "type"), ("r1", None))
    ]
    base = [
        replace(run(plan, name, ()), error=error)
        for name, error in (("s1", "no-call"), ("s2", "no-call"), ("p1", None), ("e1", None))
    ]
    base += [make_run("i1", None), replace(run(plan, "r1", ()), trial=1)]
    changes = diagnose(plan, {"tuned": tuned, "base": base}).changes
    assert changes == {"no-call": {"solved": 2}, "solved": {"type": 1}}
    assert diagnose(plan, {"tuned": tuned}).changes == {}


def test_invalid_cases_are_left_out(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    found = diagnose(plan, {"tuned": [replace(run(plan, "s1", ()), outcome="invalid")]})
    assert (found.confusion, found.arguments) == ((), ())
