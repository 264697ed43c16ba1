"""Means, differences, 95 % intervals and p-values over cases. Resampling is seeded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = [
    "Estimate",
    "PairedDelta",
    "estimate",
    "paired_delta",
    "paired_ratio_delta",
    "ratio",
    "resampled_ratios",
    "smallest_difference",
]

RESAMPLES = 2000
SEED = 20240607


@dataclass(frozen=True, slots=True)
class Estimate:
    """A proportion or a mean over `n` cases with its 95 % interval; None if the metric applies to no case."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


@dataclass(frozen=True, slots=True)
class PairedDelta:
    """A paired difference over `n` cases with its 95 % interval. `p`: two-sided p-value; None: not tested."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    p: float | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """The mean over cases, with Wilson's interval for zeros and ones and Student's t interval for graded values."""
    if not values:
        return Estimate()
    if _binary(values):
        return ratio([(round(sum(values)), len(values))])
    mean = float(np.mean(values))
    margin = math.inf
    if len(values) > 1:
        spread = float(np.std(values, ddof=1))
        margin = float(stats.t.ppf(0.975, len(values) - 1)) * spread / math.sqrt(len(values))
    return Estimate(mean, max(0.0, mean - margin), min(1.0, mean + margin), len(values))


def ratio(counts: Sequence[tuple[int, int]]) -> Estimate:
    """The proportion of sums, (part, whole) for each case, with Wilson's score interval."""
    part, whole = (sum(pair[index] for pair in counts) for index in (0, 1))
    if whole == 0:
        return Estimate()
    low, high = _wilson(part, whole)
    return Estimate(part / whole, low, high, whole)


def paired_delta(tuned: Sequence[float], base: Sequence[float]) -> PairedDelta:
    """The mean difference of values of the same cases.

    Zeros and ones: Newcombe's interval for paired proportions (Statistics in Medicine 17, 1998, method 10) and the
    exact McNemar test. Graded values: percentile bootstrap over cases and a sign-flip permutation test.
    """
    if not tuned:
        return PairedDelta()
    if _binary(tuned) and _binary(base):
        return _binary_delta(tuned, base)
    differences = np.asarray(tuned, dtype=float) - np.asarray(base, dtype=float)
    generator = np.random.default_rng(SEED)
    picks = generator.integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.quantile(differences[picks].mean(axis=1), [0.025, 0.975])
    flips = generator.choice([-1.0, 1.0], (RESAMPLES, len(differences)))
    mean = float(differences.mean())
    beyond = np.abs((flips * differences).mean(axis=1)) >= abs(mean) - 1e-12
    p = (int(beyond.sum()) + 1) / (RESAMPLES + 1)
    return PairedDelta(mean, float(low), float(high), len(differences), p)


def paired_ratio_delta(tuned: Sequence[tuple[int, int]], base: Sequence[tuple[int, int]]) -> PairedDelta:
    """The difference of two ratios of sums, (part, whole) for each case, with a bootstrap interval over cases."""
    found = resampled_ratios(tuned, base)
    if found is None:
        return PairedDelta()
    value, resampled = found
    low, high = np.quantile(resampled, [0.025, 0.975])
    return PairedDelta(value, float(low), float(high), len(tuned))


def resampled_ratios(
    first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]
) -> tuple[float, NDArray[np.float64]] | None:
    """The difference of two ratios of sums, and the same over samples of the cases; None if a ratio has no cases."""
    counts = np.asarray([[*left, *right] for left, right in zip(first, second, strict=True)], dtype=float).reshape(
        -1, 4
    )
    total = counts.sum(axis=0)
    if total[1] == 0 or total[3] == 0:
        return None
    picks = np.random.default_rng(SEED).integers(0, len(counts), (RESAMPLES, len(counts)))
    sums = counts[picks].sum(axis=1)
    usable = sums[(sums[:, 1] > 0) & (sums[:, 3] > 0)]
    return float(_ratios(total[None, :]).item()), _ratios(usable)


def smallest_difference(cases: int, discordant: float = 0.2) -> float | None:
    """The smallest paired difference that the exact McNemar test detects at 5 % with 80 % power; None if there is none.

    `discordant`: the expected share of cases that succeed in exactly one of the two arms.
    """
    counts = np.arange(cases + 1)
    weights = stats.binom.pmf(counts, cases, discordant)
    # The smallest k with P(X >= k) <= .025, X the discordant pairs in favour of one arm; isf gives k - 1.
    limits = np.asarray(stats.binom.isf(0.025, counts, 0.5) + 1, dtype=np.int64)
    for step in range(1, int(discordant * 200) + 1):
        difference = step / 200
        share = 0.5 + difference / (2 * discordant)
        power = float(np.sum(weights * stats.binom.sf(limits - 1, counts, share)))
        if power >= 0.8:
            return difference
    return None


def _binary(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)


def _wilson(part: int, whole: int) -> tuple[float, float]:
    interval = stats.binomtest(part, whole).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _binary_delta(tuned: Sequence[float], base: Sequence[float]) -> PairedDelta:
    pairs = list(zip(map(bool, tuned), map(bool, base), strict=True))
    both, only_tuned, only_base, neither = (
        pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    n = len(pairs)
    first, second = (both + only_tuned) / n, (both + only_base) / n
    low1, high1 = _wilson(both + only_tuned, n)
    low2, high2 = _wilson(both + only_base, n)
    phi = _correlation(both, only_tuned, only_base, neither)
    value = first - second
    down = _combined(first - low1, high2 - second, phi)
    up = _combined(high1 - first, second - low2, phi)
    discordant = only_tuned + only_base
    p = float(stats.binomtest(only_tuned, discordant).pvalue) if discordant else 1.0
    return PairedDelta(value, max(-1.0, value - down), min(1.0, value + up), n, p)


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins == 0:
        return 0.0
    product = float(both * neither - first * second)
    if product > 0:
        product = max(product - (both + first + second + neither) / 2, 0.0)
    return product / math.sqrt(margins)


def _combined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))


def _ratios(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3])
