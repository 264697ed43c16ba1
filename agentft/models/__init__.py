"""Backends: what runs a model. `opening` imports each on use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agentft.rendering.frame import Frame
from agentft.types import Segment

__all__ = ["Backend", "Completion", "OnText", "Request", "Sampling", "stop_end"]

Finish = Literal["stop", "end", "length"]
OnText = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. `temperature` 0 is greedy. `max_new_tokens` counts tokens of one completion."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to make: the rendered conversation so far, and the strings at which to stop.

    `key` identifies the request (`<case id>/<turn>/<step>` in an evaluation) for scripted answers and logs.
    """

    key: str
    segments: tuple[Segment, ...]
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model said. `text` holds the stop string that ended it, but no end-of-turn token.

    `finish`: `stop` (a stop string), `end` (end of turn) or `length` (the token limit).
    """

    text: str
    finish: Finish
    prompt_tokens: int
    tokens: int


class Backend(Protocol):
    """Anything that completes rendered conversations.

    `name`: what ran, for reports: a model's name, with its adapter if any. `frame`: the chat template that requests are
    rendered with.
    """

    name: str
    frame: Frame

    def complete(
        self, requests: Sequence[Request], sampling: Sampling, on_text: OnText | None = None
    ) -> list[Completion]:
        """Complete all requests, in order. `on_text(index, piece)` is called as text appears."""
        ...


def stop_end(text: str, stops: Sequence[str]) -> int | None:
    """Where the earliest stop string of a text ends; None without one."""
    return min((text.index(stop) + len(stop) for stop in stops if stop in text), default=None)
