"""Whether calls are well-formed, whatever was expected: JSON, schema, existing tools, registered addresses."""

from __future__ import annotations

from agentft.metrics.context import Context
from agentft.metrics.reading import all_calls
from agentft.metrics.schema import schema_problems
from agentft.types import Case, Score, Trajectory

__all__ = ["json_valid", "known_tool", "schema_valid", "url"]

NO_CALLS = Score(None, "nothing was called")


def json_valid(_case: Case, trajectory: Trajectory, _context: Context) -> Score:
    """1 if every call could be read, else 0."""
    calls = all_calls(trajectory)
    for call in calls:
        if call.parse_error is not None:
            return Score(0.0, f"{call.id}: {call.parse_error}")
    return Score(1.0, "every call can be read") if calls else NO_CALLS


def schema_valid(_case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every call could be read, names a tool, and its arguments satisfy that tool's schema, else 0."""
    calls = all_calls(trajectory)
    for call in calls:
        tool = context.tools.get(call.name)
        if call.parse_error is not None or tool is None:
            return Score(0.0, call.parse_error or f"there is no tool {call.name!r:.60}")
        if problems := schema_problems(tool, call):
            return Score(0.0, f"{call.name}{problems[0].pointer}: {problems[0].message}")
    return Score(1.0, "all arguments satisfy their schemas") if calls else NO_CALLS


def known_tool(_case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every readable call names a tool that exists, else 0: a made-up tool is the model's failure."""
    calls = [call for call in all_calls(trajectory) if call.parse_error is None]
    for call in calls:
        if call.name not in context.tools:
            return Score(0.0, f"there is no tool {call.name!r:.60}")
    return Score(1.0, "every tool exists") if calls else NO_CALLS


def url(_case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every address in a call is one of its tool's, else 0; does not apply where calls carry no address."""
    calls = [call for call in all_calls(trajectory) if call.parse_error is None and call.endpoint is not None]
    for call in calls:
        tool = context.tools.get(call.name)
        if tool is None or call.endpoint not in tool.endpoints:
            return Score(0.0, f"{call.endpoint!r:.80} is no address of {call.name!r:.60}")
    return Score(1.0, "every address is a registered one") if calls else Score(None, "no call carries an address")
