from __future__ import annotations

from typing import Any

import pytest

from agentft.metrics import ERROR_CLASSES, METRICS, SCORER_VERSION, Context, Finding, classify, score_case
from agentft.metrics.calls import decisions
from agentft.metrics.values import contains_value
from agentft.types import Json, Score, Trajectory
from tests.metrics.tables import HERE, make_case, make_context, make_trajectory, read_table
from tests.values import assert_immutable

ROWS = [
    (row.get("metric", path.stem), row)
    for path in sorted(HERE.glob("*.toml"))
    if path.stem != "errors"
    for row in read_table(path.stem)
]


def assert_text(text: str, expected: str) -> None:
    """The texts are equal; with `...` at the end, only the beginning counts (the rest depends on the call format)."""
    start = expected.removesuffix("...")
    assert text.startswith(start) if start != expected else text == expected


@pytest.mark.parametrize(("metric", "row"), ROWS, ids=[f"{name}: {row['name']}" for name, row in ROWS])
def test_metric(metric: str, row: dict[str, Any]) -> None:
    score = METRICS[metric](make_case(row), make_trajectory(row), make_context(row))
    expected = None if row["value"] == "n/a" else pytest.approx(row["value"])
    assert score.value == expected, score.reason
    assert_text(score.reason, row["reason"])


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_cases_that_pass_fail_and_do_not_apply(name: str) -> None:
    values = {row["value"] for metric, row in ROWS if metric == name}
    assert 1.0 in values
    assert values & {0.0, 0.5}
    assert name == "call_decision" or "n/a" in values


@pytest.mark.parametrize("row", read_table("errors"), ids=lambda row: row["name"])
def test_error_classes(row: dict[str, Any]) -> None:
    found = classify(make_case(row), make_trajectory(row), make_context(row))
    assert [finding.kind for finding in found] == row["kinds"]
    assert [finding.pointer for finding in found] == row.get("pointers", [""] * len(found))
    for finding, detail in zip(found, row.get("details", [""] * len(found)), strict=True):
        assert_text(finding.detail, detail)
    assert [finding.turn for finding in found] == row.get("turns_found", [0] * len(found))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I'm sorry.", "refusal"),
        ("I am sorry.", "refusal"),
        ("I'm unable to.", "refusal"),
        ("I'm not able to.", "refusal"),
        ("I can't.", "refusal"),
        ("I cannot.", "refusal"),
        ("I can not.", "refusal"),
        ("I don't have it.", "refusal"),
        ("抱歉。", "refusal"),
        ("对不起。", "refusal"),
        ("我无法查询。", "refusal"),
        ("我不能查询。", "refusal"),
        ("I can.", "no-call"),
        ("I am able to.", "no-call"),
        ("You cannot.", "no-call"),
        ("", "no-call"),
    ],
)
def test_a_refusal_says_so(text: str, kind: str) -> None:
    row = {"turns": [{"calls": [{"name": "ping"}]}], "said": [{"text": text}]}
    assert [found.kind for found in classify(make_case(row), make_trajectory(row), make_context(row))] == [kind]


def test_every_error_class_has_a_case() -> None:
    assert {kind for row in read_table("errors") for kind in row["kinds"]} == set(ERROR_CLASSES)


@pytest.mark.parametrize("row", [row for _, row in ROWS], ids=[f"{n}: {r['name']}" for n, r in ROWS])
def test_a_case_has_an_error_class_if_and_only_if_it_is_not_solved(row: dict[str, Any]) -> None:
    case, trajectory, context = make_case(row), make_trajectory(row), make_context(row)
    if not any(turn.calls or turn.answer for turn in case.turns):
        return
    solved = score_case(case, trajectory, context)["success"].value == 1.0
    assert solved == (not classify(case, trajectory, context))


@pytest.mark.parametrize("value", [Finding("type", 0), Context()], ids=lambda value: type(value).__name__)
def test_what_metrics_read_and_find_is_immutable(value: object) -> None:
    assert_immutable(value)


def test_no_metric_applies_to_an_invalid_trajectory() -> None:
    row = {"turns": [{"calls": [{"name": "ping"}]}]}
    trajectory = Trajectory("c", 0, "", (), "invalid", problem="the server is gone")
    scores = score_case(make_case(row), trajectory, make_context(row))
    assert {score.value for score in scores.values()} == {None}
    assert list(scores) == ["success", *METRICS]
    assert {score.reason for score in scores.values()} == {"invalid: the server is gone"}


def test_success_is_decided_by_four_metrics_in_order() -> None:
    row: dict[str, Any] = {
        "turns": [{"calls": [{"name": "ping"}], "answer": ["7"]}],
        "said": [{"calls": [{"name": "ping"}]}, {"text": "It is 7."}],
        "gold_state": "a",
        "state": "a",
    }
    solved = score_case(make_case(row), make_trajectory(row), make_context(row))
    assert solved["success"] == Score(1.0, "solved")
    silent = row | {"said": [{"calls": [{"name": "ping"}]}, {"text": "Done."}], "state": "b"}
    failed = score_case(make_case(silent), make_trajectory(silent), make_context(silent))
    assert failed["success"] == Score(0.0, "end_state: the state is not as expected")
    talking = {"category": "irrelevance", "said": [{"calls": [{"name": "ping"}]}]}
    wrong = score_case(make_case(talking), make_trajectory(talking), make_context(talking))
    assert wrong["success"] == Score(0.0, "abstention: turn 0: a call was made or attempted")


def test_partial_scores_do_not_decide_success() -> None:
    row = {
        "turns": [{"calls": [{"name": "ping"}], "reference": "Done."}],
        "said": [{"calls": [{"name": "ping"}]}, {"text": "Other words."}],
    }
    scores = score_case(make_case(row), make_trajectory(row), make_context(row))
    assert (scores["rouge_l"].value, scores["success"].value) == (0.0, 1.0)


def test_the_scorer_version_is_part_of_every_record() -> None:
    assert SCORER_VERSION == 11  # raised by hand, together with a change of any score


def test_error_classes_are_in_order_of_precedence() -> None:
    assert list(ERROR_CLASSES) == [
        "no-call",
        "refusal",
        "broken-wrapper",
        "invalid-json",
        "unknown-tool",
        "unwanted-call",
        "wrong-tool",
        "missing-required",
        "unknown-argument",
        "type",
        "constraint",
        "wrong-value",
        "wrong-count",
        "ignored-error",
        "invented-result",
        "wrong-answer",
        "wrong-state",
        "reported-fault",
    ]
    assert all(meaning and meaning == meaning.strip() for meaning in ERROR_CLASSES.values())


def test_every_turn_has_a_decision() -> None:
    row = {
        "turns": [{}, {"calls": [{"name": "ping"}]}, {"calls": [{"name": "ping"}]}],
        "said": [{"turn": 0, "calls": [{"name": "ping"}]}, {"turn": 1, "text": "No."}],
    }
    assert decisions(make_case(row), make_trajectory(row)) == [(False, True), (True, False), (True, False)]


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("It costs 1,234 euros.", "1234", True),
        ("It costs 1234.0 euros.", "1,234", True),
        ("It costs 1,2345 euros.", "12345", False),
        ("It costs 234 euros.", "1234", False),
        ("It costs 12345 euros.", "1234", False),
        ("Chapter 3.14.", "3.14", True),
        ("It is 21.50 °C", "21.5", True),
        ("It is 21.5。", "21", False),
        ("气温21.5℃", "21.5", True),
        ("气温２１度", "21", True),
        ("气温零下3度", "-3", True),
        ("minus 3 degrees", "-3", True),
        ("−3 °C", "-3", True),
        ("between 5-7", "7", True),
        ("between 5-7", "-7", False),
        ("-7 degrees", "7", False),
        ("- 7 degrees", "7", True),
        ("It is (-7).", "-7", True),
        ("最高20，150公里", "20", True),
        ("最高20，150公里", "20150", False),
        ("version 1.2.5", "1.2", True),
        ("No.5", "5", True),
        ("-1e999999999 and 1e99999999999999999999999", "7", False),
        ("123456789012345678901234567891", "123456789012345678901234567890", False),
        ("page p17", "17", False),
        ("page p17", "p17", True),
        ("page p171", "p17", False),
        ("6.02e23 things", "602000000000000000000000", True),
        ("Rain in PARIS", "paris", True),
        ("the train", "rain", False),
        ("北京今天下雨", "下雨", True),
        ("New\n York", "new york", True),
        ("99999999999999999999999999 is big", "99999999999999999999999998", False),
        ("", "1", False),
        ("negative 3 degrees", "-3", True),
        ("零下 3度", "-3", True),
        ("负3度", "-3", True),
        ("负 3度", "-3", True),
        ("3–7 degrees", "-7", False),
        ("–7 degrees", "-7", True),
        ("(5)-7", "7", True),
        ("+7", "7", True),
        ("It is 7.", "+7", True),
        ("minus 1,234.50 euros", "-1234.5", True),
        ("a minus 3 b", "3", False),
        ("nonminus 3", "3", True),
        ("1e3 things", "1000", True),
        ("1E+3 things", "1000", True),
        ("2e-3 things", "0.002", True),
        ("1,234,567", "1234567", True),
        ("12,345 and 6", "12345", True),
        ("1234,567", "1234567", False),
        ("1,23", "1", True),
        ("_7", "7", False),
        ("x7", "7", False),
        ("7x", "7", True),
        ("3.7", "7", False),
        ("7.", "7", True),
        ("snow_white", "snow", False),
        ("snow white", "snow", True),
        ("snow9", "snow", False),
        ("9snow", "snow", False),
        ("a_b", "_b", False),
        ("see (x) here", "(x)", True),
        ("seex(x)y", "(x)", True),
        ("x.y", "x.y", True),
        ("xzy", "x.y", False),
        ("STRASSE", "straße", True),
        ("a\u3000b", "a b", True),
        ("3 − 5", "-5", False),
        ("１，２３４ items", "1", True),
        ("NaN", "nan", True),
        ("c++11", "c++", True),
        ("#topics", "#topic", False),
    ],
)
def test_values_that_an_answer_contains(text: str, value: str, expected: bool) -> None:
    assert contains_value(text, value) is expected


def test_json_values_that_toml_does_not_have() -> None:
    row: dict[str, Any] = {"turns": [{"calls": [{"name": "alert", "arguments": {"city": None}}]}]}
    values: list[tuple[Json, float]] = [(None, 1.0), ("", 0.0), (False, 0.0), (0, 0.0)]
    for value, expected in values:
        row["said"] = [{"calls": [{"name": "alert", "arguments": {"city": value}}]}]
        score = METRICS["exact_call"](make_case(row), make_trajectory(row), make_context(row))
        assert score.value == expected
