"""OpenAI-style records: `{"messages": [...], "tools": [...]}`. Calls are in `tool_calls`, results in separate turns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

from agentft.calls.reading import CallKeys, make_call
from agentft.calls.thoughts import add_thought, begin_thought, is_thought, join_thoughts, read_text
from agentft.errors import RowError
from agentft.records.keys import REASONING_KEYS, argument_key, as_text, read_excluded, read_reasoning
from agentft.records.links import RESULT_IDS, CallLinks, read_identity
from agentft.records.tools import has_calls, read_role, written_calls
from agentft.records.turns import text_of
from agentft.records.unread import unread_of_turn
from agentft.records.written import written_call
from agentft.types import Json, Part, Role, Span, Text, ToolCall, ToolDefinition, ToolResult, Turn

__all__ = ["OPENAI_KEYS", "holds_openai", "parse_openai"]

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_ROLES |= {"tool": "tool", "function": "tool"}
_KEYS = CallKeys()
_UNPLACED = Span(0, 0)
_THOUGHT_TYPES = ("thinking", "reasoning")
_THOUGHT_KEYS = (*_THOUGHT_TYPES, "text", "value")
_TEXT_KEYS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}

OPENAI_KEYS: dict[str, frozenset[str]] = {
    "": frozenset({"role", "content"}),
    "assistant": frozenset({"tool_calls", "function_call", "refusal", *REASONING_KEYS}),
    "tool": frozenset({*RESULT_IDS, "name", "tool_name", "is_error"}),
    "function": frozenset({*RESULT_IDS, "name", "tool_name", "is_error"}),
}
"""The keys of a message that are read, by role."""


def holds_openai(key: str, items: Sequence[Json]) -> bool:
    """Whether these are OpenAI messages: any turns under `messages`; under other keys, turns with `tool_calls`."""
    return key == "messages" or any(map(has_calls, items))


def parse_openai(items: Sequence[Json]) -> tuple[list[Turn], tuple[ToolDefinition, ...]]:
    """The turns of an OpenAI-style record; its turns declare no tools.

    `Turn.raw` of an assistant turn is its reasoning, its content and each call as `{"name":...,"arguments":...}`,
    joined. Unreadable arguments are not an error: the call gets a `parse_error`. The results of a step stand in the
    order of its calls.

    Raises:
        RowError: `turn-not-object`, `unknown-role`, `value-not-text`, `turn-order`, `turn-weight`, `call-not-object`,
            `result-without-call` or `call-without-result`, with the turn.
    """
    turns: list[Turn] = []
    numbers = count()
    step = CallLinks()
    for index, message in enumerate(items):
        try:
            if not isinstance(message, dict):
                raise RowError("turn-not-object", f"a message must be an object, not {message!r:.60}")
            role = read_role(message.get("role"), _ROLES)
            if role == "system" and turns:
                raise RowError("turn-order", "only the first message may be a system message")
            if role == "tool":
                _add_result(message, step, items[index - 1] if index else None)
                continue
            turns += step.close(reopen=role == "assistant")
            turn = _tile(role, _read_message(role, _move_calls(message), numbers))
            step.add(part for part in turn.parts if isinstance(part, ToolCall))
            turns.append(replace(turn, excluded=True) if role == "assistant" and read_excluded(message) else turn)
        except RowError as error:
            error.turn = index
            raise
    try:
        return turns + step.close(), ()
    except RowError as error:
        error.turn = len(items) - 1
        raise


def _tile(role: Role, texts_and_parts: Iterator[tuple[str, Part]]) -> Turn:
    """A turn whose `raw` is the parts' texts joined, so that the spans tile it by construction."""
    raw = ""
    parts: list[Part] = []
    for text, part in texts_and_parts:
        parts.append(replace(part, span=Span(len(raw), len(raw) + len(text))))
        raw += text
    return Turn(role, tuple(parts), raw)


def _move_calls(message: Mapping[str, Json]) -> Mapping[str, Json]:
    """The message with LLaMA-Factory's parts of the type `tool_call` in `tool_calls`, if it has none there."""
    content = message.get("content")
    parts = content if isinstance(content, list) and message.get("role") == "assistant" else []
    calls = [part for part in parts if isinstance(part, dict) and part.get("type") == "tool_call"]
    if not calls or written_calls(message):
        return message
    texts = [part for part in parts if part not in calls]
    return {**message, "content": texts, "tool_calls": [part.get("value") for part in calls]}


def _read_message(role: Role, message: Mapping[str, Json], numbers: Iterator[int]) -> Iterator[tuple[str, Part]]:
    """The parts of a message, each with its text. `_tile` sets their spans."""
    if role != "assistant":
        if text := _read_content(message.get("content")):
            yield text, Text(text, _UNPLACED)
        return
    reasoning, text = read_reasoning(message), _read_content(message.get("content") or message.get("refusal"))
    text = begin_thought(text, reasoning)
    spoken = read_text(text if text.strip() else "")
    if reasoning:
        block, spoken = (spoken[:1], spoken[1:]) if spoken and is_thought(spoken[0]) else ((), spoken)
        thought = join_thoughts([Text(reasoning, _UNPLACED, thought=True), *block])
        yield reasoning + text[: sum(part.span.end for part in block)], Text(thought, _UNPLACED, thought=True)
    yield from ((text[part.span.start : part.span.end], part) for part in spoken)
    for call in written_calls(message):
        if not isinstance(call, dict):
            raise RowError("call-not-object", f"a call must be an object, not {call!r:.60}")
        number = next(numbers)
        yield _read_call(call, read_identity(call.get("id")) or f"call_{number}")


def _read_call(call: Mapping[str, Json], identity: str) -> tuple[str, ToolCall]:
    function = call.get("function") or call
    if not isinstance(function, dict):
        raise RowError("call-not-object", f"a call's function must be an object, not {function!r:.60}")
    arguments, name = function.get(argument_key(function)), as_text(function.get("name"))
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = "{}"
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    text = f'{{"name":{json.dumps(name, ensure_ascii=False)},"arguments":{arguments}}}'
    return text, make_call(identity, {"name": name, "arguments": arguments}, _UNPLACED, _KEYS)


def _read_content(content: Json) -> str:
    """The text of a message whose content is text, null or a list of texts and thoughts, which are put first."""
    if isinstance(content, list):
        thoughts = [part for part in content if isinstance(part, dict) and part.get("type") in _THOUGHT_TYPES]
        text = "".join(_read_text_part(part) for part in content if part not in thoughts)
        for part in reversed(thoughts):
            given = [part[key] for key in _THOUGHT_KEYS if key in part]  # Arrow adds the others as nulls
            text = add_thought(text, _read_content(next(filter(None, given), "" if given else part)))
        return text
    if isinstance(content, str | None):
        return content or ""
    raise RowError("value-not-text", f"the content must be text, not {content!r:.60}")


def _read_text_part(part: Json) -> str:
    kind = str(part.get("type", "text")) if isinstance(part, dict) else ""
    text = part.get(_TEXT_KEYS.get(kind, "")) if isinstance(part, dict) else part
    text = part.get("value") if isinstance(part, dict) and text is None and kind in _TEXT_KEYS else text
    if isinstance(text, str):
        return text
    shown = part if kind in ("", *_TEXT_KEYS) else kind
    raise RowError("value-not-text", f"a part of the content is no text but {shown!r:.60}")


def _add_result(message: Mapping[str, Json], step: CallLinks, before: Json) -> None:
    """Add a tool's message to the step. `before`: the message before it.

    Raises:
        RowError: `result-without-call`, with the keys that may hold the call.
    """
    name = as_text(message.get("name") or message.get("tool_name"))
    given = [*filter(None, (read_identity(message.get(key)) for key in RESULT_IDS))]
    own = read_identity(message.get("id"))  # the message's, or the call's
    given += [call.id for call in step.open.values() if call.id == own]
    number = step.find(given[0] if given else "", name)
    if number is not None:
        others = ", ".join(unread_of_turn(message, OPENAI_KEYS))
        if message.get("content") is None and (others or "content" not in message):
            raise RowError("value-not-text", f"the result has no `content`; keys that are not read: {others or 'none'}")
        content = _read_result_text(message.get("content"))
        part = ToolResult(step.calls[number].id, content, _UNPLACED, message.get("is_error") is True)
        step.answer(number, _tile("tool", iter([(content, part)])))
        return
    pair = [one for one in (before, message) if isinstance(one, dict)]
    keys = [key for one in pair for key in (*unread_of_turn(one, OPENAI_KEYS), written_call(str(text_of(one)))) if key]
    unread = f"; keys that are not read: {', '.join(keys):.100}" if keys else ""
    raise RowError("result-without-call", f"{step.problem(message)}{unread}")


def _read_result_text(content: Json) -> str:
    """A result's text, which may have parts. Some exporters leave results as objects; these are dumped as JSON."""
    kinds = [isinstance(part, dict) and part.get("type") for part in content] if isinstance(content, list) else []
    is_text = content is None or isinstance(content, str) or (all(kinds) and any(kind in _TEXT_KEYS for kind in kinds))
    return _read_content(content) if is_text else json.dumps(content, ensure_ascii=False)
