"""The Hermes call format, as the Qwen2.5 family renders it: `<tool_call>` tags, and results in a user's message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from agentft.calls.base import CallFormat, dump_json, said
from agentft.json_text import UnreadableError, read_value
from agentft.types import Json, Part, Segment, Span, Text, ToolCall, ToolDefinition, ToolResult

__all__ = ["HERMES"]

# The newline between text and a call is the format's own.
CALL = re.compile(r"\n?<tool_call>(.*?)(</tool_call>|\Z)", re.DOTALL)


def _write_system(persona: str, tools: Sequence[ToolDefinition]) -> str:
    """The persona and the tools' schemas, worded as Qwen2.5's chat template words it."""
    if not tools:
        return persona
    rows = "".join("\n" + dump_json(_declare(tool)) for tool in tools)
    return (
        f"{persona}\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>{rows}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


def _declare(tool: ToolDefinition) -> Json:
    function: dict[str, Json] = {"name": tool.name, "description": tool.description}
    return {"type": "function", "function": {**function, "parameters": dict(tool.parameters)}}


def _write_run(parts: Sequence[Part]) -> list[Segment]:
    """Text, then each call in tags of its own; the stop token of the frame ends the run."""
    segments: list[Segment] = []
    for part in parts:
        if isinstance(part, Text):
            segments += said(part)
        elif isinstance(part, ToolCall):
            body = dump_json({"name": part.name, "arguments": dict(part.arguments)})
            gap = "\n" if segments else ""
            segments.append(Segment(f"{gap}<tool_call>\n{body}\n</tool_call>", True, "call"))
    return segments


def _write_results(results: Sequence[ToolResult]) -> str:
    return "\n".join(f"<tool_response>\n{result.content}\n</tool_response>" for result in results)


def _parse(text: str) -> tuple[Part, ...]:
    """Calls in tags, everything else text. An unclosed last tag is read if its JSON is whole."""
    parts: list[Part] = []
    at = 0
    for index, match in enumerate(CALL.finditer(text)):
        if match.start() > at:
            parts.append(Text(text[at : match.start()], Span(at, match.start())))
        parts.append(_read_call(match[1], f"call_{index}", Span(*match.span())))
        at = match.end()
    if at < len(text):
        parts.append(Text(text[at:], Span(at, len(text))))
    return tuple(parts)


def _read_call(body: str, call_id: str, span: Span) -> ToolCall:
    try:
        value = read_value(body)
    except UnreadableError as error:
        return ToolCall(call_id, "", {}, span, parse_error=f"not JSON: {error}")
    if not isinstance(value, dict):
        return ToolCall(call_id, "", {}, span, parse_error=f"a call must be an object, not {type(value).__name__}")
    name, arguments = value.get("name"), value.get("arguments", {})
    if isinstance(arguments, str):
        with suppress(UnreadableError):
            arguments = read_value(arguments)
    if not isinstance(name, str) or not name:
        return ToolCall(call_id, "", {}, span, parse_error="the call has no name")
    if not isinstance(arguments, dict):
        return ToolCall(call_id, name, {}, span, parse_error="arguments are not an object")
    return ToolCall(call_id, name, arguments, span)


HERMES = CallFormat("hermes", (), False, _write_system, _write_run, _write_results, _parse)
