"""Calibration: bins, the calibration error, and how many calls may run without asking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agentft.evaluation.calibration import BINS, THRESHOLDS, Bin, Calibration, Coverage, calibrate
from agentft.evaluation.plan import Plan
from agentft.evaluation.probabilities import CallPiece, CallProbability, Probabilities
from agentft.evaluation.records import Record, dump_line, read_record
from agentft.evaluation.statistics import ratio
from agentft.types import Exchange, ToolCall
from tests.evaluation.world import small_plan
from tests.reports.samples import make_call, make_run
from tests.values import assert_immutable

RIGHT, WRONG = make_call("price", item="tea"), make_call("price", item="cake")


def probability(value: float, index: int = 0, *pieces: CallPiece) -> CallProbability:
    return CallProbability(0, 0, index, "price", value, pieces)


def plan_of(folder: Path, cases: int) -> Plan:
    call = {"name": "price", "arguments": {"item": "tea"}}
    rows = [{"id": f"c{n}", "category": "single", "turns": [{"user": f"{n}", "calls": [call]}]} for n in range(cases)]
    return small_plan(folder, rows)


def runs(*judged: tuple[float, ToolCall]) -> list[Record]:
    return [
        make_run(f"c{n}", 1.0, call, probabilities=Probabilities((probability(value),), ()))
        for n, (value, call) in enumerate(judged)
    ]


def test_bins_error_and_thresholds_are_counted_by_hand(tmp_path: Path) -> None:
    rows = runs((1.0, RIGHT), (0.95, RIGHT), (0.92, WRONG), (0.9, RIGHT), (0.55, WRONG), (0.0, WRONG))
    found = calibrate(plan_of(tmp_path, 6), rows)
    assert found is not None
    assert (found.calls, found.wrong) == (6, 3)
    assert found.bins == (
        Bin(0.0, 0.1, 1, 0.0, ratio([(0, 1)])),
        Bin(0.5, 0.6, 1, 0.55, ratio([(0, 1)])),
        Bin(0.9, 1.0, 4, (1.0 + 0.95 + 0.92 + 0.9) / 4, ratio([(3, 4)])),
    )
    assert found.ece == pytest.approx((0 + 0.55 + 4 * abs(0.9425 - 0.75)) / 6)
    assert found.thresholds == (
        Coverage(0.5, 5, 2),
        Coverage(0.8, 4, 1),
        Coverage(0.9, 4, 1),
        Coverage(0.95, 2, 0),
        Coverage(0.99, 1, 0),
    )
    assert found.curve == (
        Coverage(1.0, 1, 0),
        Coverage(0.95, 2, 0),
        Coverage(0.92, 3, 1),
        Coverage(0.9, 4, 1),
        Coverage(0.55, 5, 2),
        Coverage(0.0, 6, 3),
    )
    assert (BINS, THRESHOLDS) == (10, (0.5, 0.8, 0.9, 0.95, 0.99))


def test_a_long_curve_has_few_points_and_ends_with_all_calls(tmp_path: Path) -> None:
    found = calibrate(plan_of(tmp_path, 450), runs(*((n / 450, RIGHT) for n in range(450))))
    assert found is not None
    assert len(found.curve) == 151
    assert found.curve[-1] == Coverage(0.0, 450, 0)


def test_extra_and_unreadable_calls_are_wrong_and_repeated_ones_do_not_count(tmp_path: Path) -> None:
    calls = (make_call("price", "broken"), RIGHT, WRONG)
    made = tuple(probability(0.7, index) for index in range(3))
    row = make_run("c0", 1.0, *calls, probabilities=Probabilities(made, ()))
    found = calibrate(plan_of(tmp_path, 1), [row])
    assert found is not None
    assert (found.calls, found.wrong) == (3, 2)
    again = (RIGHT, make_call("price", item="tea"))
    row = make_run("c0", 1.0, *again, probabilities=Probabilities(made[:2], ()))
    exchanges = [Exchange(call, "POST", "", {}, 503 if call is RIGHT else 200, "", call is RIGHT) for call in again]
    exchanges[0] = replace(exchanges[0], fault="503")
    row = replace(row, steps=(replace(row.steps[0], exchanges=tuple(exchanges)),))
    found = calibrate(plan_of(tmp_path, 1), [row])
    assert found is not None
    assert (found.calls, found.wrong) == (1, 0)


def test_parts_of_expected_calls_are_averaged(tmp_path: Path) -> None:
    expected = (probability(0.1, 0, CallPiece("name", "", 0.4), CallPiece("value", "item", 0.5)),)
    rows = [make_run(f"c{n}", 0.0, probabilities=Probabilities((), expected)) for n in range(2)]
    found = calibrate(plan_of(tmp_path, 2), rows)
    assert found is not None
    assert (found.calls, found.ece, found.bins, found.curve) == (0, 0, (), ())
    assert {kind: (one.value, one.n) for kind, one in found.expected.items()} == {"name": (0.4, 2), "value": (0.5, 2)}


def test_without_probabilities_there_is_no_calibration(tmp_path: Path) -> None:
    assert calibrate(plan_of(tmp_path, 1), [make_run("c0", 1.0, RIGHT)]) is None


def test_a_record_keeps_its_probabilities() -> None:
    import json

    (row,) = runs((0.25, RIGHT))
    row = replace(row, probabilities=Probabilities((probability(0.25, 0, CallPiece("value", "item", 0.5)),), ()))
    assert read_record(json.loads(dump_line(row.document())), "here").probabilities == row.probabilities
    assert "probabilities" not in replace(row, probabilities=None).document()


@pytest.mark.parametrize(
    "value",
    [Bin(0, 0, 0, 0, ratio([])), Coverage(0, 0, 0), Calibration(0, 0, 0, (), (), (), {})],
    ids=lambda value: type(value).__name__,
)
def test_parts_of_a_calibration_are_immutable(value: object) -> None:
    assert_immutable(value)
