"""OpenAI-style records: `{"messages": [...], "tools": [...]}`, with calls beside the content and results in turns of
their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

from agentft.calls.reading import CallKeys, make_call
from agentft.errors import RowError
from agentft.records.tools import read_list, read_role
from agentft.types import Json, Part, Role, Span, Text, ToolCall, ToolDefinition, ToolResult, Turn

__all__ = ["parse_openai"]

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_ROLES |= {"tool": "tool", "function": "tool"}
_KEYS = CallKeys()
_UNPLACED = Span(0, 0)


def parse_openai(items: Sequence[Json]) -> tuple[list[Turn], tuple[ToolDefinition, ...]]:
    """The turns of an OpenAI-style record; they declare no tools.

    `Turn.raw` of an assistant's turn is its reasoning, its content and the text of each call
    (`{"name":...,"arguments":...}`), joined. Arguments that no reader understands are data (`ToolCall.parse_error`).

    Raises:
        RowError: `turn-not-object`, `unknown-role`, `value-not-text`, `turn-order` or `call-not-object`, with the turn.
    """
    turns: list[Turn] = []
    numbers = count()
    unanswered: list[str] = []  # ids of calls that have no result yet
    for index, message in enumerate(items):
        try:
            if not isinstance(message, dict):
                raise RowError("turn-not-object", f"a message must be an object, not {message!r:.60}")
            role = read_role(message.get("role"), _ROLES)
            if role == "system" and turns:
                raise RowError("turn-order", "a system message that is not the first")
            turns.append(_tile(role, _read_message(role, message, numbers, unanswered)))
        except RowError as error:
            error.turn = index
            raise
    return turns, ()


def _tile(role: Role, said: Iterator[tuple[str, Part]]) -> Turn:
    """The turn of parts that come with their texts, so that spans tile `raw` by construction."""
    raw = ""
    parts: list[Part] = []
    for text, part in said:
        parts.append(replace(part, span=Span(len(raw), len(raw) + len(text))))
        raw += text
    return Turn(role, tuple(parts), raw)


def _read_message(
    role: Role, message: Mapping[str, Json], numbers: Iterator[int], unanswered: list[str]
) -> Iterator[tuple[str, Part]]:
    """The parts of a message, each with its text; their spans are still to be found."""
    if role == "tool":
        content = _read_result(message.get("content"))
        # A result that names no call answers the earliest that has none.
        call_id = _given(message.get("tool_call_id")) or next(iter(unanswered), "")
        if call_id in unanswered:
            unanswered.remove(call_id)
        yield content, ToolResult(call_id, content, _UNPLACED, message.get("is_error") is True)
        return
    if role != "assistant":
        yield from _read_text(message.get("content"))
        return
    yield from _read_text(message.get("reasoning_content") or message.get("reasoning") or None, thought=True)
    yield from _read_text(message.get("content") or message.get("refusal"))
    listed = read_list(message.get("tool_calls"), "tool_calls", "call-not-object") or []
    legacy = message.get("function_call")
    for call in listed if legacy is None else [*listed, legacy]:
        if not isinstance(call, dict):
            raise RowError("call-not-object", f"a call must be an object, not {call!r:.60}")
        number = next(numbers)
        unanswered.append(_given(call.get("id")) or f"call_{number}")
        yield _read_call(call, unanswered[-1])


def _read_call(call: Mapping[str, Json], identity: str) -> tuple[str, ToolCall]:
    function = call.get("function", call)
    if not isinstance(function, dict):
        raise RowError("call-not-object", f"a call's function must be an object, not {function!r:.60}")
    given, name = function.get("arguments"), _given(function.get("name"))
    if given is None or (isinstance(given, str) and not given.strip()):
        given = "{}"
    written = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, separators=(",", ":"))
    text = f'{{"name":{json.dumps(name, ensure_ascii=False)},"arguments":{written}}}'
    return text, make_call(identity, function, _UNPLACED, _KEYS)


def _given(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _read_text(content: Json, *, thought: bool = False) -> Iterator[tuple[str, Text]]:
    """A Text, unless it is empty."""
    text = _read_content(content)
    if text:
        yield text, Text(text, _UNPLACED, thought)


def _read_content(content: Json) -> str:
    """The text of a message: text, nothing, or a list of text parts."""
    if isinstance(content, list):
        return "".join(_read_text_part(part) for part in content)
    if isinstance(content, str | None):
        return content or ""
    raise RowError("value-not-text", f"the content must be text, not {content!r:.60}")


def _read_text_part(part: Json) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part
    if isinstance(text, str):
        return text
    raise RowError("value-not-text", f"only text parts are supported, not {part!r:.60}")


def _read_result(content: Json) -> str:
    """A result's text; an object that some exporters leave undumped is written as JSON."""
    texts = isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    if content is None or isinstance(content, str) or (texts and content):
        return _read_content(content)
    return json.dumps(content, ensure_ascii=False)
