"""Means, differences, 95 % intervals and p-values over cases. Resampling is seeded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import scipy
from numpy.typing import NDArray

__all__ = [
    "ALPHA",
    "FEWEST_CLUSTERS",
    "Clustered",
    "Estimate",
    "PairedDelta",
    "clustered",
    "estimate",
    "holm",
    "paired_delta",
    "paired_ratio_delta",
    "ratio",
    "resampled_ratios",
    "smallest_difference",
]

ALPHA = 0.05
"""A difference is shown if its p-value is below."""

FEWEST_CLUSTERS = 5
"""With fewer clusters, samples of them say too little."""

RESAMPLES = 2000
SEED = 20240607
_NOT_ZERO = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A proportion or a mean over `n` cases with its 95 % interval; None if the metric applies to no case."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


@dataclass(frozen=True, slots=True)
class Clustered:
    """A 95 % interval of a difference, from samples of whole `clusters` of cases."""

    low: float
    high: float
    clusters: int


@dataclass(frozen=True, slots=True)
class PairedDelta:
    """A paired difference over `n` cases with its 95 % interval.

    `p`: two-sided p-value; None: not tested. `p_holm`: the same, adjusted for the number of groups. `table`: for zeros
    and ones, the cases that both arms solve, only the first, only the second, and neither. `by_tool`: the interval from
    samples of sets of expected tools.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    p: float | None = None
    p_holm: float | None = None
    table: tuple[int, int, int, int] | None = None
    by_tool: Clustered | None = None

    @property
    def shown(self) -> bool:
        """Whether a difference is shown: the one rule for sentences and colours. The interval then excludes 0."""
        p = self.p if self.p_holm is None else self.p_holm
        if p is not None:
            return p < ALPHA
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def adjusted(self, p_holm: float) -> PairedDelta:
        """The difference as one of several; its interval reaches 0 if the adjusted p-value shows no difference."""
        if self.value is None or self.low is None or self.high is None:
            return self
        low, high = _agreeing(self.value, self.low, self.high, p_holm)
        return replace(self, low=low, high=high, p_holm=p_holm)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean over cases, with Wilson's interval for zeros and ones and Student's t interval for graded values."""
    if not values:
        return Estimate()
    if _binary(values):
        return ratio([(round(sum(values)), len(values))])
    mean, margin = math.fsum(values) / len(values), math.inf
    if len(values) > 1:
        spread = float(np.std(sorted(values), ddof=1))
        margin = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * spread / math.sqrt(len(values))
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
    exact McNemar test. Graded values: percentile bootstrap over cases and a sign-flip permutation test. The interval
    is extended or cut at 0 where it would contradict the test: it excludes 0 if and only if p < `ALPHA`.
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
    return PairedDelta(mean, *_agreeing(mean, float(low), float(high), p), len(differences), p)


def paired_ratio_delta(tuned: Sequence[tuple[int, int]], base: Sequence[tuple[int, int]]) -> PairedDelta:
    """The difference of two ratios of sums, (part, whole) for each case, with a bootstrap interval over cases."""
    found = resampled_ratios(tuned, base)
    if found is None:
        return PairedDelta()
    value, resampled = found
    low, high = np.quantile(resampled, [0.025, 0.975])
    return PairedDelta(value, float(low), float(high), len(tuned))


def clustered(tuned: Sequence[float], base: Sequence[float], clusters: Sequence[str]) -> Clustered | None:
    """The mean difference's interval from samples of whole clusters: cases of one tool succeed or fail together.

    Percentile bootstrap; None with fewer than `FEWEST_CLUSTERS`.
    """
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    if len(names) < FEWEST_CLUSTERS:
        return None
    sums = np.zeros((len(names), 2))
    for first, second, name in zip(tuned, base, clusters, strict=True):
        sums[names[name]] += (first - second, 1)
    picks = np.random.default_rng(SEED).integers(0, len(names), (RESAMPLES, len(names)))
    resampled = sums[picks].sum(axis=1)
    low, high = np.quantile(resampled[:, 0] / resampled[:, 1], [0.025, 0.975])
    return Clustered(float(low), float(high), len(names))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted by Holm's step-down method (Scandinavian Journal of Statistics 6, 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


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
    weights = scipy.stats.binom.pmf(counts, cases, discordant)
    # The smallest k with P(X >= k) <= .025, X the discordant pairs in favour of one arm; isf gives k - 1.
    limits = np.asarray(scipy.stats.binom.isf(0.025, counts, 0.5) + 1, dtype=np.int64)
    for step in range(1, int(discordant * 200) + 1):
        difference = step / 200
        share = 0.5 + difference / (2 * discordant)
        power = float(np.sum(weights * scipy.stats.binom.sf(limits - 1, counts, share)))
        if power >= 0.8:
            return difference
    return None


def _binary(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)


@cache
def _wilson(part: int, whole: int) -> tuple[float, float]:
    interval = scipy.stats.binomtest(part, whole).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@cache
def _mcnemar(first: int, discordant: int) -> float:
    return float(scipy.stats.binomtest(first, discordant).pvalue)


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
    p = _mcnemar(only_tuned, discordant) if discordant else 1.0
    low, high = _agreeing(value, max(-1.0, value - down), min(1.0, value + up), p)
    return PairedDelta(value, low, high, n, p, table=(both, only_tuned, only_base, neither))


def _agreeing(value: float, low: float, high: float, p: float) -> tuple[float, float]:
    """The interval, such that 0 is inside, or its bound, unless p shows a difference."""
    if p >= ALPHA:
        return min(low, 0.0), max(high, 0.0)
    return (max(low, _NOT_ZERO), high) if value > 0 else (low, min(high, -_NOT_ZERO))


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
