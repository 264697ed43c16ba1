"""Whether a model has forgotten: plain questions that no tool helps with, asked of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentft.evaluation.comparison import Comparison, compare
from agentft.evaluation.records import Record

__all__ = ["Forgetting", "find_forgetting"]


@dataclass(frozen=True, slots=True)
class Forgetting:
    """The cases of `irrelevance` that expect an answer: `answer` and `abstention` of both arms, and one sentence."""

    cases: int
    finding: str
    answer: Comparison
    abstention: Comparison

    def document(self) -> dict[str, Any]:
        """The JSON object."""
        figures = {"answer": self.answer.document(), "abstention": self.abstention.document()}
        return {"cases": self.cases, "finding": self.finding, **figures}


def find_forgetting(arms: Mapping[str, Sequence[Record]]) -> Forgetting | None:
    """Compare two arms on plain questions; None without such cases, or with one arm."""
    plain = {
        label: [row for row in rows if row.category == "irrelevance" and any(turn["answer"] for turn in row.expected)]
        for label, rows in arms.items()
    }
    answer, abstention = compare(plain, "answer"), compare(plain, "abstention")
    if answer.delta is None or answer.delta.value is None:
        return None
    first, second = arms
    named = {"right answers": answer, "answers without a call": abstention}
    parts = [_describe(name, found, first, second) for name, found in named.items()]
    lost = [found.delta for found in (answer, abstention) if found.delta and found.delta.shown]
    worse = any((delta.value or 0) < 0 for delta in lost)
    verdict = f"{first} has forgotten" if worse else f"It is not shown that {first} has forgotten"
    return Forgetting(answer.delta.n, f"{verdict}: {', '.join(parts)}.", answer, abstention)


def _describe(name: str, found: Comparison, first: str, second: str) -> str:
    delta = found.delta
    if delta is None or delta.value is None or delta.low is None or delta.high is None:
        return f"{name} not measured"
    values = " and ".join(f"{label} {(found.arms[label].value or 0.0):.1%}" for label in (first, second))
    interval = f"{delta.value * 100:+.1f} points, 95 % interval {delta.low * 100:+.1f} to {delta.high * 100:+.1f}"
    p = "" if delta.p is None else f", p = {delta.p:.2g}"
    return f"{name} {values} ({interval}, n = {delta.n}{p})"
