"""The official aggregation of BFCL v4, and where its checker and the strict metrics disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from agentft.evaluation.bfcl_data import BFCL_CATEGORIES, MULTI_TURN
from agentft.evaluation.records import Record
from agentft.types import Score

__all__ = ["bfcl_report"]

_NOT_HERE = ("simple_java", "simple_javascript", "web_search", "memory")
_NON_LIVE = ("multiple", "parallel", "parallel_multiple")
_LIVE = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
_IRRELEVANCE = ("irrelevance", "live_irrelevance")


def bfcl_report(arms: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """What the summary says about BFCL: by arm, the official figures (0 to 1; None: not all of it was run) and the
    cases by which of the two scorers they pass; and the categories that were not run.
    """
    run = {row.suite for rows in arms.values() for row in rows}
    missing = [name for name in (*BFCL_CATEGORIES, *MULTI_TURN) if name not in run and name != "live_relevance"]
    return {
        "arms": {label: {"official": _official(rows), "scorers": _scorers(rows)} for label, rows in arms.items()},
        "not_run": [*missing, *_NOT_HERE],
    }


def _official(rows: Sequence[Record]) -> dict[str, float | None]:
    """`overall` counts what was not run as 0, like the official one: Java and JavaScript are two thirds of `simple`."""
    right, counts = Counter[str](), Counter[str]()
    for row in rows:
        value = row.scores["bfcl"].value
        if value is not None:
            right[row.suite] += int(value)
            counts[row.suite] += 1
    rates = {name: right[name] / counts[name] for name in counts}

    def mean(names: Sequence[str]) -> float:
        return sum(rates.get(name, 0.0) for name in names) / len(names)

    live = sum(right[name] for name in _LIVE) / max(1, sum(counts[name] for name in _LIVE))
    simple = rates.get("simple_python", 0.0) / 3
    non_live = (simple + sum(rates.get(name, 0.0) for name in _NON_LIVE)) / 4
    python = ("simple_python", *_NON_LIVE)
    return {
        "non_live_python": mean(python) if rates.keys() >= set(python) else None,
        "live": live if rates.keys() >= set(_LIVE) else None,
        "irrelevance": mean(_IRRELEVANCE) if rates.keys() >= set(_IRRELEVANCE) else None,
        "multi_turn": mean(MULTI_TURN) if rates.keys() >= set(MULTI_TURN) else None,
        "overall": 0.1 * (non_live + live + mean(_IRRELEVANCE)) + 0.3 * mean(MULTI_TURN),
    }


def _scorers(rows: Sequence[Record]) -> dict[str, int]:
    """The cases that pass `both` scorers, `neither`, `only_bfcl` or `only_strict` (exact_call or abstention)."""
    found = {"both": 0, "neither": 0, "only_bfcl": 0, "only_strict": 0}
    names = {(1, 1): "both", (0, 0): "neither", (1, 0): "only_bfcl", (0, 1): "only_strict"}
    for row in rows:
        official, strict = row.scores["bfcl"].value, _strict(row.scores)
        if official is not None and strict is not None:
            found[names[int(official), int(strict)]] += 1
    return found


def _strict(scores: Mapping[str, Score]) -> float | None:
    exact = scores["exact_call"].value
    return scores["abstention"].value if exact is None else exact
