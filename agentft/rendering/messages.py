"""Conversation -> the messages of a chat template: a reply's text and calls, then a message for each result."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, groupby

from agentft.calls.thoughts import is_thought, join_thoughts
from agentft.rendering.controls import strip_controls
from agentft.rendering.frame import Frame
from agentft.types import Conversation, Part, Span, Text, ToolCall, ToolResult, Turn

__all__ = ["ChatMessage", "chat_messages", "joined_turns"]


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


def joined_turns(turns: Sequence[Turn], *, weighted: bool) -> Iterator[Turn]:
    """The turns; what the assistant says in several turns in a row is one reply.

    `weighted`: only in turns that are all supervised, or all not. If not, one that is not supervised excludes the rest.
    """
    for (role, _), group in groupby(turns, lambda turn: (turn.role, weighted and turn.excluded)):
        several = list(group)
        yield from [_join(several)] if role == "assistant" and len(several) > 1 else several


def _join(turns: Sequence[Turn]) -> Turn:
    """The thoughts, then what is said, with a blank line between texts."""
    raw, thoughts, spoken = "", list[Part](), list[Part]()
    for turn in turns:
        thoughts += filter(is_thought, turn.parts)
        said = [part for part in turn.parts if not is_thought(part)]
        if spoken and said and isinstance(spoken[-1], Text) and isinstance(said[0], Text):
            spoken.append(Text("\n\n", Span(0, 0)))
        spoken += (replace(part, span=Span(part.span.start + len(raw), part.span.end + len(raw))) for part in said)
        raw += turn.raw
    return replace(turns[0], parts=(*thoughts, *spoken), raw=raw, excluded=any(turn.excluded for turn in turns))


def chat_messages(conversation: Conversation, frame: Frame, *, strict_ids: bool) -> Iterator[ChatMessage]:
    """The messages; what the assistant says several times in a row is one.

    Args:
        conversation: the turns.
        frame: without a system role, the system text is put before the first user message.
        strict_ids: ids of calls that are not nine letters and digits are replaced.
    """
    ids: dict[str, list[tuple[str, str]]] = {}  # id -> the written id and the name of each call without a result
    numbers = count()
    system = ""
    for turn in joined_turns(conversation.turns, weighted=False):
        if turn.role == "system":
            system = _persona(turn)
            if system and frame.has_system:
                yield ChatMessage("system", system)
        elif turn.role == "user":
            head = f"{system}\n\n" if system and not frame.has_system else ""
            system = ""
            ids.clear()
            yield ChatMessage("user", head + turn.raw)
        else:
            for injected, group in groupby(turn.parts, lambda part: isinstance(part, ToolResult)):
                if injected:
                    yield from _results([part for part in group if isinstance(part, ToolResult)], ids)
                    continue
                for message in _replies(list(group), turn, frame.controls):
                    for at, call in enumerate(message.calls):
                        kept = not strict_ids or re.fullmatch("[A-Za-z0-9]{9}", call.id)
                        message.calls[at] = replace(call, id=call.id if kept else f"call{next(numbers):05}")
                        ids.setdefault(call.id, []).append((message.calls[at].id, call.name))
                    yield message


def _persona(turn: Turn) -> str:
    """The system text without declarations of tools."""
    text = "".join(part.text for part in turn.parts if isinstance(part, Text))
    return text if all(isinstance(part, Text) for part in turn.parts) else text.strip()


def _results(results: Sequence[ToolResult], ids: Mapping[str, list[tuple[str, str]]]) -> Iterator[ChatMessage]:
    for result in results:
        if ids.get(result.call_id):
            identity, name = ids[result.call_id].pop(0)
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
