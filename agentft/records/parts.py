"""Parts of turns as JSON objects, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agentft.types import Declarations, ParseFailure, Part, Span, Text, ToolCall, ToolResult

__all__ = ["dump_part", "read_part"]

_PARTS: dict[str, type[Part]] = {"text": Text, "call": ToolCall, "result": ToolResult, "declarations": Declarations}
_PART_NAMES: dict[type[Part], str] = {kind: name for name, kind in _PARTS.items()}


def dump_part(part: Part) -> dict[str, Any]:
    """A part as JSON."""
    return {"type": _PART_NAMES[type(part)], **asdict(part), "span": [part.span.start, part.span.end]}


def read_part(row: dict[str, Any]) -> Part:
    """The part that `dump_part` wrote."""
    fields = {**row, "span": Span(*row["span"])}
    if failure := row.get("parse_error"):
        fields["parse_error"] = ParseFailure(**failure)
    return _PARTS[fields.pop("type")](**fields)
