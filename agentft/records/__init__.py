"""Parsers: a row of a data file -> Conversation. To add one: a module here and a line in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from agentft.errors import RowError
from agentft.records.msagent import parse_msagent
from agentft.records.openai import parse_openai
from agentft.records.tools import read_list, read_tools
from agentft.types import Conversation, Json, ToolDefinition, Turn

__all__ = ["PARSERS", "Parser", "parse_row"]

Parser: TypeAlias = Callable[[Sequence[Json]], tuple[list[Turn], tuple[ToolDefinition, ...]]]
"""A row's turns as they are written -> turns, and the tools that they declare; raises RowError."""

PARSERS: dict[str, Parser] = {"msagent": parse_msagent, "openai": parse_openai}


def parse_row(row: Mapping[str, Json], default_id: str) -> Conversation:
    """The conversation of a row, under the row's id if it has one. The parser is chosen by the row's keys and contents.

    Raises:
        RowError: `unknown-format`, `no-turns`, `no-assistant`, `unreadable-tools`, or what the parser found.
    """
    key = next((key for key in ("conversations", "messages") if key in row), None)
    if key is None:
        keys = ", ".join(row) or "none"
        detail = f"the row has neither `conversations` nor `messages`; its keys are {keys:.100}"
        raise RowError("unknown-format", detail)
    items = read_list(row[key], key, "no-turns")
    if not items:
        raise RowError("no-turns", f"`{key}` has no turns")
    beside = any(map(_calls_beside_content, items)) if key == "conversations" else not any(map(_holds_markers, items))
    source = "openai" if beside else "msagent"
    turns, tools = PARSERS[source](items)
    tools = tools or read_tools(row)
    if not any(turn.role == "assistant" for turn in turns):
        raise RowError("no-assistant", "no turn of the assistant, so there is nothing to learn")
    identity = row.get("id")
    named = isinstance(identity, str | int) and not isinstance(identity, bool) and identity != ""
    return Conversation(str(identity) if named else default_id, tuple(turns), tools, source)


def _calls_beside_content(turn: Json) -> bool:
    """OpenAI's turns under MS-Agent's key: read as plain text, their calls would be lost."""
    return isinstance(turn, dict) and bool(turn.get("tool_calls") or turn.get("function_call"))


def _holds_markers(turn: Json) -> bool:
    """MS-Agent values in OpenAI's envelope: as plain text, their results would be learnt as if the model said them."""
    if not isinstance(turn, dict) or turn.get("role") != "assistant" or turn.get("tool_calls"):
        return False
    content = turn.get("content")
    return isinstance(content, str) and ("<|startofthink|>" in content or "<|startofexec|>" in content)
