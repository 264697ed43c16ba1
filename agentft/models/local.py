"""Local models: a rendering writes the prompt and parses the completion, and a text engine runs the weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from agentft.models import (
    CallDone,
    CallStarted,
    CallText,
    Delta,
    OnDelta,
    Reading,
    Reply,
    Request,
    Sampling,
    TextDelta,
    TokenScore,
    Usage,
)
from agentft.models.completion import Completion, ReadingEngine, TextEngine, TextRequest
from agentft.rendering import Rendering
from agentft.types import Conversation, Part, Segment, Span, Text, ToolCall, Turn

__all__ = ["LocalModel", "PartStream", "read_reply"]

_OTHERS = 4  # alternatives to a token

# The end of the text that is not streamed yet: it may be the start of a call, or whitespace before one.
_HELD_BACK = re.compile(r"\s*(<[^\s<>]{0,40})?\Z")


class LocalModel:
    """A text engine with a rendering, so that serving renders exactly as training did."""

    def __init__(self, engine: TextEngine, rendering: Rendering) -> None:
        self.name = engine.name
        self.source = rendering.name
        self.rendering = rendering.describe()
        self._engine: Any = engine  # without a context, it neither counts nor scores
        self._rendering = rendering
        self.context = int(getattr(engine, "context", 0))

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        """See `Model.reply`. All requests go through the engine in one batch."""
        prompts = [self._rendering.prompt(request.conversation) for request in requests]
        text_requests = [
            TextRequest(request.key, prompt, self._rendering.stop)
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        if on_delta is None:
            completions = self._engine.complete(text_requests, sampling)
        else:
            streams = [PartStream(self._rendering.parse, partial(on_delta, index)) for index in range(len(requests))]
            completions = self._engine.complete(
                text_requests, sampling, lambda index, piece: streams[index].feed(piece)
            )
            for stream, completion in zip(streams, completions, strict=True):
                stream.close(completion.text)
        return [
            read_reply(self._rendering, prompt, completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def prompt(self, conversation: Conversation) -> str:
        """See `InspectableModel`."""
        return "".join(segment.text for segment in self._rendering.prompt(conversation))

    def count(self, conversation: Conversation) -> int:
        """See `InspectableModel`."""
        return self._engine.count(self._rendering.prompt(conversation)) if self.context else 0

    def explain(self, conversation: Conversation, text: str) -> list[TokenScore]:
        """See `InspectableModel`."""
        return self._engine.score(self._rendering.prompt(conversation), text, _OTHERS) if self.context else []

    def read(self, replies: Sequence[tuple[Conversation, Turn]]) -> list[Reading]:
        """See `InspectableModel`; the readings are empty if the engine cannot read."""
        engine = self._engine
        if not isinstance(engine, ReadingEngine):
            return [Reading("", ()) for _ in replies]
        said = [self._said(conversation, turn) for conversation, turn in replies]
        prompts = [self._rendering.prompt(conversation) for conversation, _ in replies]
        found = engine.read(list(zip(prompts, said, strict=True)))
        texts = ("".join(segment.text for segment in segments) for segments in said)
        return [Reading(text, tokens) for text, tokens in zip(texts, found, strict=True)]

    def _said(self, conversation: Conversation, turn: Turn) -> list[Segment]:
        """What the model samples to say this turn."""
        if turn.raw:
            return [Segment(turn.raw, True, "call")]
        asked = Turn("user", (Text("?", Span(0, 1)),), "?")
        alone = Conversation(conversation.id, (asked, turn), conversation.tools, "")
        return [segment for segment in self._rendering.samples(alone)[-1] if segment.sampled]


def read_reply(rendering: Rendering, prompt: Sequence[Segment], completion: Completion) -> Reply:
    """Parse a completion into a reply."""
    return Reply(
        turn=Turn("assistant", rendering.parse(completion.text), completion.text),
        finish=completion.finish,
        usage=Usage(completion.prompt_tokens, completion.tokens),
        raw=completion.text,
        prompt="".join(segment.text for segment in prompt),
    )


class PartStream:
    """Converts streamed text to deltas.

    Once the stream is closed, the joined `TextDelta`s equal the text parts of the turn, and each call was announced by
    `CallStarted` and completed by `CallDone`. While a call grows, `CallText` has its text so far.
    """

    def __init__(self, parse: Callable[[str], tuple[Part, ...]], on_delta: Callable[[Delta], None]) -> None:
        self._parse = parse
        self._on_delta = on_delta
        self._text = ""
        self._part = 0  # index of the current part
        self._sent = 0  # characters of it that were sent; for a call, 1 once it was announced

    def feed(self, piece: str) -> None:
        """Add generated text; "" tells that a piece of the prompt was read."""
        if not piece:
            self._on_delta(TextDelta(""))
            return
        self._text += piece
        self._stream(closed=False)

    def close(self, text: str) -> None:
        """Stream the rest; `text` is the whole completion."""
        self._text = text
        self._stream(closed=True)

    def _stream(self, *, closed: bool) -> None:
        parts = _join_texts(self._parse(self._text), self._text)
        for index in range(self._part, len(parts)):
            part, complete = parts[index], closed or index < len(parts) - 1
            if isinstance(part, Text):
                text = part.text if complete else _HELD_BACK.sub("", part.text)
                if len(text) > self._sent:
                    self._on_delta(TextDelta(text[self._sent :], part.thought))
                    self._sent = len(text)
            else:
                if not self._sent:
                    self._on_delta(CallStarted(part.name))
                    self._sent = 1
                self._on_delta(
                    CallDone(part) if complete else CallText(part.name, self._text[part.span.start : part.span.end])
                )
            if complete:
                self._part, self._sent = index + 1, 0


def _join_texts(parts: Sequence[Part], raw: str) -> list[Text | ToolCall]:
    """Calls, and the text between them joined to single parts. A tool result hallucinated by the model is text."""
    joined: list[Text | ToolCall] = []
    for part in parts:
        if isinstance(part, ToolCall):
            joined.append(part)
            continue
        text = part if isinstance(part, Text) else Text(raw[part.span.start : part.span.end], part.span)
        last = joined[-1] if joined else None
        if isinstance(last, Text) and last.thought == text.thought:
            joined[-1] = replace(last, text=last.text + text.text)
        else:
            joined.append(text)
    return joined
