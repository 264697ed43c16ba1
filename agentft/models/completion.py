"""Text completion: rendered segments in, text out. This layer of a local model knows nothing about calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from agentft.models import Finish, Likelihood, Sampling
from agentft.types import Segment

__all__ = ["Completion", "OnText", "ReadingEngine", "TextEngine", "TextRequest", "stop_end"]

OnText: TypeAlias = Callable[[int, str], None]
"""Called with the index of a request and its new text; the text is empty while a long prompt is read."""


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A rendered prompt, and the strings at which to stop. `key` is part of the sampling seed."""

    key: str
    segments: tuple[Segment, ...]
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """The generated text. It includes the stop string that ended it, but no end-of-turn token."""

    text: str
    finish: Finish
    prompt_tokens: int
    tokens: int


class TextEngine(Protocol):
    """Anything that continues rendered text. `name`: the model's name, with its adapter if any."""

    name: str

    def complete(
        self, requests: Sequence[TextRequest], sampling: Sampling, on_text: OnText | None = None
    ) -> list[Completion]:
        """Complete all requests, in order. `on_text` receives the text while it is generated."""


@runtime_checkable
class ReadingEngine(TextEngine, Protocol):
    """A text engine that reads replies without generating."""

    def read(self, rows: Sequence[tuple[Sequence[Segment], Sequence[Segment]]]) -> list[tuple[Likelihood, ...]]:
        """The tokens of each reply after its prompt; both are segments, those of the reply sampled."""


def stop_end(text: str, stops: Sequence[str]) -> int | None:
    """The end of the first stop string in `text`; None if there is none."""
    return min((text.index(stop) + len(stop) for stop in stops if stop in text), default=None)
