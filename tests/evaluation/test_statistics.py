from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from agentft.evaluation.statistics import (
    RESAMPLES,
    SEED,
    Estimate,
    PairedDelta,
    clustered,
    estimate,
    holm,
    paired_delta,
    paired_ratio_delta,
    ratio,
    smallest_difference,
)
from tests.values import assert_immutable

BITS = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40)


def test_wilsons_interval_is_the_textbook_one() -> None:
    # Newcombe 1998 (two-sided single proportion): 81 of 263, Wilson 0.2553 to 0.3662.
    found = ratio([(80, 200), (1, 63)])
    assert found.low == pytest.approx(0.2553, abs=1e-4)
    assert found.high == pytest.approx(0.3662, abs=1e-4)
    assert estimate([1.0] * 81 + [0.0] * 182) == found


def test_no_case_gives_no_figure() -> None:
    assert estimate([]) == Estimate(None, None, None, 0)
    assert paired_delta([], []) == PairedDelta(None, None, None, 0, None)
    assert ratio([]).value is None


def test_graded_values_get_students_interval() -> None:
    found = estimate([0.2, 0.4, 0.6, 0.8])
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5 - 3.182446 * 0.2581989 / 2, abs=1e-4)
    assert estimate([0.5]).low == 0.0


def test_mcnemar_counts_only_pairs_that_differ() -> None:
    found = paired_delta([1.0] * 9 + [0.0] + [1.0] * 30, [0.0] * 9 + [1.0] + [1.0] * 30)
    assert found.value == pytest.approx(0.2)
    assert found.p == pytest.approx(0.021484375)  # 2 * P(X >= 9), X ~ Bin(10, 1/2)


def test_newcombes_paired_interval_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 2635-2650, table II (method 10): 36, 12, 2, 0 gives 0.0569 to 0.3404.
    tuned = [1.0] * 36 + [1.0] * 12 + [0.0] * 2
    base = [1.0] * 36 + [0.0] * 12 + [1.0] * 2
    found = paired_delta(tuned, base)
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0569, abs=2e-3)
    assert found.high == pytest.approx(0.3404, abs=2e-3)


@given(BITS)
def test_paired_intervals_contain_the_value_and_are_antisymmetric(pairs: list[tuple[float, float]]) -> None:
    tuned, base = [left for left, _ in pairs], [right for _, right in pairs]
    found, mirrored = paired_delta(tuned, base), paired_delta(base, tuned)
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert mirrored.low == pytest.approx(-found.high)
    assert mirrored.p == pytest.approx(found.p)


def test_the_paired_interval_covers_the_truth() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        base = generator.random(60) < 0.5
        tuned = base | (generator.random(60) < 0.4)
        found = paired_delta([float(x) for x in tuned], [float(x) for x in base])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.2 <= found.high
    assert covered >= 180


def test_graded_differences_are_reproducible_and_directed() -> None:
    generator = np.random.default_rng(2)
    base = generator.random(50)
    tuned = np.clip(base + 0.2, 0, 1)
    found = paired_delta(list(tuned), list(base))
    assert found == paired_delta(list(tuned), list(base))
    assert found.low is not None
    assert found.low > 0
    assert found.p is not None
    assert found.p < 0.01
    same = paired_delta(list(base), list(base))
    assert (same.value, same.p) == (0.0, 1.0)


def test_ratios_are_taken_over_sums_not_over_cases() -> None:
    found = paired_ratio_delta([(1, 1), (2, 3)], [(0, 1), (1, 3)])
    assert found.value == pytest.approx(0.75 - 0.25)
    assert paired_ratio_delta([(1, 1)], [(0, 0)]).value is None
    assert paired_ratio_delta([], []).n == 0


@pytest.mark.parametrize(
    ("cases", "discordant", "points"),
    [
        (50, 0.1, None),
        (50, 0.2, 18),
        (50, 0.3, 22),
        (100, 0.1, 9),
        (100, 0.2, 13),
        (100, 0.3, 16),
        (200, 0.1, 6.5),
        (200, 0.2, 9.5),
        (200, 0.3, 11.5),
        (400, 0.2, 7),
        (800, 0.1, 3.5),
    ],
)
def test_the_smallest_detectable_difference(cases: int, discordant: float, points: float | None) -> None:
    found = smallest_difference(cases, discordant)
    if points is None:
        assert found is None
    else:
        assert found is not None
        assert found * 100 == pytest.approx(points, abs=0.51)


def wilson(part: int, whole: int) -> tuple[float, float]:
    """Wilson's score interval, as a formula; 1.959963984540054 is the 97.5 % quantile of the normal distribution."""
    z2 = 1.959963984540054**2
    share = part / whole
    centre = (share + z2 / (2 * whole)) / (1 + z2 / whole)
    reach = math.sqrt(z2 * (share * (1 - share) / whole + z2 / (4 * whole**2))) / (1 + z2 / whole)
    return centre - reach, centre + reach


def near(*figures: float | int | None) -> object:
    return pytest.approx(figures, abs=1e-12)


def test_every_field_of_an_estimate() -> None:
    found = ratio([(80, 200), (1, 63)])
    assert (found.value, found.low, found.high, found.n) == near(81 / 263, *wilson(81, 263), 263)
    assert ratio([(0, 0)]) == Estimate()
    # scipy.stats.t.ppf(0.975, 3) = 3.182446305284263; sd of the four values = 0.2581988897471611
    graded = estimate([0.2, 0.4, 0.6, 0.8])
    margin = 3.182446305284263 * 0.2581988897471611 / 2
    assert (graded.value, graded.low, graded.high, graded.n) == near(0.5, 0.5 - margin, 0.5 + margin, 4)
    assert estimate([0.5]) == Estimate(0.5, 0.0, 1.0, 1)
    two = estimate([0.4, 0.5])
    margin = 12.706204736174698 * 0.05
    assert (two.low, two.high) == near(0.0, 0.45 + margin if margin < 0.55 else 1.0)
    assert estimate([0.9, 0.95, 0.99]).high == 1.0
    close = estimate([0.5, 0.51])
    assert (close.low, close.high) == near(0.505 - 12.706204736174698 * 0.005, 0.505 + 12.706204736174698 * 0.005)
    one = ratio([(1, 1)])
    assert (one.value, one.low, one.high, one.n) == near(1.0, *wilson(1, 1), 1)


def test_figures_are_immutable() -> None:
    assert_immutable(Estimate())
    assert_immutable(PairedDelta())


@pytest.mark.parametrize(("tuned", "base"), [([1.0], [0.0, 1.0]), ([1.0, 0.0], [1.0]), ([0.5, 0.2, 0.1], [0.5, 0.1])])
def test_arms_of_different_length_are_no_pairs(tuned: list[float], base: list[float]) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer|broadcast"):
        paired_delta(tuned, base)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        paired_ratio_delta([(1, 1)] * len(tuned), [(1, 1)] * len(base))


def test_the_permutation_test_forgives_rounding_only() -> None:
    # Equal, up to rounding, to the observed mean: 2 of the 128 sign patterns. Less by 3e-11: 2 more.
    found = paired_delta([0.7] * 6 + [1e-10], [0.2] * 6 + [0.0])
    assert found.p == pytest.approx(2 / 128, abs=0.006)


def test_one_graded_value_makes_the_whole_sample_graded() -> None:
    values = [1.0] * 10 + [0.5]
    assert estimate(values).high == 1.0
    assert estimate(values) != estimate([1.0] * 11)
    graded = paired_delta(values, [0.0] * 11)
    assert graded.p == 2 / (RESAMPLES + 1) or graded.p == pytest.approx(0.001, abs=0.001)
    assert paired_delta([0.0] * 11, values).value == pytest.approx(-10.5 / 11)


def test_resampling_is_seeded() -> None:
    assert (RESAMPLES, SEED) == (2000, 20240607)
    tuned, base = [0.9, 0.4, 0.7, 0.3, 0.8, 0.6], [0.5, 0.5, 0.2, 0.4, 0.1, 0.6]
    differences = np.array(tuned) - np.array(base)
    generator = np.random.default_rng(20240607)
    means = differences[generator.integers(0, 6, (2000, 6))].mean(axis=1)
    signs = generator.choice([-1.0, 1.0], (2000, 6))
    extreme = np.abs((signs * differences).mean(axis=1)) >= differences.mean() - 1e-12
    low, high = np.quantile(means, [0.025, 0.975])
    found = paired_delta(tuned, base)
    assert (found.value, found.low, found.high, found.n, found.p) == near(
        differences.mean(), low, high, 6, (extreme.sum() + 1) / 2001
    )


def test_the_permutation_test_is_near_the_exact_one() -> None:
    # Of the 64 sign patterns of six equal differences, two are as extreme as the observed one.
    found = paired_delta([0.7] * 6, [0.2] * 6)
    assert found.p == pytest.approx(2 / 64, abs=0.01)
    assert (found.low, found.high) == near(0.5, 0.5)


def test_ratio_differences_are_resampled_over_cases() -> None:
    tuned, base = [(1, 1), (2, 3), (0, 2), (4, 4)], [(0, 1), (1, 3), (1, 2), (2, 4)]
    picks = np.random.default_rng(20240607).integers(0, 4, (2000, 4))
    first, second = np.array(tuned)[picks].sum(axis=1), np.array(base)[picks].sum(axis=1)
    low, high = np.quantile(first[:, 0] / first[:, 1] - second[:, 0] / second[:, 1], [0.025, 0.975])
    found = paired_ratio_delta(tuned, base)
    assert (found.value, found.low, found.high, found.n) == near(0.3, low, high, 4)
    assert found.p is None
    assert paired_ratio_delta([(0, 0)], [(1, 1)]) == PairedDelta()
    sparse = paired_ratio_delta([(1, 1), (0, 0), (0, 0)], [(0, 1), (0, 0), (0, 0)])
    assert (sparse.value, sparse.low, sparse.high, sparse.n) == (1.0, 1.0, 1.0, 3)
    one_sided = paired_ratio_delta([(1, 1), (0, 0)], [(0, 0), (1, 2)])
    assert (one_sided.value, one_sided.low, one_sided.high) == (0.5, 0.5, 0.5)
    mirrored = paired_ratio_delta([(0, 0), (1, 2)], [(1, 1), (0, 0)])
    assert (mirrored.value, mirrored.low, mirrored.high) == (-0.5, -0.5, -0.5)
    single = paired_ratio_delta([(0, 1)], [(1, 1)])
    assert (single.value, single.low, single.high, single.n) == (-1.0, -1.0, -1.0, 1)


def by_hand(both: int, only_tuned: int, only_base: int, neither: int) -> PairedDelta:
    tuned = [1.0] * (both + only_tuned) + [0.0] * (only_base + neither)
    base = [1.0] * both + [0.0] * only_tuned + [1.0] * only_base + [0.0] * neither
    return paired_delta(tuned, base)


@pytest.mark.parametrize(
    ("table", "p"),
    [
        ((36, 12, 2, 0), 0.012939453125),  # 2 * P(X >= 12), X ~ Bin(14, 1/2)
        ((20, 12, 2, 16), 0.012939453125),
        ((20, 2, 12, 16), 0.012939453125),
        ((0, 29, 21, 0), 0.3222363203575469),
        ((3, 2, 5, 4), 0.453125),
        ((4, 1, 0, 5), 1.0),
        ((5, 0, 0, 5), 1.0),
        ((0, 6, 0, 0), 0.03125),
        ((1, 0, 0, 0), 1.0),
        ((2, 1, 1, 2), 1.0),
        ((2, 1, 1, 1), 1.0),
        ((1, 0, 0, 1), 1.0),
        ((0, 1, 1, 0), 1.0),
    ],
)
def test_the_paired_interval_is_newcombes_method_10(table: tuple[int, int, int, int], p: float) -> None:
    both, only_tuned, only_base, neither = table
    n = sum(table)
    first, second = (both + only_tuned) / n, (both + only_base) / n
    (low1, high1), (low2, high2) = wilson(both + only_tuned, n), wilson(both + only_base, n)
    margins = (both + only_tuned) * (only_base + neither) * (both + only_base) * (only_tuned + neither)
    product = both * neither - only_tuned * only_base
    corrected = max(product - n / 2, 0) if product > 0 else product
    phi = corrected / math.sqrt(margins) if margins else 0.0
    one, other = first - low1, high2 - second
    low = first - second - math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0))
    one, other = high1 - first, second - low2
    high = first - second + math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0))
    found = by_hand(*table)
    assert (found.value, found.low, found.high, found.n, found.p) == near(
        first - second, max(low, -1.0), min(high, 1.0), n, p
    )


def test_the_smallest_difference_has_80_percent_power_and_is_the_smallest() -> None:
    # By direct summation over the discordant pairs, without scipy.
    def mass(wins: int, count: int, share: float) -> float:
        return math.comb(count, wins) * share**wins * (1 - share) ** (count - wins)

    def power(cases: int, discordant: float, difference: float) -> float:
        total, share = 0.0, 0.5 + difference / (2 * discordant)
        for count in range(cases + 1):
            limit, tail = count + 1, 0.0  # significant from `limit` pairs on that favour one arm
            while limit and tail + mass(limit - 1, count, 0.5) <= 0.025:
                limit -= 1
                tail += mass(limit, count, 0.5)
            total += mass(count, cases, discordant) * sum(mass(k, count, share) for k in range(limit, count + 1))
        return total

    for cases, discordant in ((60, 0.2), (60, 0.3), (90, 0.2)):
        found = smallest_difference(cases, discordant)
        assert found is not None
        assert power(cases, discordant, found) >= 0.8
        assert power(cases, discordant, found - 0.005) < 0.8
    assert smallest_difference(60) == smallest_difference(60, 0.2)
    # Six discordant pairs are significant only if all favour one arm: .965 ** 6 >= .8, and .9625 ** 6 < .8.
    assert smallest_difference(6, 1.0) == 0.93
    assert smallest_difference(5, 1.0) is None
    # Ten discordant pairs on average, and no room for one that favours the other arm.
    assert smallest_difference(2000, 0.005) == 0.005
    assert smallest_difference(0) is None


# Of statsmodels 0.15.0: multipletests(p, method="holm")[1], mcnemar(table, exact=True).pvalue and
# proportion_confint(part, whole, method="wilson"). 20,000 random sets of p-values, 5,000 tables and 5,000 proportions
# were compared once: the largest difference was 1.1e-15.
@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.001, 0.2, 0.02, 0.02, 0.9, 0.0003], [0.005, 0.4, 0.08, 0.08, 0.9, 0.0018]),
        ([0.5, 0.6, 0.9], [1.0, 1.0, 1.0]),
    ],
)
def test_holms_adjustment_is_that_of_statsmodels(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted, rel=1e-12)


@pytest.mark.parametrize(
    ("table", "p"),
    [
        ((120, 75, 22, 65), 6.073393488182725e-08),
        ((10, 3, 11, 40), 0.057373046875),
        ((500, 41, 60, 399), 0.07275700687752425),
    ],
)
def test_mcnemars_exact_test_is_that_of_statsmodels(table: tuple[int, int, int, int], p: float) -> None:
    assert by_hand(*table).p == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [
        (0, 7, 0.0, 0.3543304350666875),
        (195, 282, 0.635309798118637, 0.7425220267173379),
        (5000, 5000, 0.9992322980549431, 1.0),
    ],
)
def test_wilsons_interval_is_that_of_statsmodels(part: int, whole: int, low: float, high: float) -> None:
    found = ratio([(part, whole)])
    assert (found.low, found.high) == near(low, high)


@pytest.mark.parametrize("seed", range(4))
def test_the_bootstraps_are_within_the_sampling_error_of_scipys(seed: int) -> None:
    generator = np.random.default_rng(seed)
    base = generator.choice([0.0, 0.25, 0.5, 1.0], 80)
    tuned = np.clip(base + generator.choice([-0.25, 0.0, 0.25], 80, p=[0.1, 0.4, 0.5]), 0.0, 1.0)
    names = [str(name) for name in generator.integers(0, 12, 80)]
    differences = tuned - base
    settings: dict[str, Any] = {"n_resamples": 20000, "method": "percentile", "rng": seed, "vectorized": True}
    reference = scipy.stats.bootstrap((differences,), np.mean, **settings)
    found = paired_delta(list(tuned), list(base))
    assert_near(found.low, found.high, reference)
    sums = [[differences[index] for index in range(80) if names[index] == name] for name in dict.fromkeys(names)]
    parts = tuple(np.array(column) for column in zip(*((sum(one), len(one)) for one in sums), strict=True))
    reference = scipy.stats.bootstrap(
        parts, lambda part, whole, axis: part.sum(axis) / whole.sum(axis), paired=True, **settings
    )
    by_tool = clustered(list(tuned), list(base), names)
    assert by_tool is not None
    assert_near(by_tool.low, by_tool.high, reference)


def assert_near(low: float | None, high: float | None, reference: Any) -> None:
    """2,000 resamples fix a 2.5 % quantile to about 0.06 standard errors (one standard deviation)."""
    expected = reference.confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.3 * reference.standard_error)
