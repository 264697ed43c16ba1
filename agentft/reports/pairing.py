"""Cases of an evaluation with the records of every arm, the regressions first, and the failures to look at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentft.evaluation.records import Record
from agentft.metrics.errors import ANSWER_ERRORS
from agentft.strict import own_table
from agentft.types import ToolCall

__all__ = ["OUTCOMES", "FailureGroup", "PairedCase", "called_tools", "largest_failures", "pair_cases", "worst_run"]

OUTCOMES = own_table(__file__, str)
"""What a case may be, in the order of a report. `lost` and `gained` need two arms."""


@dataclass(frozen=True, slots=True)
class PairedCase:
    """A case and its records: `runs` by arm, each with one record for every trial, or none.

    `rates`: by arm, the share of valid trials that solved the case; None: there are none.
    """

    id: str
    outcome: str
    runs: tuple[tuple[Record, ...], ...]
    rates: tuple[float | None, ...]

    @property
    def first(self) -> Record:
        """Any of its records, for what is the same in all: suite, category, users, expected calls."""
        return next(record for records in self.runs for record in records)


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Cases that failed in the same way: error class, expected tools of the turn, argument (a JSON Pointer).

    `tools` is empty for `ANSWER_ERRORS`. `lost`: the number of these cases that the baseline solves (more often).
    """

    error: str
    tools: str
    pointer: str
    cases: tuple[str, ...]
    lost: int

    @property
    def regressed(self) -> str:
        """What to add to the number of cases."""
        return f", regressions: {self.lost}" if self.lost else ""


def pair_cases(arms: Mapping[str, Sequence[Record]]) -> list[PairedCase]:
    """The cases of all arms in the order of `OUTCOMES`; the largest loss is first."""
    found: dict[str, dict[str, list[Record]]] = {}
    for label, records in arms.items():
        for record in records:
            found.setdefault(record.case, {}).setdefault(label, []).append(record)
    cases = [_paired(case, [tuple(by_arm.get(label, ())) for label in arms]) for case, by_arm in found.items()]
    order = list(OUTCOMES)
    return sorted(cases, key=lambda case: (order.index(case.outcome), _change(case)))


def largest_failures(cases: Sequence[PairedCase], arm: int = 0) -> list[FailureGroup]:
    """The primary errors of an arm by error class, tool and argument, with their cases, the most frequent first."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for case in cases:
        run = worst_run(case.runs[arm])
        if run and run.findings:
            finding = run.findings[0]
            turns = () if finding.kind in ANSWER_ERRORS else run.expected[finding.turn : finding.turn + 1]
            tools = ", ".join(dict.fromkeys(call["name"] for turn in turns for call in turn["calls"]))
            groups.setdefault((finding.kind, tools, finding.pointer), []).append(case.id)
    lost = {case.id for case in cases if case.outcome == "lost"}
    found = (FailureGroup(*key, tuple(members), len(lost & {*members})) for key, members in groups.items())
    return sorted(found, key=lambda group: -len(group.cases))


def worst_run(records: Sequence[Record]) -> Record | None:
    """The first trial that failed, else the first; None without records."""
    return next((record for record in records if record.error), records[0] if records else None)


def called_tools(case: PairedCase) -> list[str]:
    """The names of the tools that the case expects or that an arm called."""
    names = [call["name"] for turn in case.first.expected for call in turn["calls"]]
    parts = (part for records in case.runs for record in records for step in record.steps for part in step.parts)
    names += [part.name for part in parts if isinstance(part, ToolCall) and part.name]
    return list(dict.fromkeys(names))


def _paired(case: str, runs: list[tuple[Record, ...]]) -> PairedCase:
    rates = tuple(map(_rate, runs))
    return PairedCase(case, _outcome(runs, rates), tuple(runs), rates)


def _rate(records: Sequence[Record]) -> float | None:
    values: list[Any] = [record.scores["success"].value for record in records]
    valid = [value for value in values if value is not None]
    return sum(valid) / len(valid) if valid else None


def _outcome(runs: Sequence[Sequence[Record]], rates: Sequence[float | None]) -> str:
    if not all(runs):
        return "only"
    valid = [rate for rate in rates if rate is not None]
    if len(valid) < len(rates):
        return "invalid"
    if len(valid) == 2 and valid[0] != valid[1]:
        return "lost" if valid[0] < valid[1] else "gained"
    return "solved" if min(valid) == 1 else "failed"


def _change(case: PairedCase) -> float:
    first, *others = (rate or 0.0 for rate in case.rates)
    return first - others[0] if others else first
