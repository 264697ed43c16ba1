"""Paired differences of two arms: one rule for what is shown, groups, clusters, and reliability over trials."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agentft.evaluation.comparison import Breakdown, Reliability, break_down, compare, reliability
from agentft.evaluation.records import Record
from agentft.evaluation.statistics import (
    FEWEST_CLUSTERS,
    RESAMPLES,
    SEED,
    Clustered,
    PairedDelta,
    clustered,
    estimate,
    holm,
    paired_delta,
    paired_ratio_delta,
)
from tests.reports.samples import make_run, summary_of
from tests.values import assert_immutable


def tables(largest: int) -> Iterator[tuple[int, int, int, int]]:
    size = range(largest + 1)
    for both, first, second, neither in product(size, size, size, size):
        if 0 < both + first + second + neither <= largest:
            yield both, first, second, neither


def delta_of(table: tuple[int, int, int, int]) -> PairedDelta:
    pairs = [pair for pair, count in zip([(1, 1), (1, 0), (0, 1), (0, 0)], table, strict=True) for _ in range(count)]
    return paired_delta([float(first) for first, _ in pairs], [float(second) for _, second in pairs])


def test_interval_and_p_value_never_contradict_each_other() -> None:
    shown = 0
    for table in [*tables(9), (0, 9, 1, 15), (0, 15, 5, 5), (40, 15, 4, 60), (0, 6, 0, 94), (3, 0, 6, 1)]:
        found = delta_of(table)
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert found.p is not None
        assert found.table == table
        assert found.low <= found.value <= found.high
        assert found.shown == (found.p < 0.05) == (not found.low <= 0 <= found.high)
        shown += found.shown
    assert shown > 20


def test_graded_differences_obey_the_same_rule() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        first, second = rng.random(8), rng.random(8) * 0.7
        found = paired_delta([float(one) for one in first], [float(one) for one in second])
        assert found.table is None
        assert found.low is not None
        assert found.high is not None
        assert found.shown == (found.p is not None and found.p < 0.05) == (not found.low <= 0 <= found.high)


@pytest.mark.parametrize(("p", "shown"), [(0.0499, True), (0.05, False)])
def test_a_difference_is_shown_below_5_percent(p: float, shown: bool) -> None:
    assert PairedDelta(0.2, 0.1, 0.3, 9, p).shown is shown
    assert PairedDelta(0.2, 0.1, 0.3, 9, 0.01, p_holm=p).shown is shown
    adjusted = PairedDelta(0.2, 0.1, 0.3, 9, 0.01).adjusted(p)
    assert (adjusted.low, adjusted.high, adjusted.p_holm) == (0.1 if shown else 0.0, 0.3, p)
    loss = PairedDelta(-0.2, -0.3, -0.1, 9, 0.01).adjusted(p)
    assert (loss.low, loss.high) == (-0.3, -0.1 if shown else 0.0)
    assert PairedDelta().adjusted(p) == PairedDelta()


def test_a_ratio_without_a_test_is_shown_by_its_interval() -> None:
    found = paired_ratio_delta([(1, 1)] * 30, [(0, 1)] * 30)
    assert found.p is None
    assert found.shown
    assert not paired_ratio_delta([(1, 1)] * 30, [(1, 1)] * 30).shown
    assert not PairedDelta().shown


def test_holms_method_is_the_textbook_one() -> None:
    # The example of statsmodels.stats.multitest.multipletests(method="holm") on these values.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_p_values_of_groups_are_adjusted_over_the_figures_that_are_shown() -> None:
    arms: dict[str, list[Record]] = {"tuned": [], "base": []}
    for group, losses in (("single", 6), ("parallel", 7), ("dependent", 2)):
        for n in range(8):
            fields: dict[str, Any] = {"category": group}
            arms["tuned"].append(make_run(f"{group}{n}", 1.0, **fields))
            arms["base"].append(make_run(f"{group}{n}", 0.0 if n < losses else 1.0, **fields))
    cases: Any = [SimpleNamespace(category=row.category) for row in arms["tuned"]]
    found = break_down(cases, arms, "category", ("exact_call", "abstention"))
    assert {group: one.shown for group, one in found.items()} == dict.fromkeys(found, "exact_call")
    deltas = {group: one.metrics["exact_call"].delta for group, one in found.items()}
    p = {group: delta.p for group, delta in deltas.items() if delta}
    assert p == pytest.approx({"single": 2 / 2**6, "parallel": 2 / 2**7, "dependent": 0.5})
    assert {group: delta.p_holm for group, delta in deltas.items() if delta} == pytest.approx(
        {"single": 4 / 2**6, "parallel": 6 / 2**7, "dependent": 0.5}
    )
    assert {group: delta.shown for group, delta in deltas.items() if delta} == {
        "single": False,
        "parallel": True,
        "dependent": False,
    }
    assert found["single"].document()["metrics"]["exact_call"]["delta"]["shown"] is False
    assert Breakdown(0, {}).shown == ""


def test_cases_of_one_tool_are_sampled_together() -> None:
    names = [f"tool{n % FEWEST_CLUSTERS}" for n in range(10 * FEWEST_CLUSTERS)]
    first = [float(name in ("tool0", "tool1")) for name in names]
    found = clustered(first, [0.0] * len(names), names)
    assert found is not None
    by_case = paired_delta(first, [0.0] * len(names))
    assert by_case.low is not None
    assert found.clusters == FEWEST_CLUSTERS
    assert found.low == 0 < by_case.low
    picks = np.random.default_rng(SEED).integers(0, 5, (RESAMPLES, 5))
    expected = np.quantile((picks < 2).mean(axis=1), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert clustered(first[:4], [0.0] * 4, names[:4]) is None


def test_clusters_of_different_sizes_have_their_weight() -> None:
    names = ["a"] * 6 + ["b", "c", "d", "e"]
    found = clustered([1.0] * 6 + [0.0] * 4, [0.0] * 10, names)
    assert found is not None
    assert found.high == pytest.approx(18 / 20)  # three times `a`, twice another


def test_figures_know_their_clusters_by_the_expected_tools() -> None:
    rows = [
        make_run(f"c{n}", 1.0, expected=({"calls": [{"name": f"t{n % 6}", "arguments": {}}], "answer": []},))
        for n in range(12)
    ]
    rows += [make_run(f"d{n}", 1.0, expected=({"calls": [], "answer": []},)) for n in range(3)]
    base = [make_run(row.case, 0.0, expected=row.expected) for row in rows]
    delta = compare({"tuned": rows, "base": base}, "exact_call").delta
    assert delta is not None
    assert delta.by_tool == Clustered(1.0, 1.0, 7)
    assert compare({"tuned": rows, "base": []}, "exact_call").delta == PairedDelta()


def test_the_finding_says_if_the_difference_hangs_on_a_few_tools(tmp_path: Path) -> None:
    arms: dict[str, list[Record]] = {"tuned": [], "base": []}
    for n in range(30):
        expected = ({"calls": [{"name": f"t{n if n < 6 else 0}", "arguments": {}}], "answer": []},)
        arms["tuned"].append(make_run(f"c{n}", float(n == 0 or n > 6), expected=expected))
        arms["base"].append(make_run(f"c{n}", 0.0, expected=expected))
    summary = summary_of(arms, tmp_path)
    assert "tuned is better than base in exact calls" in summary["finding"]
    assert "This may not hold for other tools: resampling the 6 sets of expected tools gives +0.0" in summary["finding"]


def test_the_order_of_the_records_changes_no_figure(tmp_path: Path) -> None:
    random = Random(1)
    arms: dict[str, list[Record]] = {"tuned": [], "base": []}
    for label, number, trial in product(arms, range(25), range(3)):
        value, decisions = random.choice([0.0, 0.1, 0.7, 1.0]), ((True, random.random() < 0.5),)
        expected = ({"calls": [{"name": f"t{number % 8}", "arguments": {}}], "answer": []},)
        lang, fields = random.choice(["en", "zh"]), {"expected": expected, "decisions": decisions}
        arms[label].append(make_run(f"c{number}", value, arm=label, trial=trial, lang=lang, **fields))
    before = summary_of(arms, tmp_path)
    assert before["metrics"]["exact_call"]["delta"]["p"] < 1
    assert before["metrics"]["call_recall"]["delta"]["low"] is not None
    shuffled = {label: random.sample(rows, len(rows)) for label, rows in arms.items()}
    assert summary_of(shuffled, tmp_path) == before


def test_pass_k_is_the_unbiased_estimate_and_flips_are_counted() -> None:
    values: dict[str, list[float | None]] = {
        "a": [1, 1, 1],
        "b": [1, 1, 0],
        "c": [0, 0, 0],
        "d": [1, 0, None],
        "e": [1],
    }
    rows = [make_run(case, value, trial=n) for case, trials in values.items() for n, value in enumerate(trials)]
    found = reliability(rows)
    assert found == Reliability(
        {1: estimate([1, 2 / 3, 0, 0.5]), 2: estimate([1, 1 / 3, 0, 0]), 3: estimate([1, 0, 0])},
        estimate([0.0, 1.0, 0.0, 1.0]),
    )
    assert reliability([make_run("a", 1.0)]) is None
    assert reliability([]) is None


@pytest.mark.parametrize("value", [Clustered(0, 0, 1), Reliability({}, estimate([])), PairedDelta()], ids=str)
def test_parts_of_a_comparison_are_immutable(value: object) -> None:
    assert_immutable(value)


def test_pass_k_and_flips_are_those_of_a_direct_count() -> None:
    """pass^k: of all choices of k valid trials of a case, the share that only succeed; over 300 random tables."""
    generator = Random(5)
    for _ in range(300):
        rate, most = generator.random(), generator.randint(2, 7)
        table = {
            f"c{case}": [None if generator.random() < 0.1 else float(generator.random() < rate) for _ in range(most)]
            for case in range(generator.randint(1, 12))
        }
        valid = {case: [one for one in trials if one is not None] for case, trials in table.items()}
        valid = {case: trials for case, trials in valid.items() if len(trials) > 1}
        rows = [make_run(case, one, trial=number) for case, row in table.items() for number, one in enumerate(row)]
        found = reliability(rows)
        if not valid:
            assert found is None
            continue
        assert found is not None
        assert [*found.pass_k] == [*range(1, max(map(len, valid.values())) + 1)]
        for k, figure in found.pass_k.items():
            chosen = [[*combinations(trials, k)] for trials in valid.values() if len(trials) >= k]
            shares = [Fraction(sum(map(all, groups)), len(groups)) for groups in chosen]
            assert figure.n == len(shares)
            assert figure.value == pytest.approx(float(sum(shares) / len(shares)), abs=1e-12)
        flipped = sum(len(set(trials)) == 2 for trials in valid.values())
        assert found.flips.value == pytest.approx(flipped / len(valid))
        assert found.flips.n == len(valid)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.75])
def test_pass_k_and_flips_have_the_expectation_of_their_closed_form(rate: float) -> None:
    """With independent trials, pass^k is p^k on average, and 1 - p^n - (1 - p)^n of the cases flip; here exactly."""
    n = 6
    means: dict[Any, float] = dict.fromkeys([*range(1, n + 1), "flips"], 0.0)
    for good in range(n + 1):
        weight = math.comb(n, good) * rate**good * (1 - rate) ** (n - good)
        found = reliability([make_run("c", float(number < good), trial=number) for number in range(n)])
        assert found is not None
        for key, figure in (*found.pass_k.items(), ("flips", found.flips)):
            means[key] += weight * (figure.value or 0.0)
    expected: dict[Any, float] = {k: rate**k for k in range(1, n + 1)}
    expected["flips"] = 1 - rate**n - (1 - rate) ** n
    assert means == pytest.approx(expected, abs=1e-12)
