"""Figures of arms and their paired differences: overall, for each group of cases, and over trials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from agentft.evaluation.noninferiority import no_worse_p, no_worse_ratio_p
from agentft.evaluation.records import Record
from agentft.evaluation.statistics import (
    Estimate,
    PairedDelta,
    clustered,
    estimate,
    holm,
    paired_delta,
    paired_ratio_delta,
    ratio,
)
from agentft.types import Case

__all__ = ["Breakdown", "Comparison", "Reliability", "break_down", "case_means", "compare", "no_worse", "reliability"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure by arm label; for two arms, also their paired difference over the cases that both have."""

    arms: Mapping[str, Estimate]
    delta: PairedDelta | None = None

    def document(self) -> dict[str, Any]:
        """The JSON object: each arm's label, and `delta`."""
        arms: dict[str, Any] = {label: asdict(figure) for label, figure in self.arms.items()}
        return arms if self.delta is None else {**arms, "delta": {**asdict(self.delta), "shown": self.delta.shown}}


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The headline figures of a category, language or suite, and its number of cases."""

    cases: int
    metrics: Mapping[str, Comparison]

    @property
    def shown(self) -> str:
        """The name of the figure that stands for the group: BFCL's check, else exact calls, or abstention; or none."""
        return next((name for name in ("bfcl", "exact_call", "abstention") if name in self.metrics), "")

    def document(self) -> dict[str, Any]:
        """The JSON object."""
        return {"cases": self.cases, "metrics": {name: part.document() for name, part in self.metrics.items()}}


@dataclass(frozen=True, slots=True)
class Reliability:
    """Over several trials: `pass_k[k]`, the probability that k trials of a case all succeed (pass^k), the mean over
    cases; `flips`, the share of cases that some trials solve and others do not.
    """

    pass_k: Mapping[int, Estimate]
    flips: Estimate


def reliability(rows: Sequence[Record]) -> Reliability | None:
    """How reliably an arm succeeds, without invalid trials; None if no case has two."""
    trials: dict[str, list[float]] = {}
    for row in rows:
        if (value := row.scores["success"].value) is not None:
            trials.setdefault(row.case, []).append(value)
    counts = [(int(sum(values)), len(values)) for values in trials.values() if len(values) > 1]
    if not counts:
        return None
    # The unbiased estimate from n trials with c successes is C(c, k) / C(n, k) (tau-bench, arXiv:2406.12045).
    pass_k = {
        k: estimate([math.comb(good, k) / math.comb(n, k) for good, n in counts if n >= k])
        for k in range(1, max(n for _, n in counts) + 1)
    }
    return Reliability(pass_k, estimate([float(0 < good < n) for good, n in counts]))


def compare(arms: Mapping[str, Sequence[Record]], name: str) -> Comparison:
    """One figure for every arm; for two arms, also their paired difference over the cases that both have."""
    if name in _RATIOS:
        return _compare(
            {label: _counts(rows, _RATIOS[name]) for label, rows in arms.items()}, ratio, paired_ratio_delta
        )
    means = {label: case_means(rows, name) for label, rows in arms.items()}
    compared = _compare(means, estimate, paired_delta)
    if compared.delta is None or compared.delta.value is None:
        return compared
    names = {row.case: _cluster(row) for rows in arms.values() for row in rows}
    first, second = means.values()
    clusters = [names[case] for case in first if case in second]
    return replace(compared, delta=replace(compared.delta, by_tool=clustered(*_paired(means), clusters)))


def _cluster(row: Record) -> str:
    """What cases share that makes them alike: the tools that they expect, or the suite and the category."""
    tools = sorted({call["name"] for turn in row.expected for call in turn["calls"]})
    return " ".join(tools or (row.suite, row.category))


def _compare(
    values: Mapping[str, Mapping[str, T]],
    figure: Callable[[Sequence[T]], Estimate],
    difference: Callable[[Sequence[T], Sequence[T]], PairedDelta],
) -> Comparison:
    figures = {label: figure(list(found.values())) for label, found in values.items()}
    return Comparison(figures, difference(*_paired(values)) if len(values) == 2 else None)


def _paired(values: Mapping[str, Mapping[str, T]]) -> tuple[list[T], list[T]]:
    """The values of two arms for the cases that both have."""
    left, right = values.values()
    shared = [key for key in left if key in right]
    return [left[key] for key in shared], [right[key] for key in shared]


def case_means(rows: Sequence[Record], name: str) -> dict[str, float]:
    """The mean over the trials of each case, by case: trials of one case are not independent cases.

    Sorted, so that resampling gives the same figures whatever the order of the records.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        value = row.scores[name].value
        if value is not None:
            found.setdefault(row.case, []).append(value)
    return {case: math.fsum(values) / len(values) for case, values in sorted(found.items())}


_RATIOS = {"call_recall": 0, "call_precision": 1}
"""User turns in which a call is expected and made, divided by those in which one is expected (0) or made (1)."""


def _counts(rows: Sequence[Record], counted: int) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        part, whole = found.get(row.case, (0, 0))
        both, of_kind = sum(map(all, row.decisions)), sum(decision[counted] for decision in row.decisions)
        found[row.case] = part + both, whole + of_kind
    return dict(sorted(found.items()))


def break_down(
    cases: Iterable[Case], arms: Mapping[str, Sequence[Record]], key: str, headlines: Sequence[str]
) -> dict[str, Breakdown]:
    """The `headlines` for each category, language or suite (`key`), with p-values adjusted for their number."""
    groups: dict[str, Breakdown] = {}
    for name, count in Counter(getattr(case, key) for case in cases).items():
        rows = {label: [row for row in found if getattr(row, key) == name] for label, found in arms.items()}
        metrics = {metric: compare(rows, metric) for metric in headlines}
        applying = {
            metric: compared for metric, compared in metrics.items() if any(arm.n for arm in compared.arms.values())
        }
        groups[name] = Breakdown(count, applying)
    return _adjusted(groups)


def _adjusted(groups: Mapping[str, Breakdown]) -> dict[str, Breakdown]:
    """The groups with p-values adjusted by Holm's method, over the shown figures and over each other metric."""
    families: dict[str, list[tuple[str, str]]] = {}
    for group, found in groups.items():
        for name, compared in found.metrics.items():
            if compared.delta is not None and compared.delta.p is not None:
                families.setdefault("" if name == found.shown else name, []).append((group, name))
    deltas: dict[tuple[str, str], PairedDelta] = {}
    for family in families.values():
        unadjusted = {place: groups[place[0]].metrics[place[1]].delta or PairedDelta() for place in family}
        for place, p in zip(family, holm([delta.p or 0.0 for delta in unadjusted.values()]), strict=True):
            deltas[place] = unadjusted[place].adjusted(p)
    return {
        group: replace(
            found,
            metrics={
                name: replace(compared, delta=deltas.get((group, name), compared.delta))
                for name, compared in found.metrics.items()
            },
        )
        for group, found in groups.items()
    }


def no_worse(metric: str, arms: Mapping[str, Sequence[Record]], margin: float) -> float:
    """The p-value of "the first of two arms is worse by `margin` or more"; 1 without a second arm."""
    if len(arms) != 2:
        return 1.0
    if metric in _RATIOS:
        counts = {label: _counts(rows, _RATIOS[metric]) for label, rows in arms.items()}
        return no_worse_ratio_p(*_paired(counts), margin)
    return no_worse_p(*_paired({label: case_means(rows, metric) for label, rows in arms.items()}), margin)
