"""Rendering: conversations -> text, by the same code for training and serving.

`Rendering` is the interface that training and serving use. A frame with a call format is one implementation, a model's
own template with its native calls (`native`) the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from agentft.calls import NATIVE, CallFormat, call_format
from agentft.calls.thoughts import parse_begun
from agentft.rendering.frame import ChatTokenizer, Frame
from agentft.rendering.native import NativeRendering
from agentft.rendering.render import describe_rendering, render_prompt, render_samples
from agentft.types import Conversation, Json, Part, Segment, Span, ToolCall, ToolDefinition, ToolResult

__all__ = ["FramedRendering", "Rendering", "open_rendering", "rendering_digest"]


class Rendering(Protocol):
    """How conversations become the text that a model reads and writes.

    Properties:
        name: the name of the call format; turns written in it have it as their `Conversation.source`.
        stop: strings at which serving stops inside a turn, besides the stop token.
    """

    @property
    def name(self) -> str: ...

    @property
    def stop(self) -> tuple[str, ...]: ...

    def prompt(self, conversation: Conversation) -> tuple[Segment, ...]:
        """The prompt for the assistant's next turn, including the tools.

        Raises:
            FrameError: the chat template cannot render the conversation faithfully.
        """

    def samples(self, conversation: Conversation) -> list[tuple[Segment, ...]]:
        """The conversation as training samples. Each serving prompt is a token-for-token prefix of one of them.

        Raises:
            FrameError: the chat template cannot render the conversation faithfully.
        """

    def parse(self, text: str) -> tuple[Part, ...]:
        """A completion as parts whose spans tile it. Never raises: a bad call has a `parse_error`."""

    def describe(self) -> Mapping[str, Json]:
        """Metadata stored with an adapter, so that serving it with another rendering is refused."""


@dataclass(frozen=True)
class FramedRendering:
    """A call format inside a frame (chat template). Any two can be combined. `thinking`: with the model's thoughts."""

    format: CallFormat
    frame: Frame
    thinking: bool = False

    @property
    def name(self) -> str:
        """See `Rendering.name`."""
        return self.format.name

    @property
    def stop(self) -> tuple[str, ...]:
        """See `Rendering.stop`."""
        return self.format.stop

    def prompt(self, conversation: Conversation) -> tuple[Segment, ...]:
        """See `Rendering.prompt`."""
        return render_prompt(conversation, self.format, self.frame, thinking=self.thinking)

    def samples(self, conversation: Conversation) -> list[tuple[Segment, ...]]:
        """See `Rendering.samples`."""
        return render_samples(conversation, self.format, self.frame, thinking=self.thinking)

    def parse(self, text: str) -> tuple[Part, ...]:
        """See `Rendering.parse`."""
        form = self.frame.thinker and self.frame.thinker.form
        return parse_begun(self.format.parse, text, begun=self.thinking and form is not None and not form.opening)

    def describe(self) -> Mapping[str, Json]:
        """See `Rendering.describe`."""
        return describe_rendering(self.format, self.frame)


def open_rendering(name: str, tokenizer: ChatTokenizer, *, thinking: bool = False) -> Rendering:
    """The rendering for a call format and a tokenizer's chat template. `thinking`: with the model's thoughts.

    Raises:
        InputError: there is no such call format.
        FrameError: the tokenizer has no usable chat template.
    """
    if name == NATIVE:
        return NativeRendering.of_tokenizer(tokenizer, thinking=thinking)
    return FramedRendering(call_format(name), Frame.of_tokenizer(tokenizer), thinking)


@cache
def rendering_digest(name: str) -> str:
    """SHA-256 of the text that a call format writes for a sample tool, call and result. It needs no tokenizer.

    Raises:
        InputError: there is no such call format.
    """
    if name == NATIVE:  # the rest is the template, a file of the model
        return hashlib.sha256(b"native 1").hexdigest()
    fmt = call_format(name)
    city: Json = {"type": "string", "description": "A city.", "enum": ["Oslo", "Rome"]}
    days: Json = {"type": "integer", "description": "How many days.", "default": 1, "minimum": 1}
    schema: dict[str, Json] = {"type": "object", "properties": {"city": city, "days": days}, "required": ["city"]}
    tool = ToolDefinition("probe", "A probe.", schema, ("http://probe.test/probe",))
    nowhere = Span(0, 0)
    call = ToolCall("call_0", "probe", {"city": "Oslo"}, nowhere, endpoint=tool.endpoints[0])
    written = [
        fmt.name,
        *fmt.stop,
        fmt.write_system("Persona.", [tool]),
        fmt.write_parts([call, call]),
        fmt.write_results([ToolResult("call_0", "{}", nowhere)]),
    ]
    return hashlib.sha256("\0".join(written).encode()).hexdigest()
