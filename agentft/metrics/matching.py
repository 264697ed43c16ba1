"""Assigns the calls of a turn to the expected calls, in any order, and compares their arguments.

Two JSON values of different types differ: `True`, `1` and `1.0` are three values. Where the schema says `number`,
1 and 1.0 are equal.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy

from agentft.metrics.reading import Context, all_calls, exchanges, met_fault
from agentft.toolset.subschemas import Subschemas
from agentft.types import CallExpectation, Case, Json, ToolCall, Trajectory

__all__ = ["Difference", "Matching", "Pair", "case_matchings", "find_differences", "match", "same"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between a call and its expectation. `argument` is empty for a different tool."""

    kind: Literal["tool", "missing", "surplus", "value"]
    argument: str = ""
    expected: Json = None
    actual: Json = None


@dataclass(frozen=True, slots=True)
class Pair:
    """An expected call and the call assigned to it (None: no call is left for it)."""

    expected: CallExpectation
    required: bool
    call: ToolCall | None
    differences: tuple[Difference, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether a call is assigned and has no differences."""
        return self.call is not None and not self.differences


@dataclass(frozen=True, slots=True)
class Matching:
    """The calls of a turn, matched with its expected calls.

    `extra`: readable calls that match no expected call, except calls that met a fault and were sent again.
    """

    pairs: tuple[Pair, ...]
    extra: tuple[ToolCall, ...]
    unreadable: tuple[ToolCall, ...]

    @property
    def exact(self) -> bool:
        """Whether every required call is exact, and every other call is an exact optional one."""
        clean = not self.extra and not self.unreadable
        return clean and all(pair.exact or (pair.call is None and not pair.required) for pair in self.pairs)


def case_matchings(case: Case, trajectory: Trajectory, context: Context) -> list[Matching]:
    """A matching for each user turn of the case. Turns that were not reached have no calls."""
    return [
        match(
            turn.calls,
            turn.skippable,
            all_calls(trajectory, index),
            context,
            case.comparators,
            sent_again=_sent_again(case, trajectory, index, context),
        )
        for index, turn in enumerate(case.turns)
    ]


def match(
    expected: Sequence[CallExpectation],
    skippable: int,
    calls: Sequence[ToolCall],
    context: Context,
    comparators: Mapping[str, str],
    *,
    sent_again: Collection[int] = (),
) -> Matching:
    """Assign calls to expectations so that as many as possible are exact, then as many arguments as possible.

    The first `skippable` expectations are optional. `sent_again`: indices of calls that met a fault and were repeated;
    each is left over before its repetition is, and is then not extra.
    """
    indices = [index for index, call in enumerate(calls) if call.parse_error is None]
    readable = [calls[index] for index in indices]
    pairs = [Pair(want, index >= skippable, None) for index, want in enumerate(expected)]
    table = [
        [
            replace(pair, call=call, differences=find_differences(pair.expected, call, context, comparators))
            for call in readable
        ]
        for pair in pairs
    ]
    rewards = np.array([[_reward(pair) for pair in row] for row in table]).reshape(len(expected), len(readable))
    rewards -= np.array([0.01 * (index in sent_again) for index in indices])
    rows, columns = scipy.optimize.linear_sum_assignment(rewards, maximize=True)
    for row, column in zip(rows, columns, strict=True):
        pairs[row] = table[row][column]
    return Matching(
        tuple(pairs),
        extra=tuple(call for at, call in enumerate(readable) if at not in columns and indices[at] not in sent_again),
        unreadable=tuple(call for call in calls if call.parse_error is not None),
    )


def _sent_again(case: Case, trajectory: Trajectory, turn: int, context: Context) -> frozenset[int]:
    """Indices of the calls of a turn that met a fault and that a later call repeats.

    A call repeats another if it is equal, or if both are exact for one expected call.
    """
    calls = all_calls(trajectory, turn)
    faulted = [exchange.call for exchange in exchanges(trajectory, turn) if met_fault(exchange)]

    def repeats(later: ToolCall, call: ToolCall) -> bool:
        if later.parse_error is not None or later.name != call.name:
            return False
        tool = context.tools.get(call.name)
        return same(dict(call.arguments), dict(later.arguments), tool.parameters if tool else None) or any(
            not any(find_differences(want, one, context, case.comparators) for one in (call, later))
            for want in case.turns[turn].calls
        )

    return frozenset(
        index
        for index, call in enumerate(calls)
        if any(call is one for one in faulted) and any(repeats(later, call) for later in calls[index + 1 :])
    )


def find_differences(
    want: CallExpectation, call: ToolCall, context: Context, comparators: Mapping[str, str]
) -> tuple[Difference, ...]:
    """All differences between a readable call and an expectation; none if the call is exact."""
    if call.name != want.name:
        return (Difference("tool", expected=want.name, actual=call.name),)
    found: list[Difference] = []
    for key, value in want.arguments.items():
        if key not in call.arguments:
            found.append(Difference("missing", key, expected=value))
        elif not _accepted(want, key, call.arguments[key], context, comparators):
            found.append(Difference("value", key, expected=value, actual=call.arguments[key]))
    for key, actual in call.arguments.items():
        if key in want.arguments:
            continue
        if key not in want.optional:
            found.append(Difference("surplus", key, actual=actual))
        elif not _accepted(want, key, actual, context, comparators):
            found.append(Difference("value", key, expected=want.optional[key], actual=actual))
    return tuple(found)


def same(expected: Json, actual: Json, schema: Mapping[str, Any] | None = None, comparator: str = "exact") -> bool:
    """Whether two JSON values are equal under the argument's JSON Schema and comparator.

    `comparator` applies to strings: `exact`, `casefold` (ignores case) or `spaceless` (ignores whitespace).
    """
    return _same(expected, actual, Subschemas(schema or {}), comparator)


def _same(expected: Json, actual: Json, schema: Subschemas, comparator: str) -> bool:
    if isinstance(expected, str) and isinstance(actual, str):
        return _normalise(expected, comparator) == _normalise(actual, comparator)
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            _same(value, actual[key], schema.at(key), comparator) for key, value in expected.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        pairs = enumerate(zip(expected, actual, strict=False))
        return len(expected) == len(actual) and all(
            _same(left, right, schema.at(index), comparator) for index, (left, right) in pairs
        )
    if _number(expected) and _number(actual):
        return _same_number(expected, actual, schema)
    return type(expected) is type(actual) and expected == actual


def _accepted(want: CallExpectation, key: str, actual: Json, context: Context, comparators: Mapping[str, str]) -> bool:
    tool = context.tools.get(want.name)
    schema = Subschemas(tool.parameters if tool else {}).at(key)
    comparator = comparators.get(f"{want.name}.{key}", "exact")
    value = want.arguments[key] if key in want.arguments else want.optional[key]
    options = (value, *want.alternatives.get(key, ()))
    return any(_same(option, actual, schema, comparator) for option in options)


def _reward(pair: Pair) -> float:
    """The weight of a pair: exact calls first, then the right tool, required expectations and correct arguments."""
    bonus = 0.5 * pair.required
    if not pair.differences:
        return 1000.0 + bonus
    if pair.differences[0].kind == "tool":
        return 0.1 * pair.required
    wrong = sum(difference.kind != "surplus" for difference in pair.differences)
    return 1.0 + 0.4 * (1 - wrong / (len(pair.expected.arguments) + 1)) + bonus


def _normalise(text: str, comparator: str) -> str:
    if comparator == "casefold":
        return text.casefold()
    return "".join(text.split()) if comparator == "spaceless" else text


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same_number(expected: Any, actual: Any, schema: Subschemas) -> bool:
    if type(expected) is not type(actual) and "number" not in schema.types:
        return False
    if isinstance(expected, int) and isinstance(actual, int):
        return expected == actual
    try:
        return math.isclose(expected, actual, rel_tol=1e-9)
    except OverflowError:
        return False
