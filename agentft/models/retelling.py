"""Turns of data rows as a model would have said them, for examples in its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from agentft.calls.thoughts import is_thought
from agentft.models.rewriting import rewrite
from agentft.types import Conversation, Span, ToolCall, ToolResult, Turn

__all__ = ["retell"]


def retell(turns: Sequence[Turn], source: str, endpoints: Mapping[str, str], prefix: str) -> list[Turn]:
    """Turns without thoughts, with a turn for each run of the assistant's and for its results.

    Args:
        turns: a round of a conversation whose calls can all be read.
        source: the model's (see `Model.source`); its turns are written in that call format.
        endpoints: by name of a tool, the URL that its calls name.
        prefix: put before the ids of calls.
    """
    nothing = Conversation("", (), (), source)
    told: list[Turn] = []
    for turn in turns:
        if turn.role == "user":
            told.append(turn)
            continue
        for injected, group in groupby(turn.parts, lambda part: isinstance(part, ToolResult)):
            parts = [part for part in group if not is_thought(part)]
            if injected:
                at, raw, results = 0, "", list[ToolResult]()
                for part in parts:
                    if isinstance(part, ToolResult):
                        at, raw = len(raw), raw + part.content
                        results.append(replace(part, call_id=prefix + part.call_id, span=Span(at, len(raw))))
                told.append(Turn("tool", tuple(results), raw))
                continue
            given = [replace(p, endpoint=endpoints.get(p.name)) if isinstance(p, ToolCall) else p for p in parts]
            reply = rewrite(Turn("assistant", tuple(given), ""), nothing, {})
            moved_parts = [replace(p, id=prefix + p.id) if isinstance(p, ToolCall) else p for p in reply.parts]
            if parts:
                told.append(replace(reply, parts=tuple(moved_parts)))
    return told
