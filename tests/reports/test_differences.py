"""Calls side by side: aligned with the expected ones, and taken apart down to the argument."""

from __future__ import annotations

from typing import Any

from agentft.evaluation.probabilities import CallPiece, CallProbability, Probabilities
from agentft.metrics import Finding
from agentft.reports.differences import call_differences
from tests.reports.samples import make_call, make_run

Rows = list[list[tuple[str, str | None, tuple[str | None, ...], tuple[bool, ...]]]]


def differences(expected: list[dict[str, Any]], *runs: Any) -> Rows:
    turns = [{"calls": expected, "answer": [], "failing": 0}] if expected else []
    found = call_differences(turns, runs)
    return [[(row.pointer, row.expected, row.arms, row.wrong) for row in call.rows] for call in found]


def expected_call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def test_calls_are_aligned_by_name_and_arguments_not_by_position() -> None:
    wanted = [expected_call("price", item="tea"), expected_call("price", item="cake")]
    run = make_run("a", 1, make_call("price", item="cake"), make_call("price", item="tea"))
    assert differences(wanted, run) == [
        [("", "price", ("price",), (False,)), ("/item", '"tea"', ('"tea"',), (False,))],
        [("", "price", ("price",), (False,)), ("/item", '"cake"', ('"cake"',), (False,))],
    ]


def test_an_argument_that_a_finding_names_is_marked() -> None:
    wanted = [expected_call("order", item="tea", lines=[{"count": 2}])]
    wrong = make_run(
        "a", 0, make_call("order", item="tea", lines=[{"count": 3}]), findings=(Finding("wrong-value", 0, "/lines"),)
    )
    right = make_run("a", 1, make_call("order", item="tea", lines=[{"count": 2}]))
    assert differences(wanted, wrong, right) == [
        [
            ("", "order", ("order", "order"), (False, False)),
            ("/item", '"tea"', ('"tea"', '"tea"'), (False, False)),
            ("/lines/0/count", "2", ("3", "2"), (True, False)),
        ]
    ]


def test_missing_and_further_calls_have_their_own_place() -> None:
    wanted = [expected_call("price", item="tea")]
    none = make_run("a", 0)
    other = make_run("a", 0, make_call("price", item="tea"), make_call("order", item="tea"))
    assert differences(wanted, none, other) == [
        [("", "price", (None, "price"), (True, False)), ("/item", '"tea"', (None, '"tea"'), (False, False))],
        [("", None, (None, "order"), (False, True)), ("/item", None, (None, '"tea"'), (False, False))],
    ]
    assert differences(wanted, None, other)[0][0] == ("", "price", (None, "price"), (False, False))


def test_alternatives_and_optional_arguments_are_shown() -> None:
    wanted = [{**expected_call("price", item={"a": 1}), "alternatives": {"item": ["tea"]}, "optional": {"unit": "g"}}]
    run = make_run("a", 1, make_call("price", item="tea"), findings=(Finding("wrong-value", 0, "/item"),))
    assert differences(wanted, run)[0][1:] == [
        ("/item", '{"a": 1} or "tea"', ('"tea"',), (False,)),
        ("/unit", '"g" (optional)', (None,), (False,)),
    ]


def test_unreadable_calls_say_why_and_old_records_expect_nothing() -> None:
    run = make_run("a", 0, make_call("price", "invalid JSON"), make_call("order", items=[]))
    assert differences([], run) == [
        [("", None, ("unreadable: invalid JSON",), (False,))],
        [("", None, ("order",), (False,)), ("/items", None, ("[]",), (False,))],
    ]
    assert call_differences((), [None]) == []


def test_each_argument_has_its_probability_in_both_calls() -> None:
    def of(index: int, name: str, low: float) -> CallProbability:
        pieces = (
            CallPiece("decision", "", 0.1),
            CallPiece("name", "", low),
            CallPiece("key", "a/b", 0.2),
            CallPiece("value", "a/b", low / 2),
        )
        return CallProbability(0, 0, index, name, 0.5, pieces)

    expected: dict[str, Any] = {"a/b": {"x": 1}}
    other: dict[str, Any] = {"a/b": {"x": 2}}
    wanted = [expected_call("price", **expected), expected_call("order", item="tea")]
    calls = (make_call("sell", item="x"), make_call("price", **other))
    measured = Probabilities((of(0, "sell", 0.25), of(1, "price", 0.5)), (of(0, "price", 0.75), of(1, "cancel", 0.9)))
    run = make_run("a", 0, *calls, probabilities=measured)
    plain = make_run("a", 0, *calls)
    found = call_differences([{"calls": wanted, "answer": [], "failing": 0}], [run, plain])
    assert [(row.pointer, row.chances) for row in found[0].rows] == [
        ("", ((0.5, 0.75), (None, None))),
        ("/a~1b/x", ((0.25, 0.375), (None, None))),
    ]
    assert [(row.pointer, row.chances) for row in found[1].rows] == [("", ((0.25, None), (None, None))), ("/item", ())]
    (only,) = call_differences([], [plain])[:1]
    assert all(row.chances == () for row in only.rows)
