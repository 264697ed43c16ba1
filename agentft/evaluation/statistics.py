"""Intervals and tests for figures over cases. All at 95 %; everything random is seeded, so a report is reproducible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Delta", "Estimate", "estimate", "paired_delta", "paired_ratio_delta", "ratio", "smallest_difference"]

RESAMPLES = 2000
SEED = 20240607


class Estimate(TypedDict):
    """A figure with its interval over `n` cases; all None when it applies to no case."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class Delta(Estimate):
    """A paired difference with the p-value of no difference (None: not tested)."""

    p: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of per-case values: Wilson's interval for zeros and ones, Student's for graded values."""
    if not values:
        return Estimate(value=None, low=None, high=None, n=0)
    if _binary(values):
        return ratio([(round(sum(values)), len(values))])
    mean = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.inf
    reach = float(stats.t.ppf(0.975, max(len(values) - 1, 1))) * spread / math.sqrt(len(values))
    return Estimate(value=mean, low=max(0.0, mean - reach), high=min(1.0, mean + reach), n=len(values))


def ratio(counts: Sequence[tuple[int, int]]) -> Estimate:
    """The proportion of sums, (part, whole) for each case, with Wilson's score interval."""
    part, whole = (sum(pair[index] for pair in counts) for index in (0, 1))
    if whole == 0:
        return Estimate(value=None, low=None, high=None, n=0)
    low, high = _wilson(part, whole)
    return Estimate(value=part / whole, low=low, high=high, n=whole)


def paired_delta(tuned: Sequence[float], base: Sequence[float]) -> Delta:
    """The mean difference of values of the same cases.

    Zeros and ones: Newcombe's interval for paired proportions (Statistics in Medicine 17, 1998, method 10) and the
    exact McNemar test. Graded values: percentile bootstrap over cases and a sign-flip permutation test.
    """
    if not tuned:
        return Delta(value=None, low=None, high=None, n=0, p=None)
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
    return Delta(value=mean, low=float(low), high=float(high), n=len(differences), p=p)


def paired_ratio_delta(tuned: Sequence[tuple[int, int]], base: Sequence[tuple[int, int]]) -> Delta:
    """The difference of two ratios of sums, (part, whole) for each case, with a bootstrap interval over cases."""
    counts = np.asarray([[*left, *right] for left, right in zip(tuned, base, strict=True)], dtype=float).reshape(-1, 4)
    total = counts.sum(axis=0)
    if total[1] == 0 or total[3] == 0:
        return Delta(value=None, low=None, high=None, n=0, p=None)
    picks = np.random.default_rng(SEED).integers(0, len(counts), (RESAMPLES, len(counts)))
    sums = counts[picks].sum(axis=1)
    usable = sums[(sums[:, 1] > 0) & (sums[:, 3] > 0)]
    low, high = np.quantile(_ratios(usable), [0.025, 0.975])
    value = float(_ratios(total[None, :])[0])
    return Delta(value=value, low=float(low), high=float(high), n=len(counts), p=None)


def smallest_difference(cases: int, discordant: float = 0.2) -> float | None:
    """The smallest paired difference that exact McNemar shows at 5 % with a power of 80 %; None: no difference can.

    `discordant`: the share of cases that are expected to come out differently in the two arms.
    """
    counts = np.arange(cases + 1)
    weights = stats.binom.pmf(counts, cases, discordant)
    # How many discordant pairs must go one way: the smallest k with P(X >= k) <= .025 (more than there are: none can);
    # isf gives the largest k - 1 that still fails.
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


def _binary_delta(tuned: Sequence[float], base: Sequence[float]) -> Delta:
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
    return Delta(value=value, low=max(-1.0, value - down), high=min(1.0, value + up), n=n, p=p)


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
