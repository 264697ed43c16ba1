"""The figures of an evaluation: per metric, category and language, side by side, with a verdict."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeAlias, TypeVar

import agentft
from agentft.evaluation.plan import Arm, Plan
from agentft.evaluation.records import Record
from agentft.evaluation.statistics import Delta, Estimate, estimate, paired_delta, paired_ratio_delta, ratio
from agentft.metrics import METRICS, SCORER_VERSION

__all__ = ["HEADLINES", "SCORES", "Gate", "Summary", "compare", "summarise"]

Summary: TypeAlias = dict[str, Any]
T = TypeVar("T")

SCORES = ("success", *METRICS, "call_precision", "call_recall")
"""All figures that a summary holds and a gate may name."""

HEADLINES = ("success", "exact_call", "abstention", "answer")
"""The figures that are given per category and language too."""

MAX_INVALID = 0.05
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "bitsandbytes",
    "jsonschema",
    "rouge-score",
    "scipy",
    "numpy",
)


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure of the tuned arm that must reach `minimum` (0 to 1)."""

    metric: str
    minimum: float


def summarise(
    plan: Plan,
    arms: Mapping[str, Sequence[Record]],
    gates: Sequence[Gate],
    *,
    ran: Mapping[str, tuple[Arm, str]],
    sampling: Mapping[str, Any],
    seconds: float,
    interrupted: bool,
    kept: int,
) -> Summary:
    """The document of summary.json. The first arm is the one that is judged.

    Args:
        ran: the arms that are no stored runs, with their fingerprints. `kept`: cases that were finished before.
    """
    asked = len(plan.cases) * plan.trials
    metrics = {name: compare(arms, name) for name in SCORES}
    invalid = {label: sum(row["outcome"] == "invalid" for row in rows) for label, rows in arms.items()}
    first = next(iter(arms))
    judged = [_judge(gate, metrics[gate.metric][first]["value"]) for gate in gates]
    return {
        "verdict": _verdict(judged, max(invalid.values()), asked, interrupted),
        "finding": _finding(metrics["exact_call"], list(arms)) + _caution(metrics["abstention"], list(arms)),
        "interrupted": interrupted,
        "cases": len(plan.cases),
        "trials": plan.trials,
        "done": {label: len(rows) for label, rows in arms.items()},
        "invalid": sum(invalid.values()),
        "invalid_by_arm": invalid,
        "problems": dict(Counter(row["problem"] for rows in arms.values() for row in rows if row["problem"])),
        "gates": judged,
        "metrics": metrics,
        "categories": _breakdown(plan, arms, "category"),
        "languages": _breakdown(plan, arms, "lang"),
        "suites": _breakdown(plan, arms, "suite"),
        "errors": _errors(arms),
        "arms": {label: _describe(rows, *ran.get(label, (None, None))) for label, rows in arms.items()},
        "hashes": dict(plan.hashes),
        "faults": _faults(plan, arms),
        "seed": sampling["seed"],
        "world_seed": plan.world_seed,
        "sampling": dict(sampling),
        "max_steps": plan.max_steps,
        "versions": _versions(),
        "scorer_version": SCORER_VERSION,
        "seconds": round(seconds, 1),
        "kept": kept,
    }


def compare(arms: Mapping[str, Sequence[Record]], name: str) -> dict[str, Any]:
    """One figure for every arm and, of two arms, their paired difference over the cases that both have."""
    if name in _RATIOS:
        return _compared(
            {label: _counts(rows, _RATIOS[name]) for label, rows in arms.items()}, ratio, paired_ratio_delta
        )
    return _compared({label: _by_case(rows, name) for label, rows in arms.items()}, estimate, paired_delta)


def _compared(
    values: Mapping[str, Mapping[str, T]],
    figure: Callable[[Sequence[T]], Estimate],
    difference: Callable[[Sequence[T], Sequence[T]], Delta],
) -> dict[str, Any]:
    row: dict[str, Any] = {label: figure(list(found.values())) for label, found in values.items()}
    if len(values) == 2:
        left, right = values.values()
        shared = [key for key in left if key in right]
        row["delta"] = difference([left[key] for key in shared], [right[key] for key in shared])
    return row


def _by_case(rows: Sequence[Record], name: str) -> dict[str, float]:
    """Per case the mean over its trials: trials of one case are no independent cases."""
    found: dict[str, list[float]] = {}
    for row in rows:
        value = row["scores"][name]["value"]
        if value is not None:
            found.setdefault(row["case"], []).append(value)
    return {case: sum(values) / len(values) for case, values in found.items()}


_RATIOS = {"call_recall": 0, "call_precision": 1}
"""Figures over user turns: of those in which it should call (0) or did (1), the share in which it should and did."""


def _counts(rows: Sequence[Record], counted: int) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        part, whole = found.get(row["case"], (0, 0))
        made = row["decisions"]
        found[row["case"]] = part + sum(map(all, made)), whole + sum(decision[counted] for decision in made)
    return found


def _breakdown(plan: Plan, arms: Mapping[str, Sequence[Record]], key: str) -> dict[str, Any]:
    parts = Counter(getattr(case, key) for case in plan.cases)
    table: dict[str, Any] = {}
    for part, count in parts.items():
        rows = {label: [row for row in found if row[key] == part] for label, found in arms.items()}
        metrics = {name: compare(rows, name) for name in HEADLINES}
        applying = {name: row for name, row in metrics.items() if any(row[label]["n"] for label in arms)}
        table[part] = {"cases": count, "metrics": applying}
    return table


def _errors(arms: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, int]]:
    """How often each class is the primary one, the most frequent of the first arm first."""
    counts = {label: Counter(row["error"] for row in rows if row["error"]) for label, rows in arms.items()}
    classes = sorted({kind for found in counts.values() for kind in found})
    first = next(iter(counts.values()))
    classes.sort(key=lambda kind: -first[kind])
    return {kind: {label: found[kind] for label, found in counts.items()} for kind in classes}


def _faults(plan: Plan, arms: Mapping[str, Sequence[Record]]) -> dict[str, Any] | None:
    """What went wrong on purpose, and how many exchanges of each arm met which kind."""
    if plan.faults is None:
        return None
    met: dict[str, dict[str, int]] = {}
    for label, rows in arms.items():
        told = (exchange for row in rows for step in row["steps"] for exchange in step["exchanges"])
        met[label] = dict(Counter(kind for exchange in told if (kind := exchange.get("fault"))))
    return {"sha256": plan.faults.digest, "seed": plan.faults.seed, "met": met}


def _describe(rows: Sequence[Record], arm: Arm | None, fingerprint: str | None) -> dict[str, Any]:
    stored = rows[0] if rows else {}
    return {
        "name": arm.name if arm else "stored run",
        "identity": arm.identity if arm else None,
        "format": stored.get("format"),
        "frame_sha256": stored.get("frame_sha256"),
        "fingerprint": fingerprint or stored.get("fingerprint"),
        "steps": sum(len(row["steps"]) for row in rows),
        "tokens": sum(step["tokens"] for row in rows for step in row["steps"]),
    }


def _judge(gate: Gate, value: float | None) -> dict[str, Any]:
    passed = value is not None and value >= gate.minimum
    return {"metric": gate.metric, "minimum": gate.minimum, "value": value, "passed": passed}


def _verdict(gates: Sequence[Mapping[str, Any]], invalid: int, asked: int, interrupted: bool) -> str:
    if interrupted:
        return "interrupted"
    if invalid > MAX_INVALID * asked:
        return "invalid"
    return "pass" if all(gate["passed"] for gate in gates) else "fail"


def _finding(row: Mapping[str, Any], labels: Sequence[str]) -> str:
    """One sentence that says what was found, and no more than that."""
    first = row[labels[0]]
    if first["value"] is None:
        return "No case that expects calls was finished."
    delta: Delta | None = row.get("delta")
    if delta is None or delta["value"] is None or delta["p"] is None:
        return f"{labels[0]} makes exactly the expected calls in {first['value']:.1%} of {first['n']} cases."
    size = f"{abs(delta['value']) * 100:.1f} points over {delta['n']} cases, p = {delta['p']:.2g}"
    if delta["p"] >= 0.05:
        return f"No difference between {labels[0]} and {labels[1]} in exact calls is shown ({size})."
    return f"{labels[0]} is {'better' if delta['value'] > 0 else 'worse'} than {labels[1]} in exact calls ({size})."


def _caution(row: Mapping[str, Any], labels: Sequence[str]) -> str:
    """What must not be left unsaid beside better calls: that the model now calls where it should not."""
    delta: Delta | None = row.get("delta")
    if delta is None or delta["value"] is None or delta["p"] is None or delta["value"] >= 0 or delta["p"] >= 0.05:
        return ""
    size = f"{-delta['value'] * 100:.1f} points over {delta['n']} cases, p = {delta['p']:.2g}"
    return f" {labels[0]} is worse than {labels[1]} in abstention: it calls where no call is due ({size})."


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "agentft": agentft.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
