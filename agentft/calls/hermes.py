"""The Hermes call format as the Qwen2.5 family renders it: calls in `<tool_call>` tags, results in a user message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from agentft.calls.format import CallFormat, declare_tool, dump_json, once_per_tool, text_segments
from agentft.calls.reading import CallKeys, make_call, read_literal_call
from agentft.calls.thoughts import with_thoughts
from agentft.json_text import UnreadableError, read_json
from agentft.types import Json, ParseFailure, Part, Segment, Span, Text, ToolCall, ToolDefinition, ToolResult

__all__ = ["HERMES"]

_OPEN = re.compile(r"\n?<tool_call>\s*")  # the newline before a call belongs to the call, not to the text
_CLOSE = "</tool_call>"
_CLOSING = re.compile(_CLOSE)
_SPACE = re.compile(r"\s*")
_KEYS = CallKeys()
_MAX_STOPS = 4  # closing tags that are tried as the end of a Python literal


def _write_system(persona: str, tools: Sequence[ToolDefinition]) -> str:
    """The persona and the tools' schemas, in the wording of Qwen2.5's chat template."""
    if not tools:
        return persona
    rows = "".join("\n" + _declare(tool) for tool in tools)
    return (
        f"{persona}\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>{rows}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


@once_per_tool
def _declare(tool: ToolDefinition) -> str:
    return dump_json(declare_tool(tool))


def _write_run(parts: Sequence[Part]) -> list[Segment]:
    """Text, then each call in its own tags. The frame's stop token ends the run."""
    segments: list[Segment] = []
    for part in parts:
        if isinstance(part, Text):
            segments += text_segments(part)
        elif isinstance(part, ToolCall):
            body = dump_json({"name": part.name, "arguments": dict(part.arguments)})
            gap = "\n" if segments and segments[-1].kind != "thought" else ""
            segments.append(Segment(f"{gap}<tool_call>\n{body}\n</tool_call>", True, "call"))
    return segments


def _write_results(results: Sequence[ToolResult]) -> str:
    return "\n".join(f"<tool_response>\n{result.content}\n</tool_response>" for result in results)


def _parse(text: str) -> tuple[Part, ...]:
    """Tagged calls; everything else is text. A last call without its closing tag is read if its JSON is complete."""
    parts: list[Part] = []
    at = calls = 0
    while opened := _OPEN.search(text, at):
        if opened.start() > at:
            parts.append(Text(text[at : opened.start()], Span(at, opened.start())))
        value, at, failure = _read_body(text, opened.end())
        parts.append(make_call(f"call_{calls}", value, Span(opened.start(), at), _KEYS, failure))
        calls += 1
    if at < len(text):
        parts.append(Text(text[at:], Span(at, len(text))))
    return tuple(parts)


def _read_body(text: str, start: int) -> tuple[Json, int, ParseFailure | None]:
    """The value of the call whose opening tag ends at `start`, the call's end, and a structural failure, if any."""
    try:
        if not text.startswith(("{", "["), start):
            raise UnreadableError("no JSON object between the call's tags")
        value, position = read_json(text, start)
    except UnreadableError as error:
        return _read_literal(text, start, str(error))
    space = _SPACE.match(text, position)
    rest = space.end() if space else position
    if text.startswith(_CLOSE, rest):
        return value, rest + len(_CLOSE), None
    if _CLOSE.startswith(text[rest:]):  # cut off inside the closing tag, or before it
        return value, len(text), None
    end, _ = _find_close(text, rest)
    surplus = text[rest:end].removesuffix(_CLOSE).strip()
    return value, end, ParseFailure("structure", f"surplus text after the call: {surplus[:40]!r}")


def _read_literal(text: str, start: int, problem: str) -> tuple[Json, int, ParseFailure | None]:
    """Read a call that is not JSON: a Python literal that ends at one of the next closing tags, or a failure."""
    end, closed = _find_close(text, start)
    stops = [found.start() for found in islice(_CLOSING.finditer(text, start), _MAX_STOPS)]
    if literal := read_literal_call(text, start, stops or [end]):
        value, stop = literal
        return value, stop + len(_CLOSE) * closed, None
    is_content = closed and text.startswith(("{", "["), start)
    return {}, end, ParseFailure("content" if is_content else "structure", problem)


def _find_close(text: str, position: int) -> tuple[int, bool]:
    """The end of the next closing tag (or of the text), and whether there is such a tag."""
    found = text.find(_CLOSE, position)
    return (len(text), False) if found < 0 else (found + len(_CLOSE), True)


HERMES = CallFormat(
    "hermes",
    (),
    False,
    _write_system,
    _write_run,
    _write_results,
    with_thoughts(_parse),
    call_markers=("<tool_call>", _CLOSE),
    other_markers=("<tool_response>", "</tool_response>", "<tools>", "</tools>"),
    server_parser="hermes",
)
