"""Parsers: a row of a data file -> Conversation. To add one, write a module here and add a line to the table."""

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
"""A row's list of turns -> typed turns, and the tools that they declare; raises RowError."""

PARSERS: dict[str, Parser] = {"msagent": parse_msagent, "openai": parse_openai}


def parse_row(row: Mapping[str, Json], default_id: str) -> Conversation:
    """Parse a row, choosing the parser by its keys and contents. A row without an id gets `default_id`.

    Raises:
        RowError: `unknown-format`, `no-turns`, `no-assistant`, `unreadable-tools`, or an error of the parser.
    """
    key = next((key for key in ("conversations", "messages") if key in row), None)
    if key is None:
        keys = ", ".join(row) or "none"
        detail = f"the row has neither `conversations` nor `messages`; its keys are {keys:.100}"
        raise RowError("unknown-format", detail)
    items = read_list(row[key], key, "no-turns")
    if not items:
        raise RowError("no-turns", f"`{key}` has no turns")
    is_openai = any(map(_has_tool_calls, items)) if key == "conversations" else not any(map(_has_markers, items))
    source = "openai" if is_openai else "msagent"
    turns, tools = PARSERS[source](items)
    tools = tools or read_tools(row)
    if not any(turn.role == "assistant" for turn in turns):
        raise RowError("no-assistant", "there is no assistant turn, so nothing could be supervised")
    identity = row.get("id")
    named = isinstance(identity, str | int) and not isinstance(identity, bool) and identity != ""
    return Conversation(str(identity) if named else default_id, tuple(turns), tools, source)


def _has_tool_calls(turn: Json) -> bool:
    """Whether an OpenAI turn is under MS-Agent's key. Parsed as MS-Agent, it would lose its calls."""
    return isinstance(turn, dict) and bool(turn.get("tool_calls") or turn.get("function_call"))


def _has_markers(turn: Json) -> bool:
    """Whether a message holds an MS-Agent value. Parsed as plain text, its tool results would be supervised."""
    if not isinstance(turn, dict) or turn.get("role") != "assistant" or turn.get("tool_calls"):
        return False
    content = turn.get("content")
    return isinstance(content, str) and ("<|startofthink|>" in content or "<|startofexec|>" in content)
