"""MS-Agent records: `{"id", "conversations": [{"from", "value"}]}`. Tools, calls and results are inside the values."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentft.calls.msagent import MSAGENT
from agentft.errors import RowError
from agentft.records.declarations import parse_system
from agentft.records.keys import REASONING_KEYS, as_text, read_excluded
from agentft.records.tools import has_calls
from agentft.records.turns import read_text_turn
from agentft.types import Json, Part, Role, Span, Text, ToolCall, ToolDefinition, ToolResult, Turn

__all__ = ["MSAGENT_KEYS", "holds_msagent", "parse_msagent"]

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "human": "user"}
_ROLES |= {"assistant": "assistant", "gpt": "assistant"}
MSAGENT_KEYS: dict[str, frozenset[str]] = {
    "": frozenset({"from", "value", "role", "content"}),
    "assistant": frozenset(REASONING_KEYS),
    "gpt": frozenset(REASONING_KEYS),
}
"""The keys of a turn that are read, by role."""

_SWALLOWED = "<|user|>:"
_REACT = re.compile(r"^[ \t]*Action[ \t]*[:：][^\n]*\n\s*Action Input[ \t]*[:：]", re.MULTILINE)


def holds_msagent(key: str, items: Sequence[Json]) -> bool:
    """Whether these are MS-Agent turns: under `conversations`, turns without OpenAI's `tool_calls`; under `messages`,
    turns with `from`, or whose content has MS-Agent's markers. (As plain text, tool results would be supervised.)
    """
    return not any(map(has_calls, items)) if key == "conversations" else any(map(_is_msagent, items))


def _is_msagent(turn: Json) -> bool:
    if not isinstance(turn, dict) or turn.get("role", "assistant") != "assistant" or has_calls(turn):
        return False
    if "role" not in turn:
        return "from" in turn
    return any(start in as_text(turn.get("content")) for start in ("<|startofthink|>", "<|startofexec|>"))


def parse_msagent(items: Sequence[Json]) -> tuple[list[Turn], tuple[ToolDefinition, ...]]:
    """The turns of an MS-Agent record (`from`/`value` or `role`/`content`), and the tools declared in its system value.

    Raises:
        RowError: `turn-not-object`, `unknown-role`, `value-not-text`, `turn-order`, `turn-weight`,
            `swallowed-dialogue`, `react-dialogue`, `result-without-call` or `unreadable-tools`, with the turn and, if
            known, the offset.
    """
    turns: list[Turn] = []
    tools: tuple[ToolDefinition, ...] = ()
    for index, item in enumerate(items):
        try:
            role, value = read_text_turn(item, _ROLES)
            if role == "system" and turns:
                raise RowError("turn-order", "only the first turn may be a system turn")
            if turns and turns[-1].role == role:
                raise RowError("turn-order", f"two {role} turns in a row")
            parts: tuple[Part, ...] = (Text(value, Span(0, len(value))),) if value else ()
            if role == "system":
                if _SWALLOWED in value:
                    detail = f"the system value contains a dialogue ({_SWALLOWED!r})"
                    raise RowError("swallowed-dialogue", detail, offset=value.index(_SWALLOWED))
                parts, tools = parse_system(value)
            elif role == "assistant":
                _reject_react(value)
                parts = MSAGENT.parse(value)
                _check_links(parts)
            excluded = role == "assistant" and isinstance(item, dict) and read_excluded(item)
        except RowError as error:
            error.turn = index
            raise
        turns.append(Turn(role, parts, value, excluded))
    return turns, tools


def _check_links(parts: Sequence[Part]) -> None:
    for part in parts:
        if isinstance(part, ToolResult) and not part.call_id:
            raise RowError("result-without-call", "a result, but no call is open", offset=part.span.start)
        if isinstance(part, ToolCall) and part.parse_error and part.parse_error.detail.startswith("`"):
            detail = f"the call {part.name!r:.60} has {part.parse_error.detail}; rename it"
            raise RowError("call-not-object", detail, offset=part.span.start)


def _reject_react(value: str) -> None:
    found = _REACT.search(value) if "Action Input" in value and "<|startof" not in value else None
    if found:
        detail = "a ReAct call (Action: / Action Input:) instead of call markers"
        raise RowError("react-dialogue", detail, offset=found.start())
