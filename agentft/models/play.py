"""A person as the model: reads each prompt and types each answer, as a ceiling, or to try out a suite."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from agentft.models import Delta, OnDelta, Reply, Request, Sampling
from agentft.models.scripted import ScriptedModel
from agentft.types import Conversation, Part, Span, Text, ToolCall, ToolDefinition, ToolResult

__all__ = ["PLAY", "PlayModel", "read_typed"]

PLAY = "play"
_NAME = re.compile(r"\s*([\w.-]+)\s*(?=\{)")
_HOW = 'Answer in one line: text, or calls as NAME {"ARGUMENT": "VALUE"}, one after the other.'


class PlayModel:
    """Asks for each reply.

    Args:
        ask: shows a text and returns the line that was typed.
        fmt: the call format in which the answers are written, as a model would.
    """

    def __init__(self, ask: Callable[[str], str], fmt: str) -> None:
        writer = ScriptedModel({}, PLAY, fmt)
        self.name, self.source, self.rendering = PLAY, writer.source, writer.rendering
        self._ask, self._format = ask, fmt
        self._shown: tuple[ToolDefinition, ...] = ()

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        """See `Model.reply`. The requests are shown one after the other."""
        return [self._one(request, sampling, on_delta, index) for index, request in enumerate(requests)]

    def _one(self, request: Request, sampling: Sampling, on_delta: OnDelta | None, index: int) -> Reply:
        parts = read_typed(self._ask("\n".join(self._show(request))), request.conversation)
        writer = ScriptedModel({request.key: parts}, PLAY, self._format)
        return writer.reply([request], sampling, on_delta and partial(_renumbered, on_delta, index))[0]

    def _show(self, request: Request) -> Iterator[str]:
        """The tools whenever they change, then what is new since the last reply of this conversation."""
        conversation = request.conversation
        yield f"\n[{request.key}]"
        if conversation.tools != self._shown:
            self._shown = conversation.tools
            yield from (
                f"  {tool.name} {json.dumps(tool.parameters, ensure_ascii=False)}" for tool in conversation.tools
            )
            yield _HOW
        last = max((at for at, turn in enumerate(conversation.turns) if turn.role == "assistant"), default=-1)
        for turn in conversation.turns[last + 1 :]:
            results = [part.content for part in turn.parts if isinstance(part, ToolResult)]
            yield f"{turn.role}: {'; '.join(results) or turn.raw}"


def _renumbered(on_delta: OnDelta, index: int, _: int, delta: Delta) -> None:
    on_delta(index, delta)


def read_typed(line: str, conversation: Conversation) -> tuple[Part, ...]:
    """The calls of a line that holds nothing else; else the line as text."""
    endpoints = {tool.name: next(iter(tool.endpoints), None) for tool in conversation.tools}
    calls: list[Part] = []
    at, decoder = 0, json.JSONDecoder()
    while name := _NAME.match(line, at):
        try:
            arguments, at = decoder.raw_decode(line, name.end())
        except ValueError:
            break
        call = f"call_{len(calls)}"
        calls.append(ToolCall(call, name[1], arguments, Span(0, 0), endpoint=endpoints.get(name[1])))
    whole = calls and not line[at:].strip()
    return tuple(calls) if whole else (Text(line.strip(), Span(0, len(line.strip()))),)
