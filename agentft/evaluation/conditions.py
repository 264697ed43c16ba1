"""Refuses to compare an evaluation with a stored run under other faults, seeds or sampling, or of another service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agentft.errors import InputError
from agentft.evaluation.plan import Arm, Plan
from agentft.evaluation.records import Record
from agentft.models import Sampling

__all__ = ["check_conditions", "conditions_of"]

_REMEDY = "run the baseline again with the same --faults, --real, --replay, --temperature, --seed and --shots"


def conditions_of(plan: Plan, sampling: Sampling, arm: Arm | None = None) -> dict[str, str]:
    """What must be equal in two runs that are compared. A greedy model does not depend on the seed of its sampling."""
    shots = {"shots": arm.shots.condition} if arm and arm.shots else {}
    if sampling.temperature == 0:
        return plan.conditions | shots
    return {**plan.conditions, **shots, "sampling": f"temperature {sampling.temperature:g}, seed {sampling.seed}"}


def check_conditions(path: Path, rows: Sequence[Record], now: Mapping[str, str]) -> None:
    """Check that the records of `path` were made under the conditions `now` (see `conditions_of`).

    Raises:
        InputError: they were not.
    """
    for row in rows:
        stored = row.conditions or {"world_seed": "unknown"}  # not written by older versions
        if stored != now:
            raise InputError(
                f"{path}: it was run {_describe(stored)}, and this evaluation {_describe(now)}, so their figures "
                f"cannot be compared; {_REMEDY}"
            )


def _describe(conditions: Mapping[str, str]) -> str:
    faults, source = conditions.get("faults"), conditions.get("source")
    under = f"under the faults {faults:.12}" if faults else "without faults"
    service = f", against the service or recording {source:.40}" if source else ""
    seed = "" if conditions["world_seed"] == "0" else f", with the world seed {conditions['world_seed']}"
    sampling = f", sampled with {conditions['sampling']}" if "sampling" in conditions else ""
    shots = f", with {conditions['shots']} in the prompt" if "shots" in conditions else ""
    return under + service + seed + sampling + shots
