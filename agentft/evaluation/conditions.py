"""Refuses to compare an evaluation with a stored run under other faults, seeds or sampling, or of another service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agentft.errors import InputError
from agentft.evaluation.plan import Arm, Plan
from agentft.evaluation.records import Record
from agentft.files import json_of
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
    older = _older_conditions(path)
    for row in rows:
        stored = row.conditions if row.conditions is not None else older
        if "faults" not in stored and any(exchange.fault for step in row.steps for exchange in step.exchanges):
            stored = {**stored, "faults": "unknown"}
        if stored != now:
            raise InputError(
                f"{path}: it was run {_describe(stored)}, and this evaluation {_describe(now)}, so their figures "
                f"cannot be compared; {_REMEDY}"
            )


def _older_conditions(path: Path) -> dict[str, str]:
    """The conditions of records without their own, from the summary.json beside them."""
    try:
        summary = json_of((path.parent / "summary.json").read_bytes())
        hashes = {key: str(summary["hashes"][key]) for key in ("faults", "source") if key in summary["hashes"]}
        drawn, seed = float(summary["sampling"]["temperature"]), summary["sampling"]["seed"]
        sampling = {"sampling": f"temperature {drawn:g}, seed {seed}"} if drawn else {}
        return {**hashes, "world_seed": str(summary["world_seed"]), **sampling}
    except (OSError, ValueError, KeyError, TypeError):
        return {"world_seed": "0"}


def _describe(conditions: Mapping[str, str]) -> str:
    faults, source = conditions.get("faults"), conditions.get("source")
    under = f"under the faults {faults:.12}" if faults else "without faults"
    service = f", against the service or recording {source:.40}" if source else ""
    seed = "" if conditions["world_seed"] == "0" else f", with the world seed {conditions['world_seed']}"
    sampling = f", sampled with {conditions['sampling']}" if "sampling" in conditions else ""
    shots = f", with {conditions['shots']} in the prompt" if "shots" in conditions else ""
    return under + service + seed + sampling + shots
