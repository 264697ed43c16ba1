"""Conversation -> the messages of a chat template: a reply's text and calls, then a message for each result."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from agentft.calls.thoughts import is_thought, join_thoughts
from agentft.rendering.controls import strip_controls
from agentft.rendering.frame import Frame
from agentft.types import Conversation, Part, Text, ToolCall, ToolResult, Turn

__all__ = ["ChatMessage", "chat_messages"]


@dataclass(slots=True)
class ChatMessage:
    """A message. `excluded`: not supervised. `unreadable`: it has a call that could not be read."""

    role: str
    content: str
    calls: list[ToolCall] = field(default_factory=list)
    call_id: str = ""
    name: str = ""
    thought: str = ""
    excluded: bool = False
    unreadable: bool = False


def chat_messages(conversation: Conversation, frame: Frame, *, strict_ids: bool) -> list[ChatMessage]:
    """The messages; what the assistant says twice in a row is one.

    Args:
        frame: without a system role, the system text is put before the first user message.
        strict_ids: ids of calls that are not nine letters and digits are replaced.
    """
    merged: list[ChatMessage] = []
    for message in _messages(conversation, frame, strict_ids):
        if merged and merged[-1].role == message.role == "assistant" and not merged[-1].calls:
            last = merged[-1]
            last.content, last.calls = last.content + message.content, message.calls
            last.thought = "\n\n".join(filter(None, (last.thought, message.thought)))
            last.excluded, last.unreadable = last.excluded or message.excluded, last.unreadable or message.unreadable
        else:
            merged.append(message)
    return merged


def _messages(conversation: Conversation, frame: Frame, strict: bool) -> Iterator[ChatMessage]:
    ids: dict[str, tuple[str, str]] = {}  # id of a call -> the id and name that are written
    system = ""
    for turn in conversation.turns:
        if turn.role == "system":
            system = _persona(turn)
            if system and frame.has_system:
                yield ChatMessage("system", system)
        elif turn.role == "user":
            head = f"{system}\n\n" if system and not frame.has_system else ""
            system = ""
            yield ChatMessage("user", head + turn.raw)
        else:
            for injected, group in groupby(turn.parts, lambda part: isinstance(part, ToolResult)):
                if injected:
                    yield from _results([part for part in group if isinstance(part, ToolResult)], ids)
                    continue
                for message in _replies(list(group), turn, frame.controls):
                    for at, call in enumerate(message.calls):
                        kept = not strict or re.fullmatch("[A-Za-z0-9]{9}", call.id)
                        ids[call.id] = call.id if kept else f"call{len(ids):05}", call.name
                        message.calls[at] = replace(call, id=ids[call.id][0])
                    yield message


def _persona(turn: Turn) -> str:
    """The system text without declarations of tools."""
    text = "".join(part.text for part in turn.parts if isinstance(part, Text))
    return text if all(isinstance(part, Text) for part in turn.parts) else text.strip()


def _results(results: Sequence[ToolResult], ids: Mapping[str, tuple[str, str]]) -> Iterator[ChatMessage]:
    for result in results:
        if result.call_id in ids:
            identity, name = ids[result.call_id]
            yield ChatMessage("tool", result.content, call_id=identity, name=name)
        else:  # of a call that could not be read
            yield ChatMessage("user", result.content)


def _replies(parts: Sequence[Part], turn: Turn, controls: Sequence[str]) -> Iterator[ChatMessage]:
    """A run of the assistant's as messages: text after calls begins another one."""
    message = ChatMessage("assistant", "", thought=join_thoughts(parts), excluded=turn.excluded)
    for part in parts:
        if isinstance(part, ToolCall) and part.parse_error is None:
            message.calls.append(part)
            continue
        if is_thought(part):
            continue
        text = part.text if isinstance(part, Text) else turn.raw[part.span.start : part.span.end]
        if message.calls and text.strip():
            yield message
            message = ChatMessage("assistant", "", excluded=turn.excluded)
        if not message.calls:
            message.content += text
        message.unreadable |= isinstance(part, ToolCall)
    if not message.calls:
        message.content = strip_controls(message.content, controls)
    if message.calls or message.content.strip() or message.thought:
        yield message
