"""Assistant turns with other calls or another text than the model wrote, in the form in which it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentft.calls import CALL_FORMATS
from agentft.models.messages import read_turn, write_reply
from agentft.types import Conversation, Part, Span, Text, ToolCall, Turn

__all__ = ["called", "rewrite", "spoken"]


def rewrite(turn: Turn, conversation: Conversation, changed: Mapping[str, ToolCall]) -> Turn:
    """The turn with these calls in place of those with the same ids, which stay."""
    return _written(
        [changed.get(part.id, part) if isinstance(part, ToolCall) else part for part in turn.parts], conversation
    )


def spoken(text: str, conversation: Conversation) -> Turn:
    """An assistant turn that says `text`."""
    return _written([Text(text, Span(0, len(text)))] if text else [], conversation)


def called(call: ToolCall, conversation: Conversation) -> Turn:
    """An assistant turn that makes a call."""
    return _written([call], conversation)


def _written(parts: Sequence[Part], conversation: Conversation) -> Turn:
    if fmt := CALL_FORMATS.get(conversation.source):
        raw = fmt.write_parts(parts)
        turn = Turn("assistant", fmt.parse(raw), raw)
    else:
        turn = read_turn(write_reply(Turn("assistant", tuple(parts), "")), conversation)
    ids = iter([part.id for part in parts if isinstance(part, ToolCall)])
    kept = [replace(part, id=next(ids, part.id)) if isinstance(part, ToolCall) else part for part in turn.parts]
    return replace(turn, parts=tuple(kept))
