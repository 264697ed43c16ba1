"""Which cases a report shows first, and what it calls them."""

from __future__ import annotations

from agentft.metrics import Finding
from agentft.reports.pairing import called_tools, largest_failures, pair_cases, worst_run
from tests.reports.samples import arms_of, make_call, make_run


def outcomes(tuned: dict[str, float | None], base: dict[str, float | None]) -> dict[str, str]:
    return {case.id: case.outcome for case in pair_cases(arms_of(tuned, base))}


def test_regressions_come_first_and_every_case_is_named() -> None:
    tuned: dict[str, float | None] = {"s": 1.0, "g": 1.0, "l": 0.0, "f": 0.0, "i": None, "t": 1.0}
    base: dict[str, float | None] = {"s": 1.0, "g": 0.0, "l": 1.0, "f": 0.0, "i": 1.0, "b": 0.0}
    found = outcomes(tuned, base)
    expected = {"l": "lost", "f": "failed", "i": "invalid", "t": "only", "b": "only", "g": "gained", "s": "solved"}
    assert found == expected
    assert [*found][:3] == ["l", "f", "i"]
    assert set([*found][3:5]) == {"t", "b"}
    assert [*found][5:] == ["g", "s"]


def test_trials_count_by_their_share_and_the_largest_loss_is_first() -> None:
    arms = {
        "tuned": [make_run("a", 1), make_run("a", 0, trial=1), make_run("b", 0), make_run("b", 0, trial=1)],
        "base": [make_run("a", 1, arm="base"), make_run("b", 1, arm="base")],
    }
    first, second = pair_cases(arms)
    assert [(case.id, case.outcome, case.rates) for case in (first, second)] == [
        ("b", "lost", (0.0, 1.0)),
        ("a", "lost", (0.5, 1.0)),
    ]
    assert worst_run(second.runs[0]) is second.runs[0][1]
    assert worst_run(()) is None


def test_one_arm_has_neither_gains_nor_losses() -> None:
    rows = [make_run("a", 1), make_run("b", 0), make_run("c", None), make_run("d", 0.5)]
    found = {case.id: case.outcome for case in pair_cases({"tuned": rows})}
    assert found == {"b": "failed", "d": "failed", "c": "invalid", "a": "solved"}


def test_failures_are_grouped_by_class_tool_and_argument() -> None:
    wrong = (Finding("wrong-value", 0, "/item", "tee"), Finding("wrong-answer", 0))
    rows = [make_run("a", 0, error="wrong-value", findings=wrong), make_run("b", 0), make_run("c", 0)]
    groups = largest_failures(pair_cases({"tuned": rows}))
    assert [(group.error, group.tools, group.pointer, group.cases) for group in groups] == [
        ("no-call", "price", "", ("b", "c")),
        ("wrong-value", "price", "/item", ("a",)),
    ]
    old = [make_run("a", 0, expected=())]
    assert [group.tools for group in largest_failures(pair_cases({"tuned": old}))] == [""]


def test_failures_that_the_baseline_solves_are_counted_apart() -> None:
    tuned: dict[str, float | None] = {"a": 0.0, "b": 0.0, "c": 0.0, "d": None}
    (group,) = largest_failures(pair_cases(arms_of(tuned, {"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0})))
    assert (len(group.cases), group.lost, group.regressed) == (3, 2, ", regressions: 2")
    (alone,) = largest_failures(pair_cases({"tuned": [make_run("a", 0)]}))
    assert (alone.lost, alone.regressed) == (0, "")


def test_errors_of_the_answer_are_one_group_whatever_the_tools() -> None:
    wrong = {"error": "wrong-answer", "findings": (Finding("wrong-answer", 0),)}
    order = ({"calls": [{"name": "order", "arguments": {}}]},)
    rows = [make_run("a", 0), make_run("b", 0, **wrong), make_run("c", 0, **wrong, expected=order), make_run("d", 0)]
    rows.append(make_run("e", 0, **wrong))
    groups = largest_failures(pair_cases({"tuned": rows}))
    assert [(group.error, group.tools, group.cases) for group in groups] == [
        ("wrong-answer", "", ("b", "c", "e")),
        ("no-call", "price", ("a", "d")),
    ]


def test_the_tools_of_a_case_are_those_expected_and_those_called() -> None:
    (case,) = pair_cases({"tuned": [make_run("a", 0, make_call("order"), make_call("", "no name"))]})
    assert called_tools(case) == ["price", "order"]
