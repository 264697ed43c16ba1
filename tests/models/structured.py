"""A model that receives messages and returns structured calls, like an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from agentft.models import CallDone, CallStarted, OnDelta, Reply, Request, Sampling, TextDelta, Usage
from agentft.records.openai import parse_openai
from agentft.types import Json, Part, Text, ToolCall

__all__ = ["StructuredModel", "message"]


class StructuredModel:
    """Answers by `Request.key` (or `*`) with OpenAI-style messages."""

    def __init__(self, messages: Mapping[str, Mapping[str, Json]]) -> None:
        self.name = "structured"
        self.source = "openai"
        self.rendering: Mapping[str, Json] = {}
        self.requests: list[Request] = []
        self._messages = messages

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        self.requests += requests
        replies = []
        for index, request in enumerate(requests):
            turns, _ = parse_openai([dict(self._messages.get(request.key) or self._messages["*"])])
            for part in turns[0].parts if on_delta else ():
                assert on_delta is not None
                if isinstance(part, ToolCall):
                    on_delta(index, CallStarted(part.name))
                    on_delta(index, CallDone(part))
                elif isinstance(part, Text):
                    on_delta(index, TextDelta(part.text, part.thought))
            replies.append(Reply(turns[0], "end", Usage(5, 3)))
        return replies


def message(parts: Sequence[Part]) -> dict[str, Json]:
    """The OpenAI-style message with these parts."""
    calls = [part for part in parts if isinstance(part, ToolCall)]
    text = "".join(part.text for part in parts if isinstance(part, Text))
    listed: list[Json] = [
        {
            "id": f"id-{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
        }
        for number, call in enumerate(calls)
    ]
    return {"role": "assistant", "content": text or None, **({"tool_calls": listed} if listed else {})}
