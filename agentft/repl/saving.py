"""Saves chats as training data: each conversation becomes one MS-Agent row in a JSONL file."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from agentft.calls.msagent import MSAGENT
from agentft.errors import InputError
from agentft.files import atomic_write, is_at
from agentft.types import Conversation, Json, Part, Span, Text, ToolCall, ToolResult, Turn

__all__ = ["check_place", "msagent_row", "replace_row"]


def msagent_row(conversation: Conversation) -> dict[str, Json]:
    """The conversation as an MS-Agent row; consecutive assistant and tool turns become one assistant value."""
    persona = next((turn.raw for turn in conversation.turns if turn.role == "system"), "")
    values: list[Json] = [{"from": "system", "value": MSAGENT.write_system(persona, conversation.tools)}]
    turns = [turn for turn in conversation.turns if turn.role != "system"]
    for is_user, group in groupby(turns, key=lambda turn: turn.role == "user"):
        if is_user:
            values += [{"from": "user", "value": turn.raw} for turn in group]
        else:
            values.append({"from": "assistant", "value": "".join(_value(turn, conversation) for turn in group)})
    return {"id": conversation.id, "conversations": values}


def check_place(path: Path) -> None:
    """Check that a chat can be saved to `path`.

    Raises:
        InputError: `path` is a folder, or cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; name a file, for example {path / 'chats.jsonl'}")
    holder = path if path.exists() else path.parent
    if not holder.exists():
        raise InputError(f"{path}: the folder {holder} does not exist; create it, or name another file")
    if not os.access(holder, os.W_OK):
        raise InputError(f"{path}: permission denied; name another file")


def replace_row(path: Path, row: Mapping[str, Json]) -> None:
    """Put a row in place of the one with its id, or append it, atomically; safe with concurrent writers.

    Raises:
        OSError: the disk is full, or the file cannot be written; the file is unchanged.
    """
    text = json.dumps(row, ensure_ascii=False).encode(errors="replace")
    start = json.dumps({"id": row["id"]}).encode()[:-1]  # rows of ours begin with their id
    place = path.resolve()
    while True:
        with place.open("ab+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if is_at(stream, place):  # no other writer has put a new file in its place
                others = [line for line in place.read_bytes().splitlines() if not line.startswith(start)]
                with atomic_write(place) as out:
                    out.buffer.write(b"\n".join([*others, text, b""]))
                return


def _value(turn: Turn, conversation: Conversation) -> str:
    """One assistant or tool turn as part of an MS-Agent value."""
    if turn.role == "tool":
        return MSAGENT.write_results([part for part in turn.parts if isinstance(part, ToolResult)])
    thinks = any(isinstance(part, Text) and part.thought for part in turn.parts)
    if conversation.source == MSAGENT.name and not (thinks and "<think>" not in turn.raw):  # if the prompt has it
        return turn.raw
    return MSAGENT.write_parts([_readable(part, turn, conversation) for part in turn.parts])


def _readable(part: Part, turn: Turn, conversation: Conversation) -> Part:
    """A call with its endpoint, which MS-Agent calls need; an unreadable call becomes text."""
    if not isinstance(part, ToolCall):
        return part
    if part.parse_error is not None:
        text = turn.raw[part.span.start : part.span.end]
        return Text(text, Span(0, len(text)))
    endpoints = next((tool.endpoints for tool in conversation.tools if tool.name == part.name), ())
    endpoint = part.endpoint or (endpoints[0] if endpoints else None)
    return ToolCall(part.id, part.name, part.arguments, part.span, endpoint=endpoint)
