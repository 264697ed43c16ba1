"""Runs the arms of an evaluation (tuned, base) over its cases, stores every finished case, and summarises them."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from agentft.agent import Job, Options, run_cases
from agentft.errors import InputError
from agentft.evaluation.clients import SuiteClients
from agentft.evaluation.conditions import check_conditions, conditions_of
from agentft.evaluation.gold import gold_states
from agentft.evaluation.plan import FIRST_ARMS, Arm, Plan
from agentft.evaluation.probabilities import measure
from agentft.evaluation.records import (
    Record,
    Store,
    case_digest,
    dump_line,
    make_record,
    read_records,
    regrade,
    stored_baseline,
)
from agentft.evaluation.summary import MAX_INVALID, Gate, Summary, summarise
from agentft.files import json_of, write_text
from agentft.metrics import SCORER_VERSION
from agentft.models import ConcurrentModel, InspectableModel, Model, Sampling
from agentft.strict import counted
from agentft.toolserver import ToolClient, ToolServer
from agentft.toolserver.faults import is_ours
from agentft.toolserver.source import REAL_SECONDS
from agentft.types import Exchange, Step, Trajectory

__all__ = ["Settings", "evaluate", "fingerprint", "read_baseline"]

_READ_AT_ONCE = 32  # cases whose calls are read between two writes of cases.jsonl, or
_WRITES = 20  # more, so that it is not written more often


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run and which gates to check.

    With more than the share `max_invalid` of one arm's cases invalid, the verdict is `invalid`. `probabilities`: also
    store those of the calls, which needs models on this machine.
    `on_case(arm, record, done, total)` is called after every case, `on_note` with sentences for the user.
    `on_results(folder, summary, records)` is called with the records of each arm once summary.json is written; `folder`
    is None if a larger summary was kept there.
    """

    output: Path
    sampling: Sampling = field(default_factory=Sampling)
    batch_size: int = 16
    gates: tuple[Gate, ...] = ()
    max_invalid: float = MAX_INVALID
    probabilities: bool = False
    on_arm: Callable[[Arm], None] = lambda _: None
    on_case: Callable[[str, Record, int, int], None] = lambda *_: None
    on_note: Callable[[str], None] = lambda _: None
    on_results: Callable[[Path | None, Summary, Mapping[str, Sequence[Record]]], None] = lambda *_: None


def evaluate(
    plan: Plan, arms: Sequence[Arm], settings: Settings, baseline: Mapping[str, list[Record]] | None = None
) -> Summary:
    """Run what is not finished yet, and write `cases.jsonl` and `summary.json` into the output folder.

    Args:
        baseline: stored records by arm label (see `read_baseline`), to compare with.

    Returns:
        The summary, also in summary.json, unless that covers more cases. After Ctrl-C it covers the finished cases, and
        its verdict is `interrupted`.

    Raises:
        InputError: a suite does not fit its worlds, or the output folder holds another evaluation.
    """
    started = time.monotonic()
    fingerprints = {arm.label: fingerprint(plan, arm, settings.sampling) for arm in arms}
    world = ToolServer(plan.toolsets, plan.world_seed, faults=plan.faults, source=plan.source)
    served = any(map(plan.is_sent, plan.cases))
    with world if served else nullcontext() as server, Store(settings.output, set(fingerprints.values())) as store:
        run = _Run(plan, settings, server, store)
        interrupted = False
        try:
            for arm in arms:
                run.finish(arm, fingerprints[arm.label])
        except KeyboardInterrupt:
            interrupted = True
        found = {arm.label: run.finished(fingerprints[arm.label]) for arm in arms} | dict(baseline or {})
        graded = {label: run.regraded(rows) for label, rows in found.items()}
        summary = summarise(
            plan,
            graded,
            settings.gates,
            max_invalid=settings.max_invalid,
            ran={arm.label: (arm, fingerprints[arm.label]) for arm in arms},
            sampling=settings.sampling.document(),
            seconds=time.monotonic() - started,
            interrupted=interrupted,
            kept=store.kept,
        )
        path = settings.output / "summary.json"
        if larger := _larger_summary(path, summary):
            settings.on_note(f"{path} covers {larger} and is kept; this summary covers fewer and is only shown")
        else:
            write_text(path, json.dumps(summary.document(), indent=1, ensure_ascii=False) + "\n")
            _keep_baseline(settings.output, {label: graded[label] for label in baseline or ()})
        settings.on_results(None if larger else settings.output, summary, graded)
    return summary


def _keep_baseline(folder: Path, stored: Mapping[str, Sequence[Record]]) -> None:
    """Keep the stored records that the summary compares with, so that the folder needs no other one."""
    rows = [replace(row, arm=label) for label, records in stored.items() for row in records]
    if rows:
        write_text(stored_baseline(folder), "".join(dump_line(row.document()) for row in rows))
    else:
        stored_baseline(folder).unlink(missing_ok=True)


def _larger_summary(path: Path, summary: Summary) -> str:
    """What the stored summary covers, if that is more than `summary` does; else an empty text."""
    try:
        stored = sum(int(count) for count in json_of(path.read_bytes())["done"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f"{stored} finished cases" if stored > sum(summary.done.values()) else ""


def fingerprint(plan: Plan, arm: Arm, sampling: Sampling) -> str:
    """SHA-256 of everything that an arm's answers depend on, except the choice of cases and the number of trials."""
    hashes = {key: value for key, value in plan.hashes.items() if key != "cases"}
    parts = [arm.identity, sampling.document(), plan.world_seed, plan.max_steps, hashes]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_baseline(path: Path, plan: Plan, sampling: Sampling | None = None, arm: Arm | None = None) -> list[Record]:
    """The records of an earlier run, for the cases that are the same here; of its arms, the one that it evaluated.

    `arm`: the one that is compared with it.

    Raises:
        InputError: the file is not a cases.jsonl, none of its cases is the same here, or it was run under other faults,
            against another service or with other sampling.
    """
    rows = list(read_records(path))
    labels = {row.arm for row in rows}
    wanted = next(iter(sorted(labels, key=lambda label: label not in FIRST_ARMS)), "")
    digests = {case.id: case_digest(case) for case in plan.cases}
    same = [row for row in rows if row.arm == wanted and digests.get(row.case) == row.case_digest]
    if not same:
        raise InputError(f"{path}: it has none of the cases of this evaluation; evaluate the same suites")
    check_conditions(path, same, conditions_of(plan, sampling or Sampling(), arm))
    return same


class _Run:
    """One evaluation in progress: its cases with their contexts, its tool server and its store."""

    def __init__(self, plan: Plan, settings: Settings, server: ToolServer | None, store: Store) -> None:
        self._plan = plan
        self._settings = settings
        self._server = server
        self._store = store
        self._name = secrets.token_hex(8)
        self._cases = {case.id: case for case in plan.cases}
        gold: dict[str, str | None] = dict.fromkeys(self._cases)
        if plan.source is None and not plan.setups:  # a real or recorded service has no state to compare
            with ToolServer(plan.toolsets, plan.world_seed) as faultless, SuiteClients(plan, faultless) as clients:
                gold = gold_states(plan.cases, clients.of, plan.is_write, self._name)
        self._contexts = {case.id: plan.context(case, gold[case.id]) for case in plan.cases}
        self._keys = [(case.id, trial) for trial in range(plan.trials) for case in plan.cases]

    def finish(self, arm: Arm, fingerprint_: str) -> None:
        """Run the cases of an arm that are not finished yet."""
        waiting = [key for key in self._keys if (fingerprint_, *key) not in self._store.records]
        unread = [row for row in self.finished(fingerprint_) if row.probabilities is None]
        if not waiting and not (self._settings.probabilities and unread):
            return
        self._settings.on_arm(arm)
        total = len(self._keys)
        with ExitStack() as stack:
            model = arm.open()
            if isinstance(model, ConcurrentModel):
                stack.callback(model.close)
            reader = self._reader(model)
            found = stack.enter_context(closing(self._trajectories(waiting, arm, model)))
            for done, trajectory in enumerate(found, total - len(waiting) + 1):
                case = self._cases[trajectory.case_id]
                context = self._contexts[case.id]
                record = make_record(
                    case,
                    trajectory,
                    context,
                    arm,
                    fingerprint=fingerprint_,
                    rendering=model.rendering,
                    conditions=conditions_of(self._plan, self._settings.sampling, arm),
                )
                self._store.add(record)
                self._settings.on_case(arm.label, record, done, total)
            if reader:
                self._read_calls(self.finished(fingerprint_), arm, reader)

    def _reader(self, model: Model) -> InspectableModel | None:
        """The model, if it must tell probabilities."""
        if not self._settings.probabilities:
            return None
        if not isinstance(model, InspectableModel):
            raise InputError(f"--probabilities needs models on this machine, which {model.name} is not; leave it out")
        return model

    def _read_calls(self, rows: Sequence[Record], arm: Arm, reader: InspectableModel) -> None:
        """Add the probabilities that are missing, some cases at once; the file is written after each of them."""
        unread = [row for row in rows if row.probabilities is None and row.outcome != "invalid"]
        size = max(_READ_AT_ONCE, len(unread) // _WRITES)
        for start in range(0, len(unread), size):
            some = unread[start : start + size]
            self._settings.on_note(f"reading the calls of {start + len(some)} of {counted(len(unread), 'case')}")
            jobs = [_with_shots(self._plan.job(self._cases[row.case], row.trial), arm, reader) for row in some]
            measured = measure([(job, row.steps) for job, row in zip(jobs, some, strict=True)], reader)
            found = zip(some, measured, strict=True)
            self._store.rewrite([replace(row, probabilities=one) for row, one in found])

    def finished(self, fingerprint_: str) -> list[Record]:
        """The stored records of an arm, in the order of the plan."""
        keys = [(fingerprint_, *key) for key in self._keys]
        return [self._store.records[key] for key in keys if key in self._store.records]

    def regraded(self, rows: Sequence[Record]) -> list[Record]:
        """The records, graded again where an older scorer graded them."""
        return [
            regrade(row, self._cases[row.case], self._contexts[row.case])
            if row.scorer_version != SCORER_VERSION
            else row
            for row in rows
        ]

    def _trajectories(self, waiting: Sequence[tuple[str, int]], arm: Arm, model: Model) -> Generator[Trajectory]:
        """Run the waiting cases, those of a batch in one trial. Each suite has a client that knows only its tools."""
        settings, faults = self._settings, self._plan.faults
        timeout = faults.client_seconds if faults else 10.0 if self._plan.source is None else 5 * REAL_SECONDS
        server = self._server
        with SuiteClients(self._plan, server, timeout) if server else nullcontext() as clients:

            def client_for(job: Job) -> ToolClient | None:
                return clients.of(job.case) if clients and self._plan.is_sent(job.case) else None

            run = f"{self._name}.{arm.label}"
            options = Options(settings.batch_size, self._plan.max_steps, settings.sampling, run)
            concurrent = isinstance(model, ConcurrentModel)  # needs no batches of one seed
            for _, group in groupby(waiting, key=lambda key: 0 if concurrent else key[1]):
                jobs = [_with_shots(self._plan.job(self._cases[case], trial), arm, model) for case, trial in group]
                with closing(run_cases(jobs, model, client_for, options)) as found:
                    yield from map(self._with_faults, found)

    def _with_faults(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory with the fault of every exchange; `invalid` if a tool failed without an injected fault."""
        faults, calls = self._plan.faults, Counter[str]()
        case = self._cases[trajectory.case_id]
        session, view = self._plan.job(case, trajectory.trial).session(""), self._plan.view(case)
        steps: list[Step] = []
        for step in trajectory.steps:
            exchanges: list[Exchange] = []
            for exchange in step.exchanges:
                shown = view.get(exchange.call.name)
                tool = shown.tool if shown else exchange.call.name
                sent = exchange.sent is not None
                calls[tool] += sent
                fault = faults.at(session, tool, calls[tool]) if faults and sent else None
                exchanges.append(replace(exchange, fault=fault.kind if fault else ""))
            if broken := [exchange for exchange in exchanges if is_ours(exchange)]:
                problem = f"tool {broken[0].call.name} answered {broken[0].status}: {broken[0].received:.200}"
                return replace(trajectory, outcome="invalid", problem=problem)
            steps.append(replace(step, exchanges=tuple(exchanges)))
        return replace(trajectory, steps=tuple(steps))


def _with_shots(job: Job, arm: Arm, model: Model) -> Job:
    return replace(job, history=(*arm.shots.history(job.tools, model.source), *job.history)) if arm.shots else job
