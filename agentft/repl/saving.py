"""Saves chats as training data: each conversation becomes one MS-Agent row in a JSONL file."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from io import FileIO
from itertools import groupby
from pathlib import Path

from agentft.calls.msagent import MSAGENT
from agentft.errors import InputError
from agentft.types import Conversation, Json, Part, Span, Text, ToolCall, ToolResult, Turn

__all__ = ["append_line", "append_row", "check_place", "msagent_row", "replace_row"]


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
        raise InputError(f"--save {path}: this is a folder; name a file, for example {path / 'chats.jsonl'}")
    holder = path if path.exists() else path.parent
    if not holder.exists():
        raise InputError(f"--save {path}: the folder {holder} does not exist; create it, or name another file")
    if not os.access(holder, os.W_OK):
        raise InputError(f"--save {path}: permission denied; name another file")


def append_row(path: Path, conversation: Conversation) -> None:
    """Append the conversation to `path` atomically; safe with concurrent writers.

    Raises:
        OSError: the disk is full, or the file cannot be written; the file is unchanged.
    """
    append_line(path, json.dumps(msagent_row(conversation), ensure_ascii=False))


def append_line(path: Path, text: str) -> None:
    """Append a line to `path`, as `append_row` does."""
    with path.open("ab+", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        _append(stream, text)


def replace_row(path: Path, row: Mapping[str, Json]) -> None:
    """Put a row in place of the one with its id, or append it.

    Raises:
        OSError: as for `append_row`.
    """
    text = json.dumps(row, ensure_ascii=False)
    with path.open("ab+", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        lines = stream.readall().splitlines(keepends=True)
        start = json.dumps({"id": row["id"]}).encode()[:-1]  # rows of ours begin with their id
        others = [line for line in lines if not line.startswith(start)]
        if len(others) == len(lines):
            _append(stream, text)
            return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(b"".join([*others, text.encode(errors="replace"), b"\n"]))
    partial.replace(path)


def _append(stream: FileIO, text: str) -> None:
    line = text.encode(errors="replace") + b"\n"
    before = os.fstat(stream.fileno()).st_size
    if before:
        stream.seek(before - 1)
        line = line if stream.read(1) == b"\n" else b"\n" + line
    try:
        while line:
            line = line[os.write(stream.fileno(), line) :]
        os.fsync(stream.fileno())
    except OSError:
        os.ftruncate(stream.fileno(), before)
        raise


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
