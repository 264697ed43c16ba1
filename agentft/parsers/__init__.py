"""Parsers: a row of a data file -> Conversation. To add one: a module here and a line in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

from agentft.errors import RowError
from agentft.parsers.msagent import parse_msagent
from agentft.parsers.openai import parse_openai
from agentft.parsers.tools import read_list
from agentft.types import Conversation, Json

__all__ = ["PARSERS", "Parser", "parse_row"]

Parser: TypeAlias = Callable[[Mapping[str, Json], str], Conversation]
"""(row, id for a row that has none) -> conversation; raises RowError."""

PARSERS: dict[str, Parser] = {"msagent": parse_msagent, "openai": parse_openai}


def parse_row(row: Mapping[str, Json], default_id: str) -> Conversation:
    """The conversation of a row; the parser is chosen by the row's keys.

    Raises:
        RowError: `unknown-format`, or what the parser found.
    """
    if "conversations" in row:
        turns = row["conversations"]
        if isinstance(turns, str):
            with suppress(RowError):  # parse_msagent says what is wrong with it
                turns = read_list(turns, "conversations", "no-turns")
        if isinstance(turns, list) and any(_calls_beside_content(turn) for turn in turns):
            return parse_openai({**row, "messages": turns}, default_id)
        return parse_msagent(row, default_id)
    if "messages" in row:
        messages = read_list(row["messages"], "messages", "no-turns")
        parse = parse_msagent if _holds_markers(messages or []) else parse_openai
        return parse({**row, "messages": messages}, default_id)
    keys = ", ".join(row) or "none"
    raise RowError("unknown-format", f"the row has neither `conversations` nor `messages`; its keys are {keys:.100}")


def _calls_beside_content(turn: Json) -> bool:
    """OpenAI's turns under MS-Agent's key: read as plain text, their calls would be lost."""
    return isinstance(turn, dict) and bool(turn.get("tool_calls") or turn.get("function_call"))


def _holds_markers(messages: Sequence[Json]) -> bool:
    """MS-Agent values in OpenAI's envelope: as plain text, their results would be learnt as if the model said them."""
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "assistant" and not message.get("tool_calls"):
            content = message.get("content")
            if isinstance(content, str) and ("<|startofthink|>" in content or "<|startofexec|>" in content):
                return True
    return False
