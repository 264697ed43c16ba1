"""One chat: the conversation with everything it needs to go on."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from agentft.agent import ToolRunner, open_conversation, say, step
from agentft.formats import CallFormat
from agentft.models import Backend, OnText, Sampling
from agentft.types import Conversation, Step, ToolDefinition

__all__ = ["PERSONA", "Listening", "Session"]

PERSONA = "You are a helpful assistant."
Listening = Callable[[], AbstractContextManager[OnText | None]]
"""Entered around each completion; gives what to call with the text as it appears."""


def _new_id() -> str:
    return f"chat-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


@dataclass
class Session:
    """The state of a chat. `max_steps`: completions for one question."""

    backend: Backend
    fmt: CallFormat
    client: ToolRunner
    sampling: Sampling
    tools: tuple[ToolDefinition, ...]
    persona: str = PERSONA
    max_steps: int = 6
    conversation: Conversation = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew: no turns, and a fresh state of the tool worlds."""
        self.conversation = open_conversation(_new_id(), self.persona, self.tools, self.fmt.name)

    @property
    def asked(self) -> bool:
        """Whether anything was said."""
        return any(turn.role == "user" for turn in self.conversation.turns)

    def ask(self, text: str, listening: Listening) -> Iterator[Step]:
        """Ask, and give each completion with what its calls led to, until the model answers or the steps are used up.

        If anything goes wrong or the consumer stops, put `conversation` back to what it was before.
        """
        self.conversation = say(self.conversation, text)
        for _ in range(self.max_steps):
            with listening() as on_text:
                self.conversation, made = step(
                    self.conversation, self.backend, self.fmt, self.client, self.sampling, self.conversation.id, on_text
                )
            yield made
            if not made.exchanges:
                return
