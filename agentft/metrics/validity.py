"""Metrics of well-formed calls, whatever the case expects: valid JSON, valid arguments, known tools, known URLs.

Remote `$ref`s in a schema are never followed: the registry is empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agentft.json_text import json_pointer
from agentft.metrics.reading import Context, all_calls
from agentft.toolset.arguments import validator_of
from agentft.types import Case, Score, ToolCall, ToolDefinition, Trajectory

__all__ = ["SchemaProblem", "json_valid", "known_tool", "schema_problems", "schema_valid", "url"]

NO_CALLS = Score(None, "no call was made")
Kind = Literal["missing-required", "unknown-argument", "type", "constraint"]
KINDS: dict[str, Kind] = {
    "required": "missing-required",
    "additionalProperties": "unknown-argument",
    "unevaluatedProperties": "unknown-argument",
    "type": "type",
}


@dataclass(frozen=True, slots=True)
class SchemaProblem:
    """One violation of a tool's schema. `pointer` is a JSON Pointer into the arguments."""

    kind: Kind
    pointer: str
    message: str


def schema_problems(tool: ToolDefinition, call: ToolCall) -> list[SchemaProblem]:
    """All schema violations of a readable call, sorted by pointer."""
    validator = validator_of(tool.parameters, formats=True)
    try:
        return sorted(map(_problem, validator.iter_errors(dict(call.arguments))), key=lambda problem: problem.pointer)
    except RecursionError:
        return [SchemaProblem("constraint", "", "the arguments, or their schemas, are nested too deeply")]


def json_valid(_case: Case, trajectory: Trajectory, _context: Context) -> Score:
    """1 if every call is readable, else 0."""
    calls = all_calls(trajectory)
    for call in calls:
        if call.parse_error is not None:
            return Score(0.0, f"{call.id}: {call.parse_error}")
    return Score(1.0, "every call is readable") if calls else NO_CALLS


def schema_valid(_case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every call is readable, names a tool that exists, and satisfies the schema of that tool, else 0."""
    calls = all_calls(trajectory)
    for call in calls:
        tool = context.tools.get(call.name)
        if call.parse_error is not None or tool is None:
            return Score(0.0, str(call.parse_error or f"no tool is named {call.name!r:.60}"))
        if problems := schema_problems(tool, call):
            return Score(0.0, f"{call.name}{problems[0].pointer}: {problems[0].message}")
    return Score(1.0, "all arguments are valid") if calls else NO_CALLS


def known_tool(_case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every readable call names a tool that exists, else 0."""
    calls = [call for call in all_calls(trajectory) if call.parse_error is None]
    for call in calls:
        if call.name not in context.tools:
            return Score(0.0, f"no tool is named {call.name!r:.60}")
    return Score(1.0, "every tool exists") if calls else NO_CALLS


def url(_case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every URL in a call is an endpoint of its tool, else 0. Applies to call formats that write URLs."""
    calls = [call for call in all_calls(trajectory) if call.parse_error is None and call.endpoint is not None]
    for call in calls:
        tool = context.tools.get(call.name)
        if tool is None or call.endpoint not in tool.endpoints:
            return Score(0.0, f"{call.endpoint!r:.80} is not an endpoint of {call.name!r:.60}")
    return Score(1.0, "every URL is an endpoint of its tool") if calls else Score(None, "no call has a URL")


def _problem(error: Any) -> SchemaProblem:
    kind = KINDS.get(str(error.validator), "constraint")
    path = list(error.absolute_path)
    if error.validator == "required":
        key = error.validator_value[error.relative_schema_path[-1]]
        return SchemaProblem(kind, json_pointer(*path, key), "is missing")
    return SchemaProblem(kind, json_pointer(*path), f"{error.message:.120}")
