"""The overfit index: paired by case, once for each case of the suite, for each arm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agentft.evaluation.overfitting import overfit_index
from agentft.evaluation.plan import Plan
from agentft.evaluation.records import Record
from agentft.evaluation.statistics import paired_delta
from tests.evaluation.world import call, small_plan
from tests.reports.samples import make_run


def plan_of(tmp_path: Path) -> Plan:
    cases = [
        {"id": name, "category": "single", "turns": [{"user": f"{name}?", "calls": [call("price", item="tea")]}]}
        for name in "abcd"
    ]
    plan = small_plan(tmp_path, cases)
    (suite,) = plan.suites
    made = [
        (
            replace(suite, name=name, of="shopping", transform=name),
            [replace(case, id=f"{case.id}~{name}", suite=name) for case in plan.cases],
        )
        for name in ("renamed", "typos")
    ]
    others = tuple(case for _, found in made for case in found)
    return replace(plan, suites=(suite, *(one for one, _ in made)), cases=(*plan.cases, *others))


def runs(**values: float | None) -> list[Record]:
    return [make_run(name.replace("_", "~"), value) for name, value in values.items()]


def test_original_minus_derived_over_the_cases_of_both(tmp_path: Path) -> None:
    rows = runs(a=1, b=1, c=0, d=None, a_renamed=0, b_renamed=1, c_renamed=0, d_renamed=0, a_typos=0)
    found = overfit_index(plan_of(tmp_path), {"model": rows})
    assert found is not None
    assert list(found) == ["renamed", "typos", "all"]
    renamed = found["renamed"]["model"]
    assert (renamed["original"]["value"], renamed["derived"]["value"]) == (2 / 3, 1 / 3)
    expected = paired_delta([1, 1, 0], [0, 1, 0])
    assert (renamed["index"]["value"], renamed["index"]["n"]) == (expected.value, 3)
    assert (renamed["index"]["low"], renamed["index"]["high"]) == (expected.low, expected.high)
    whole = found["all"]["model"]
    assert (whole["index"]["n"], whole["derived"]["value"]) == (3, 1 / 3)  # a: 0 and 0; b: 1; c: 0


def test_trials_are_averaged_and_arms_are_apart(tmp_path: Path) -> None:
    rows = [*runs(a=1), replace(make_run("a", 0), trial=1), *runs(a_renamed=1)]
    found = overfit_index(plan_of(tmp_path), {"tuned": rows, "base": runs(a=1, a_renamed=0)})
    assert found is not None
    assert found["renamed"]["tuned"]["index"]["value"] == -0.5
    assert found["renamed"]["base"]["index"]["value"] == 1


def test_without_derived_suites_there_is_none(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert overfit_index(plan, {"model": runs(a=1)}) is None
    assert overfit_index(replace(plan, suites=plan.suites[1:]), {"model": runs(a=1, a_renamed=1)}) is None
