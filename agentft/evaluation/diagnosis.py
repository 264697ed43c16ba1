"""Where a model fails: which tool it calls in place of which, which arguments are wrong, and which errors changed.

Calls are assigned to expected calls as the scorer assigns them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agentft.evaluation.plan import Plan
from agentft.evaluation.records import Record
from agentft.evaluation.statistics import Estimate, estimate
from agentft.metrics.matching import Matching, Pair, case_matchings
from agentft.metrics.reading import all_calls, attempted

__all__ = ["NO_CALL", "UNKNOWN", "UNREADABLE", "Diagnosis", "diagnose", "match_records"]

NO_CALL = "(no call)"
UNREADABLE = "(unreadable)"
UNKNOWN = "(unknown tool)"
_SOLVED = "solved"


@dataclass(frozen=True, slots=True)
class _ConfusionCell:
    """How often each arm made the call `called` where `expected` is right, over all trials.

    Both are names of tools, or `NO_CALL`; `called` may also be `UNREADABLE` or `UNKNOWN`. `cases`: the ids of the first
    arm's cases, if the two differ.
    """

    expected: str
    called: str
    counts: Mapping[str, int]
    cases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _ArgumentCell:
    """How often an argument is right, by arm, in calls of the right tool that expect it or pass it.

    `wrong`: why the first arm's are not right: `missing`, `value`, or `surplus` for an argument that is not expected.
    `cases`: the ids of the first arm's cases where it is not right.
    """

    tool: str
    argument: str
    arms: Mapping[str, Estimate]
    wrong: Mapping[str, int]
    cases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`changes`: error class in the second arm -> class in the first -> number of runs; `_SOLVED` if there is none.

    `confusion` has the most frequent errors of the first arm first, `arguments` the most frequently wrong.
    """

    confusion: tuple[_ConfusionCell, ...]
    arguments: tuple[_ArgumentCell, ...]
    changes: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One argument of one call. `wrong`: empty if it is right."""

    place: tuple[str, str]
    call: tuple[str, int, int]  # case, turn, index of the expected call
    wrong: str


def diagnose(plan: Plan, arms: Mapping[str, Sequence[Record]]) -> Diagnosis:
    """The diagnosis of the records of each arm, by label. Invalid cases are left out."""
    matched = {label: list(match_records(plan, rows)) for label, rows in arms.items()}
    return Diagnosis(tuple(_confusion(matched)), tuple(_arguments(matched)), _changes(arms))


_Matched = tuple[Record, list[Matching], frozenset[str]]
"""A record, a matching for each user turn, and the names of its tools."""


def match_records(plan: Plan, rows: Iterable[Record]) -> Iterator[_Matched]:
    """The records of valid cases, with their calls assigned to the expected ones."""
    cases = {case.id: case for case in plan.cases}
    for row in rows:
        case = cases.get(row.case)
        if case is not None and row.outcome != "invalid":
            context = plan.context(case, row.gold_state)
            yield row, case_matchings(case, row.trajectory, context), frozenset(context.tools)


def _confusion(arms: Mapping[str, Iterable[_Matched]]) -> list[_ConfusionCell]:
    counts: dict[str, Counter[tuple[str, str]]] = {label: Counter() for label in arms}
    cases: dict[tuple[str, str], dict[str, None]] = {}
    first = next(iter(arms))
    for label, rows in arms.items():
        for row, matchings, tools in rows:
            for turn, matching in enumerate(matchings):
                for cell in _cells(row, turn, matching, tools):
                    counts[label][cell] += 1
                    if label == first and cell[0] != cell[1]:
                        cases.setdefault(cell, {})[row.case] = None
    cells = sorted({cell for found in counts.values() for cell in found})
    cells.sort(key=lambda cell: (cell[0] == cell[1], -counts[first][cell]))
    return [
        _ConfusionCell(*cell, {label: found[cell] for label, found in counts.items()}, tuple(cases.get(cell, ())))
        for cell in cells
    ]


def _cells(row: Record, turn: int, matching: Matching, tools: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(expected, called) for each call that a turn expects or makes, or once if it neither expects nor makes any."""
    unreadable = len(matching.unreadable)
    if not all_calls(row.trajectory, turn):
        unreadable = int(attempted(row.trajectory, turn))  # a call without its markers
    if not (matching.pairs or matching.extra or unreadable):
        yield NO_CALL, NO_CALL
    for pair in matching.pairs:
        if pair.call is not None:
            yield pair.expected.name, pair.call.name if pair.call.name in tools else UNKNOWN
        elif pair.required:
            yield pair.expected.name, UNREADABLE if unreadable else NO_CALL
            unreadable = max(0, unreadable - 1)
    for call in matching.extra:
        yield NO_CALL, call.name if call.name in tools else UNKNOWN
    for _ in range(unreadable):
        yield NO_CALL, UNREADABLE


def _arguments(arms: Mapping[str, Iterable[_Matched]]) -> list[_ArgumentCell]:
    found = {label: list(_outcomes(rows)) for label, rows in arms.items()}
    places = dict.fromkeys(outcome.place for outcomes in found.values() for outcome in outcomes)
    failed: dict[tuple[str, str], list[_Outcome]] = {place: [] for place in places}
    for outcome in next(iter(found.values())):
        if outcome.wrong:
            failed[outcome.place].append(outcome)
    figures = {label: _figures(outcomes) for label, outcomes in found.items()}
    cells = [
        _ArgumentCell(
            *place,
            {label: by_place.get(place, Estimate()) for label, by_place in figures.items()},
            dict(Counter(outcome.wrong for outcome in failed[place])),
            tuple(dict.fromkeys(outcome.call[0] for outcome in failed[place])),
        )
        for place in places
    ]
    return sorted(cells, key=lambda cell: (-sum(cell.wrong.values()), cell.tool, cell.argument))


def _figures(outcomes: Iterable[_Outcome]) -> dict[tuple[str, str], Estimate]:
    """The share that is right; the trials of one call are one value, since they are not independent."""
    values: dict[tuple[str, str], dict[tuple[str, int, int], list[bool]]] = {}
    for outcome in outcomes:
        values.setdefault(outcome.place, {}).setdefault(outcome.call, []).append(not outcome.wrong)
    return {
        place: estimate([sum(trials) / len(trials) for trials in calls.values()]) for place, calls in values.items()
    }


def _outcomes(rows: Iterable[_Matched]) -> Iterator[_Outcome]:
    for row, matchings, _ in rows:
        for turn, matching in enumerate(matchings):
            for index, pair in enumerate(matching.pairs):
                for argument, wrong in _judged(pair):
                    yield _Outcome((pair.expected.name, argument), (row.case, turn, index), wrong)


def _judged(pair: Pair) -> Iterator[tuple[str, str]]:
    """The arguments that a call of the right tool is expected to pass or passes, with what is wrong (or nothing)."""
    if pair.call is not None and pair.call.name == pair.expected.name:
        wrong = {difference.argument: difference.kind for difference in pair.differences}
        for argument in dict.fromkeys([*pair.expected.arguments, *pair.call.arguments]):
            yield argument, wrong.get(argument, "")


def _changes(arms: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, int]]:
    if len(arms) != 2:
        return {}
    after, before = (
        {(row.case, row.trial): row.error or _SOLVED for row in rows if row.outcome != "invalid"}
        for rows in arms.values()
    )
    pairs = Counter((before[key], kind) for key, kind in after.items() if key in before)
    changes: dict[str, dict[str, int]] = {}
    for (old, new), count in pairs.most_common():
        changes.setdefault(old, {})[new] = count
    return changes
