"""Grades a stored evaluation again, with this version of the scorer and without a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentft.errors import InputError
from agentft.evaluation.bfcl import make_bfcl_plan
from agentft.evaluation.bfcl_data import BFCL_CATEGORIES, BFCL_WHEEL, MULTI_TURN
from agentft.evaluation.plan import FIRST_ARMS, Plan, make_plan
from agentft.evaluation.records import (
    Record,
    case_digest,
    dump_line,
    read_evaluation,
    read_records,
    regrade,
    stored_baseline,
)
from agentft.evaluation.suites import load_suite, load_worlds
from agentft.evaluation.summary import FaultSummary, Gate, Summary, summarise
from agentft.files import atomic_write, lock_folder, read_object, write_text
from agentft.models.wheels import pull_wheel

__all__ = ["by_arm", "rescore", "stored_plan"]

_CHANGED = 3


def rescore(
    folder: Path,
    gates: Sequence[Gate],
    max_invalid: float,
    suites: Sequence[str] = (),
    tools: Sequence[str] = (),
    *,
    on_results: Callable[[Path, Summary, Mapping[str, Sequence[Record]]], None] = lambda *_: None,
) -> Summary:
    """Grade every record of an evaluation folder again; rewrite its `cases.jsonl` and `summary.json`.

    What the model wrote and what it received stay as they are; only scores, error classes and the summary change.

    Args:
        folder: an evaluation folder, or its `cases.jsonl`.
        suites: names or folders of the suites (empty: the names in the records).
        tools: tool worlds that hold code and that the user names, as for `agentft eval --tools`.
        on_results: called with the folder, the summary and the records of each arm (see `Settings.on_results`).

    Raises:
        InputError: the folder holds no evaluation, another process uses it, a case has changed since it was run, or a
            gate needs a baseline that is not there.
    """
    path = folder if folder.name == "cases.jsonl" else folder / "cases.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give the folder of an evaluation")
    with lock_folder(path.parent, "evaluated"):
        rows = read_evaluation(path.parent)
        if not rows:
            raise InputError(f"{path}: it has no finished case; run the evaluation first")
        if any(gate.margin is not None for gate in gates) and len({row.arm for row in rows}) < 2:
            raise InputError(f"{path}: it has one arm, so there is no baseline for --no-worse-than; leave that out")
        plan = stored_plan(path, rows, suites, tools)
        cases = {case.id: case for case in plan.cases}
        rows = [regrade(row, cases[row.case], plan.context(cases[row.case], row.gold_state)) for row in rows]
        order = {case: index for index, case in enumerate(cases)}
        arms = by_arm(sorted(rows, key=lambda row: (row.trial, order[row.case])))  # as they were run
        summary = _summary(path.parent / "summary.json", plan, arms, gates, max_invalid)
        own = len(list(read_records(path)))  # the others are its baseline's
        for file, records in ((path, rows[:own]), (stored_baseline(path.parent), rows[own:])):
            if records:
                with atomic_write(file) as stream:
                    stream.writelines(dump_line(row.document()) for row in records)
        write_text(path.parent / "summary.json", json.dumps(summary.document(), indent=1, ensure_ascii=False) + "\n")
        on_results(path.parent, summary, arms)
    return summary


def stored_plan(path: Path, rows: Sequence[Record], suites: Sequence[str], tools: Sequence[str]) -> Plan:
    """The stored cases as their suites have them now. `suites`, `tools`: see `rescore`.

    Raises:
        InputError: a case has changed since it was run, or is in none of the suites.
    """
    from agentft.toolset import load_toolsets

    names = list(suites or dict.fromkeys(row.suite for row in rows))
    if set(names) <= {*BFCL_CATEGORIES, *MULTI_TURN}:
        plan = make_bfcl_plan(names, pull_wheel(BFCL_WHEEL))
    else:
        loaded = [load_suite(name) for name in names]
        plan = make_plan(loaded, load_toolsets(list(tools)) if tools else load_worlds(loaded))
    digests = {case.id: case_digest(case) for case in plan.cases}
    if changed := [row.case for row in rows if digests.get(row.case) != row.case_digest]:
        some = ", ".join([*dict.fromkeys(changed)][:_CHANGED])
        raise InputError(
            f"{path}: {len(set(changed))} of its cases have changed since they were run, or are in no suite named here "
            f"({some:.200}); name the suites as they were, or run the evaluation again"
        )
    stored = {row.case for row in rows}
    kept = tuple(case for case in plan.cases if case.id in stored)
    return replace(plan, cases=kept, trials=len({row.trial for row in rows}))


def by_arm(rows: Sequence[Record]) -> dict[str, list[Record]]:
    """The records by arm, the one that was evaluated first."""
    arms: dict[str, list[Record]] = {}
    for row in rows:
        arms.setdefault(row.arm, []).append(row)
    return {label: arms[label] for label in sorted(arms, key=lambda label: label not in FIRST_ARMS)}


def _summary(
    path: Path, plan: Plan, arms: Mapping[str, Sequence[Record]], gates: Sequence[Gate], max_invalid: float
) -> Summary:
    """The summary of the records; what only the run knew comes from the summary that it wrote."""
    old = read_object(path)
    try:
        sampling, arms_ = {"seed": 0, **old.get("sampling", {})}, old.get("arms", {}).items()
        faults = FaultSummary(**old["faults"]) if old.get("faults") else None
        named = {label: {"name": str(arm["name"]), "identity": arm["identity"]} for label, arm in arms_}
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, and give the command again") from None
    known: dict[str, Any] = {
        "sampling": sampling,
        "seconds": old.get("seconds", 0.0),
        "kept": sum(map(len, arms.values())),
    }
    summary = summarise(plan, arms, gates, max_invalid=max_invalid, ran={}, interrupted=False, **known)
    return replace(
        summary,
        arms={label: replace(arm, **named.get(label, {})) for label, arm in summary.arms.items()},
        faults=faults,
        hashes=old.get("hashes") or summary.hashes,
        world_seed=old.get("world_seed", summary.world_seed),
    )
