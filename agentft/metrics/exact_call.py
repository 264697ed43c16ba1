"""All expected calls, exactly, and nothing else: the headline metric."""

from __future__ import annotations

from agentft.metrics.context import Context
from agentft.metrics.matching import Matching, case_matchings
from agentft.metrics.reading import expects_calls
from agentft.types import Case, Score, ToolCall, Trajectory

__all__ = ["exact_call", "tool_name"]


def exact_call(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every turn has exactly its expected calls (those that a later one mends are optional), else 0."""
    if not expects_calls(case):
        return Score(None, "the case expects no call")
    for index, matching in enumerate(case_matchings(case, trajectory, context)):
        if not matching.exact:
            return Score(0.0, f"turn {index}: {_why(matching)}")
    return Score(1.0, "every call is exact")


def tool_name(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every turn calls exactly the expected tools, whatever the arguments, else 0."""
    if not expects_calls(case):
        return Score(None, "the case expects no call")
    for index, matching in enumerate(case_matchings(case, trajectory, context)):
        if matching.unreadable or matching.extra:
            return Score(0.0, f"turn {index}: {_why(matching)}")
        for pair in matching.pairs:
            named = pair.call is not None and pair.call.name == pair.expected.name
            if not named and (pair.required or pair.call):
                return Score(0.0, f"turn {index}: {pair.expected.name} expected, {_shown(pair.call)} made")
    return Score(1.0, "every tool is the right one")


def _why(matching: Matching) -> str:
    if matching.unreadable:
        return f"a call cannot be read ({matching.unreadable[0].parse_error})"
    for pair in matching.pairs:
        if pair.call is None and pair.required:
            return f"{pair.expected.name} was not called"
        if pair.call is not None and pair.differences:
            first = pair.differences[0]
            place = f"{pair.call.name}.{first.argument}" if first.argument else "the tool"
            return f"{place}: {first.actual!r:.80} instead of {first.expected!r:.80} ({first.kind})"
    return f"{_shown(matching.extra[0])} was not expected"


def _shown(call: ToolCall | None) -> str:
    return "no call" if call is None else f"{call.name:.60}"
