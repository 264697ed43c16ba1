"""Whether a model knows when its calls are right: reliability, calibration error, and what may run without asking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentft.evaluation.diagnosis import match_records
from agentft.evaluation.plan import Plan
from agentft.evaluation.probabilities import PieceKind
from agentft.evaluation.records import Record
from agentft.evaluation.statistics import Estimate, estimate
from agentft.types import ToolCall

__all__ = ["BINS", "THRESHOLDS", "Bin", "Calibration", "Coverage", "calibrate"]

BINS = 10
"""Bins of the reliability table, of equal width."""

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99)
_POINTS = 200


@dataclass(frozen=True, slots=True)
class Bin:
    """The calls with a probability from `low` to `high`: their mean probability, and the share that is right."""

    low: float
    high: float
    calls: int
    mean: float
    right: Estimate


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of all calls, those with a probability of at least `above`, and how many of them are wrong."""

    above: float
    calls: int
    wrong: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calls that an arm made, over all trials.

    `ece`: expected calibration error, the mean distance of a bin's probability from its share of right calls, weighted
    by its calls. `thresholds`: at round probabilities. `curve`: at the probabilities of calls. `expected`: the
    probability of each kind of part in the expected calls, the mean over parts.
    """

    calls: int
    wrong: int
    ece: float
    bins: tuple[Bin, ...]
    thresholds: tuple[Coverage, ...]
    curve: tuple[Coverage, ...]
    expected: Mapping[PieceKind, Estimate]


def calibrate(plan: Plan, rows: Sequence[Record]) -> Calibration | None:
    """The calibration of an arm; None without probabilities. A call is right if the scorer finds it exact."""
    judged: list[tuple[float, bool]] = []
    parts: dict[PieceKind, list[float]] = {}
    for row, matchings, _ in match_records(plan, rows):
        if row.probabilities is None:
            continue
        exact = [pair.call for matching in matchings for pair in matching.pairs if pair.exact]
        wrong = [call for matching in matchings for call in (*matching.extra, *matching.unreadable)]
        wrong += [pair.call for matching in matchings for pair in matching.pairs if pair.call and not pair.exact]
        for one in row.probabilities.made:
            call = [part for part in row.steps[one.step].parts if isinstance(part, ToolCall)][one.index]
            if any(call is other for other in (*exact, *wrong)):  # not one that met a fault and was sent again
                judged.append((one.probability, any(call is other for other in exact)))
        for one in row.probabilities.expected:
            for piece in one.pieces:
                parts.setdefault(piece.kind, []).append(piece.probability)
    if not judged and not parts:
        return None
    bins = _bins(judged)
    ranked = sorted({probability for probability, _ in judged}, reverse=True)
    shown = ranked[:: max(1, -(-len(ranked) // _POINTS))]
    return Calibration(
        calls=len(judged),
        wrong=sum(not right for _, right in judged),
        ece=sum(one.calls * abs(one.mean - (one.right.value or 0.0)) for one in bins) / max(len(judged), 1),
        bins=bins,
        thresholds=tuple(_cover(judged, threshold) for threshold in THRESHOLDS),
        curve=tuple(_cover(judged, threshold) for threshold in dict.fromkeys([*shown, *ranked[-1:]])),
        expected={kind: estimate(found) for kind, found in parts.items()},
    )


def _bins(judged: Sequence[tuple[float, bool]]) -> tuple[Bin, ...]:
    members: dict[int, list[tuple[float, bool]]] = {}
    for probability, right in judged:
        members.setdefault(min(int(probability * BINS), BINS - 1), []).append((probability, right))
    return tuple(
        Bin(
            number / BINS,
            (number + 1) / BINS,
            len(found),
            sum(probability for probability, _ in found) / len(found),
            estimate([float(right) for _, right in found]),
        )
        for number, found in sorted(members.items())
    )


def _cover(judged: Sequence[tuple[float, bool]], above: float) -> Coverage:
    covered = [right for probability, right in judged if probability >= above]
    return Coverage(above, len(covered), sum(not right for right in covered))
