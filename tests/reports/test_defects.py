"""Planted defects, one of each error class: each gives exactly its class, and the report names it first."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.evaluation.plan import Arm
from agentft.evaluation.records import make_record
from agentft.metrics import ERROR_CLASSES
from agentft.metrics.errors import ANSWER_ERRORS
from agentft.models import Model
from agentft.reports.pairing import largest_failures, pair_cases
from tests.metrics.tables import make_case, make_context, make_trajectory, read_table
from tests.reports.samples import make_run

ALONE = {row["kinds"][0]: row for row in reversed(read_table("errors")) if len(row["kinds"]) == 1}
FIRST = {row["kinds"][0]: row for row in reversed(read_table("errors")) if row["kinds"]}


def no_model() -> Model:
    raise AssertionError("no model is loaded")


def test_every_class_has_a_defect() -> None:
    assert set(FIRST) == set(ERROR_CLASSES)
    assert len(ALONE) >= 16


@pytest.mark.parametrize("kind", FIRST)
def test_a_planted_defect_gives_its_class_and_is_named_first(kind: str) -> None:
    row: dict[str, Any] = ALONE.get(kind, FIRST[kind])
    case = make_case(row)
    arm = Arm("model", "m", "i", no_model)
    record = make_record(case, make_trajectory(row), make_context(row), arm, fingerprint="f", rendering={})
    assert record.error == kind
    assert [finding.kind for finding in record.findings] == row["kinds"]
    groups = largest_failures(pair_cases({"model": [make_run("right", 1.0), record]}))
    expected = {call["name"] for call in record.expected[record.findings[0].turn]["calls"]}
    assert [(group.error, group.pointer, group.cases) for group in groups] == [
        (kind, record.findings[0].pointer, ("c",))
    ]
    assert set(groups[0].tools.split(", ")) - {""} == (set() if kind in ANSWER_ERRORS else expected)
