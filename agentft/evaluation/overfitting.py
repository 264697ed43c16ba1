"""The overfit index: how much more often an arm solves the cases of a suite than the cases derived from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agentft.evaluation.comparison import case_means
from agentft.evaluation.plan import Plan
from agentft.evaluation.records import Record
from agentft.evaluation.statistics import estimate, paired_delta

__all__ = ["overfit_index"]


def overfit_index(plan: Plan, arms: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Any]] | None:
    """By transform (and `all`) and arm: `original` and `derived` success, and `index`, their paired difference.

    Over the cases that an arm has in both suites; None without a derived suite whose own suite is evaluated too.
    """
    names = {suite.name for suite in plan.suites}
    transforms = {suite.name: suite.transform for suite in plan.suites if suite.of in names}
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    rates = {label: case_means(rows, "success") for label, rows in arms.items()}
    for case in plan.cases:
        transform = transforms.get(case.suite, "")
        original = case.id.removesuffix(f"~{transform}")
        for label, solved in rates.items() if transform else ():
            if original in solved and case.id in solved:
                for name in (transform, "all"):
                    by_case = found.setdefault(name, {}).setdefault(label, {})
                    by_case.setdefault(original, []).append(solved[case.id])
    return {
        name: {label: _figures(rates[label], by_case) for label, by_case in found[name].items()}
        for name in sorted(found, key=lambda name: name == "all")
    } or None


def _figures(solved: Mapping[str, float], by_case: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """One pair for each case of the suite, however many cases are derived from it."""
    original = [solved[case] for case in sorted(by_case)]
    derived = [math.fsum(values) / len(values) for _, values in sorted(by_case.items())]
    return {
        "original": asdict(estimate(original)),
        "derived": asdict(estimate(derived)),
        "index": asdict(paired_delta(original, derived)),
    }
