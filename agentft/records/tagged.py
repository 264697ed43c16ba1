"""Rows whose turns are text with the tags of Hermes: `<tools>`, `<tool_call>` and `<tool_response>`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from agentft.calls.hermes import HERMES
from agentft.errors import RowError
from agentft.json_text import UnreadableError, read_value
from agentft.records.declarations import around
from agentft.records.keys import REASONING_KEYS, as_text, read_excluded
from agentft.records.links import CallLinks
from agentft.records.tools import has_calls, read_tools
from agentft.records.turns import read_text_turn, role_of, text_of
from agentft.types import Json, Part, Role, Span, Text, ToolCall, ToolDefinition, ToolResult, Turn

__all__ = ["TAGGED_KEYS", "holds_tagged", "parse_tagged"]

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "human": "user", "assistant": "assistant"}
_ROLES |= {"gpt": "assistant", "tool": "tool", "function": "tool"}
_TOOLS = re.compile(r"<tools>([^<]*+(?:<(?!/?tools>)[^<]*+)*+)</tools>")
_INSTRUCTION = re.compile(r"^# Tools\b|You are a function calling AI model", re.MULTILINE)
_LINE = re.compile(r"^.*<tools>", re.MULTILINE)
_END = re.compile(r".*</(?:tools|tool_call)>", re.DOTALL)
_RESULT = re.compile(r"<tool_response>([^<]*+(?:<(?!/?tool_response>)[^<]*+)*+)</tool_response>")
_CALL = "<tool_call>"

TAGGED_KEYS: dict[str, frozenset[str]] = {
    "": frozenset({"role", "content", "from", "value"}),
    **dict.fromkeys(("assistant", "gpt"), frozenset(REASONING_KEYS)),
}
"""The keys of a turn that are read, by role."""


def holds_tagged(_: str, items: Sequence[Json]) -> bool:
    """Whether an assistant's text holds a tagged call, and no turn calls in another way."""
    texts = [text_of(item) for item in items if isinstance(item, dict) and role_of(item) in ("gpt", "assistant")]
    return any(_CALL in as_text(text) for text in texts) and not any(map(has_calls, items))


def parse_tagged(items: Sequence[Json]) -> tuple[list[Turn], tuple[ToolDefinition, ...]]:
    """The turns, and the tools that the system text declares. Instructions around the declarations are left out.

    A turn of results may have the role `user`; it holds a result for each call, by name or in order.

    Raises:
        RowError: `turn-not-object`, `unknown-role`, `value-not-text`, `turn-order`, `turn-weight`, `unreadable-tools`,
            `result-without-call` or `call-without-result`, with the turn.
    """
    turns: list[Turn] = []
    tools: tuple[ToolDefinition, ...] = ()
    numbers, step = count(), CallLinks()
    for index, item in enumerate(items):
        try:
            role, text = read_text_turn(item, _ROLES)
            text = text.strip() if role == "assistant" else text
            role = "tool" if role == "user" and text.lstrip().startswith("<tool_response>") else role
            parts: tuple[Part, ...] = (Text(text, Span(0, len(text))),) if text else ()
            if role != "tool":
                step.close(reopen=role == "assistant")
            if role == "system":
                if turns:
                    raise RowError("turn-order", "only the first turn may be a system turn")
                parts, tools = _read_system(text)
            elif role == "tool":
                parts = tuple(_read_results(text, step))
            elif role == "assistant":
                made = HERMES.parse(text)
                parts = tuple(replace(p, id=f"call_{next(numbers)}") if isinstance(p, ToolCall) else p for p in made)
                step.add(part for part in parts if isinstance(part, ToolCall))
            excluded = role == "assistant" and isinstance(item, dict) and read_excluded(item)
        except RowError as error:
            error.turn = index
            raise
        turns.append(Turn(role, parts, text, excluded))
    return turns, tools


def _read_system(text: str) -> tuple[tuple[Part, ...], tuple[ToolDefinition, ...]]:
    """The persona, the declarations with their instructions, and any text after them; the tools."""
    listed = [tool for block in _TOOLS.finditer(text) for tool in _read_declared(block[1])]
    begun, ended = _INSTRUCTION.search(text) or _LINE.search(text), _END.match(text)
    if not (listed and begun and ended):
        return around(text, 0, 0), ()
    start = begun.start() if text[: begun.start()].strip() else 0
    end = ended.end() if text[ended.end() :].strip() else len(text)
    return around(text, start, end), read_tools({"tools": listed})


def _read_declared(text: str) -> list[Json]:
    """The tools of one block: a list, as JSON or as a Python literal, or one object per line."""
    try:
        listed = (
            read_value(text)
            if text.lstrip().startswith("[")
            else list(map(read_value, filter(None, text.strip().split("\n"))))
        )
    except UnreadableError as error:
        raise RowError("unreadable-tools", f"the text in <tools> is unreadable: {error}") from None
    return listed if isinstance(listed, list) else [listed]


def _read_results(text: str, step: CallLinks) -> Iterator[ToolResult]:
    """The results in a turn's text, whose spans tile it."""
    blocks = list(_RESULT.finditer(text))
    ends = [block.end() for block in blocks[:-1]]
    bodies = [block[1].strip() for block in blocks] or [text]
    for body, start, end in zip(bodies, [0, *ends], [*ends, len(text)], strict=True):
        name, content = _read_result(body)
        number = step.find("", name)
        if number is None:
            raise RowError("result-without-call", step.problem({"name": name}))
        step.answer(number, Turn("tool", (), ""))
        yield ToolResult(step.calls[number].id, content, Span(start, end))


def _read_result(body: str) -> tuple[str, str]:
    """The tool's name, if the result has one, and the content: `{"name": ..., "content": ...}`, or all of it."""
    try:
        value = read_value(body)
    except UnreadableError:
        return "", body
    if not (isinstance(value, dict) and {*value} == {"name", "content"}):
        return "", body
    content = value["content"]
    return as_text(value["name"]), content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
