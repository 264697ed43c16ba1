"""Row formats: a row of a data file -> Conversation. To add one, write a module here and add a line to the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from agentft.errors import RowError
from agentft.records.keys import is_blank
from agentft.records.links import read_identity
from agentft.records.msagent import MSAGENT_KEYS, holds_msagent, parse_msagent
from agentft.records.nulls import check_null_arguments
from agentft.records.openai import OPENAI_KEYS, holds_openai, parse_openai
from agentft.records.sharegpt import SHAREGPT_KEYS, holds_sharegpt, parse_sharegpt
from agentft.records.tagged import TAGGED_KEYS, holds_tagged, parse_tagged
from agentft.records.tools import read_list, read_tools, tools_key
from agentft.records.turns import SYSTEM_ROLES, role_of, text_of
from agentft.records.unread import unread_keys
from agentft.records.written import written_calls_of
from agentft.types import Conversation, Json, ToolDefinition, Turn

__all__ = ["ROW_FORMATS", "Parser", "RowFormat", "parse_row"]

Parser: TypeAlias = Callable[[Sequence[Json]], tuple[list[Turn], tuple[ToolDefinition, ...]]]
"""The items of a row's list of turns -> turns, and the tools that they declare; raises RowError."""


@dataclass(frozen=True, slots=True)
class RowFormat:
    """A format of rows.

    `keys`: keys of a row that may contain its turns. `holds(key, items)`: whether the items under `key` are in this
    format. `parse`: parses them. `turn_keys`: the keys of a turn that `parse` reads, by role (`""`: of every role).
    """

    keys: tuple[str, ...]
    holds: Callable[[str, Sequence[Json]], bool]
    parse: Parser
    turn_keys: Mapping[str, frozenset[str]] = field(default_factory=dict)


# The first format that recognises a row reads it.
ROW_FORMATS: dict[str, RowFormat] = {
    "sharegpt": RowFormat(("conversations", "messages"), holds_sharegpt, parse_sharegpt, SHAREGPT_KEYS),
    "tagged": RowFormat(("conversations", "messages"), holds_tagged, parse_tagged, TAGGED_KEYS),
    "msagent": RowFormat(("conversations", "messages"), holds_msagent, parse_msagent, MSAGENT_KEYS),
    "openai": RowFormat(("messages", "conversations"), holds_openai, parse_openai, OPENAI_KEYS),
}


def parse_row(row: Mapping[str, Json], default_id: str) -> Conversation:
    """Parse a row, recognising its format by its keys and turns. A row without an id gets `default_id`.

    Raises:
        RowError: `unknown-format`, `no-turns`, `no-assistant`, `unreadable-tools`, or an error of the parser.
    """
    keys = dict.fromkeys(key for row_format in ROW_FORMATS.values() for key in row_format.keys)
    key = next((key for key in keys if key in row), None)
    if key is None:
        wanted = " nor ".join(f"`{key}`" for key in keys)
        raise RowError("unknown-format", f"the row has neither {wanted}; its keys are {', '.join(row) or 'none':.100}")
    items = read_list(row[key], key, "no-turns")
    if not items:
        raise RowError("no-turns", f"`{key}` has no turns")
    source = next((name for name, row_format in ROW_FORMATS.items() if row_format.holds(key, items)), None)
    if source is None:
        raise RowError("unknown-format", f"the turns of `{key}` have none of the formats {', '.join(ROW_FORMATS)}")
    first = items[0] if isinstance(items[0], dict) and role_of(items[0]) in SYSTEM_ROLES else {}
    turns, declared = _parse_turns(ROW_FORMATS[source].parse, items, row.get("system"), first)
    lists = {"": declared, "tools": read_tools(row), f"system.{tools_key(first)}": read_tools(first)}
    tools = next(filter(None, lists.values()), ())
    unread = (*unread_keys(row, key, items, ROW_FORMATS[source].turn_keys), *written_calls_of(turns))
    unread += tuple(name for name, listed in lists.items() if listed and listed != tools)
    check_null_arguments(items, turns, tools)
    if not any(turn.role == "assistant" for turn in turns):
        raise RowError("no-assistant", "there is no assistant turn, so nothing could be supervised")
    inserted = len(turns) - len(items)
    return Conversation(read_identity(row.get("id")) or default_id, tuple(turns), tools, source, unread, inserted)


def _parse_turns(
    parse: Parser, items: Sequence[Json], system: Json, first: Mapping[str, Json]
) -> tuple[list[Turn], tuple[ToolDefinition, ...]]:
    """The turns; the row's own `system` text becomes the first one. `first`: the system turn, if there is one.

    Raises:
        RowError: `system-twice`: the first turn is another system text; or an error of the parser.
    """
    if is_blank(system) or (first and text_of(first) == system):
        return parse(items)
    if first:
        raise RowError("system-twice", f"`system` is {system!r:.60}, the system turn {text_of(first)!r:.60}", turn=0)
    try:
        return parse([{"role": "system", "content": system}, *items])
    except RowError as error:
        error.turn = error.turn - 1 if error.turn else None
        raise
