"""Forgetting: plain questions in two arms, and the suite that asks them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentft.evaluation.comparison import Comparison
from agentft.evaluation.forgetting import Forgetting, find_forgetting
from agentft.evaluation.records import Record
from agentft.evaluation.suites import load_suite
from agentft.types import Score
from tests.reports.samples import make_run, summary_of
from tests.values import assert_immutable


def plain(case: str, answer: float, called: float = 0.0, **fields: Any) -> Record:
    expected = ({"calls": [], "answer": ["Paris"], "failing": 0},)
    run = make_run(case, answer, category="irrelevance", expected=expected, **fields)
    return run.__class__(
        **{
            **{name: getattr(run, name) for name in run.__slots__},
            "scores": {**run.scores, "abstention": Score(1 - called, "")},
        }
    )


def arms(tuned: float, base: float, cases: int = 10, called: float = 0.0) -> dict[str, list[Record]]:
    return {
        "tuned": [plain(f"c{n}", tuned, called) for n in range(cases)],
        "base": [plain(f"c{n}", base) for n in range(cases)],
    }


def finding(found: Forgetting | None) -> str:
    assert found is not None
    return found.finding


def test_fewer_right_answers_are_forgetting() -> None:
    found = find_forgetting(arms(0.0, 1.0))
    assert finding(found) == (
        "tuned has forgotten: right answers tuned 0.0% and base 100.0% (-100.0 points, 95 % interval -100.0 to -60.8, "
        "n = 10, p = 0.002), answers without a call tuned 100.0% and base 100.0% (+0.0 points, 95 % interval -27.8 to "
        "+27.8, n = 10, p = 1)."
    )


def test_calls_where_none_is_right_are_forgetting_too() -> None:
    assert finding(find_forgetting(arms(1.0, 1.0, called=1.0))).startswith(
        "tuned has forgotten: right answers tuned 100"
    )


@pytest.mark.parametrize("found", [arms(1.0, 1.0), arms(1.0, 0.0), arms(0.0, 1.0, cases=5)])
def test_what_is_not_shown_is_not_claimed(found: dict[str, list[Record]]) -> None:
    assert finding(find_forgetting(found)).startswith("It is not shown that tuned has forgotten: right answers ")


def test_only_plain_questions_of_two_arms_count() -> None:
    assert find_forgetting({"tuned": [plain("a", 1.0)]}) is None
    assert find_forgetting({"tuned": [make_run("a", 1.0)], "base": [make_run("a", 1.0)]}) is None
    several = arms(1.0, 1.0)
    several["tuned"].append(make_run("x", 0.0))
    found = find_forgetting(several)
    assert found is not None
    assert found.cases == 10


def test_the_summary_has_it_only_where_it_applies(tmp_path: Path) -> None:
    document = summary_of(arms(0.0, 1.0), tmp_path)["forgetting"]
    assert document["cases"] == 10
    assert document["answer"]["delta"]["shown"] is True
    assert "forgetting" not in summary_of({"tuned": [plain("a", 1.0)]}, tmp_path)


def test_the_suite_asks_short_plain_questions() -> None:
    suite = load_suite("forgetting")
    assert len(suite.cases) == 56
    assert {case.category for case in suite.cases} == {"irrelevance"}
    assert Counter(case.lang for case in suite.cases) == {"en": 47, "zh": 9}
    assert sum(bool(case.turns[0].answer) for case in suite.cases) >= 50
    assert len({case.turns[0].user for case in suite.cases}) == 56
    assert all(len(case.turns) == 1 and not case.turns[0].calls for case in suite.cases)


def test_forgetting_is_immutable() -> None:
    assert_immutable(Forgetting(0, "", Comparison({}), Comparison({})))
