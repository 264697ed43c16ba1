"""OpenAI-style records: `{"messages": [...], "tools": [...]}`. Calls are in `tool_calls`, results in separate turns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

from agentft.calls.reading import CallKeys, make_call
from agentft.errors import RowError
from agentft.records.tools import has_calls, read_list, read_role
from agentft.types import Json, Part, Role, Span, Text, ToolCall, ToolDefinition, ToolResult, Turn

__all__ = ["holds_openai", "parse_openai"]

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_ROLES |= {"tool": "tool", "function": "tool"}
_KEYS = CallKeys()
_UNPLACED = Span(0, 0)


def holds_openai(key: str, items: Sequence[Json]) -> bool:
    """Whether these are OpenAI messages: any turns under `messages`; under other keys, turns with `tool_calls`."""
    return key == "messages" or any(map(has_calls, items))


def parse_openai(items: Sequence[Json]) -> tuple[list[Turn], tuple[ToolDefinition, ...]]:
    """The turns of an OpenAI-style record; its turns declare no tools.

    `Turn.raw` of an assistant turn is its reasoning, its content and each call as `{"name":...,"arguments":...}`,
    joined. Unreadable arguments are not an error: the call gets a `parse_error`.

    Raises:
        RowError: `turn-not-object`, `unknown-role`, `value-not-text`, `turn-order` or `call-not-object`, with the turn.
    """
    turns: list[Turn] = []
    numbers = count()
    unanswered: list[str] = []  # ids of calls without a result so far
    for index, message in enumerate(items):
        try:
            if not isinstance(message, dict):
                raise RowError("turn-not-object", f"a message must be an object, not {message!r:.60}")
            role = read_role(message.get("role"), _ROLES)
            if role == "system" and turns:
                raise RowError("turn-order", "only the first message may be a system message")
            turns.append(_tile(role, _read_message(role, message, numbers, unanswered)))
        except RowError as error:
            error.turn = index
            raise
    return turns, ()


def _tile(role: Role, texts_and_parts: Iterator[tuple[str, Part]]) -> Turn:
    """A turn whose `raw` is the parts' texts joined, so that the spans tile it by construction."""
    raw = ""
    parts: list[Part] = []
    for text, part in texts_and_parts:
        parts.append(replace(part, span=Span(len(raw), len(raw) + len(text))))
        raw += text
    return Turn(role, tuple(parts), raw)


def _read_message(
    role: Role, message: Mapping[str, Json], numbers: Iterator[int], unanswered: list[str]
) -> Iterator[tuple[str, Part]]:
    """The parts of a message, each with its text. `_tile` sets their spans."""
    if role == "tool":
        content = _read_result(message.get("content"))
        # A result without a call id answers the earliest unanswered call.
        call_id = _text_or_empty(message.get("tool_call_id")) or next(iter(unanswered), "")
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
        unanswered.append(_text_or_empty(call.get("id")) or f"call_{number}")
        yield _read_call(call, unanswered[-1])


def _read_call(call: Mapping[str, Json], identity: str) -> tuple[str, ToolCall]:
    function = call.get("function", call)
    if not isinstance(function, dict):
        raise RowError("call-not-object", f"a call's function must be an object, not {function!r:.60}")
    arguments, name = function.get("arguments"), _text_or_empty(function.get("name"))
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = "{}"
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    text = f'{{"name":{json.dumps(name, ensure_ascii=False)},"arguments":{arguments}}}'
    return text, make_call(identity, function, _UNPLACED, _KEYS)


def _text_or_empty(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _read_text(content: Json, *, thought: bool = False) -> Iterator[tuple[str, Text]]:
    """A Text, or nothing if it is empty."""
    text = _read_content(content)
    if text:
        yield text, Text(text, _UNPLACED, thought)


def _read_content(content: Json) -> str:
    """The text of a message whose content is text, null or a list of text parts."""
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
    """A result's text. Some exporters leave results as objects; these are dumped as JSON."""
    texts = isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    if content is None or isinstance(content, str) or (texts and content):
        return _read_content(content)
    return json.dumps(content, ensure_ascii=False)
