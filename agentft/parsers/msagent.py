"""MS-Agent records: `{"id", "conversations": [{"from", "value"}]}`, with tools, calls and results inside the values."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agentft.errors import RowError
from agentft.formats.msagent_grammar import parse_parts
from agentft.parsers.declarations import parse_system
from agentft.parsers.tools import conversation_of, read_list, read_role, read_tools
from agentft.types import Conversation, Json, Role, Span, Text, ToolDefinition, Turn

__all__ = ["parse_msagent"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_SWALLOWED = "<|user|>:"
_REACT = re.compile(r"^[ \t]*Action[ \t]*[:：][^\n]*\n\s*Action Input[ \t]*[:：]", re.MULTILINE)


def parse_msagent(row: Mapping[str, Json], default_id: str) -> Conversation:
    """An MS-Agent record as a conversation.

    Args:
        row: `conversations` (or `messages`) is a list, or the text of one (JSON or a Python literal), of turns with
            `from`/`value` or `role`/`content`.
        default_id: used for a row without an id.

    Raises:
        RowError: `no-turns`, `turn-not-object`, `unknown-role`, `value-not-text`, `turn-order`, `no-assistant`,
            `swallowed-dialogue`, `react-dialogue` or `unreadable-tools`, with the turn and, where known, the character.
    """
    turns: list[Turn] = []
    tools: tuple[ToolDefinition, ...] = ()
    values = read_list(row.get("conversations", row.get("messages")), "conversations", "no-turns")
    if not values:
        raise RowError("no-turns", "`conversations` has no turns")
    for index, item in enumerate(values):
        try:
            role, value = _read_turn(item)
        except RowError as error:
            raise RowError(error.reason, error.detail, turn=index) from None
        _check_order(turns, role, index)
        if role == "system":
            turn, tools = _read_system(value, index)
        elif role == "assistant":
            _refuse_react(value, index)
            turn = Turn(role, parse_parts(value), value)
        else:
            turn = Turn(role, (Text(value, Span(0, len(value))),) if value else (), value)
        turns.append(turn)
    return conversation_of(row, default_id, turns, tools or read_tools(row), "msagent")


def _read_turn(item: Json) -> tuple[Role, str]:
    if not isinstance(item, dict):
        raise RowError("turn-not-object", f"a turn must be an object, not {item!r:.60}")
    role = read_role(item.get("from", item.get("role")), _ROLES)
    value = item.get("value", item.get("content"))
    if not isinstance(value, str):
        raise RowError("value-not-text", f"the value must be text, not {value!r:.60}")
    return role, value


def _check_order(turns: list[Turn], role: Role, index: int) -> None:
    if role == "system" and turns:
        raise RowError("turn-order", "a system turn that is not the first", turn=index)
    if turns and turns[-1].role == role:
        raise RowError("turn-order", f"two turns of the {role} in a row", turn=index)


def _read_system(value: str, index: int) -> tuple[Turn, tuple[ToolDefinition, ...]]:
    place = value.find(_SWALLOWED)
    if place >= 0:
        detail = f"the system value holds a dialogue ({_SWALLOWED!r})"
        raise RowError("swallowed-dialogue", detail, turn=index, offset=place)
    try:
        parts, tools = parse_system(value)
    except RowError as error:
        raise RowError(error.reason, error.detail, turn=index, offset=error.offset) from None
    return Turn("system", parts, value), tools


def _refuse_react(value: str, index: int) -> None:
    if "Action Input" in value and "<|startof" not in value:
        found = _REACT.search(value)
        if found:
            detail = "a ReAct rewrite (Action: / Action Input:) without call markers"
            raise RowError("react-dialogue", detail, turn=index, offset=found.start())
