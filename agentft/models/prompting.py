"""Prompts for an endpoint, written here by a tokenizer's chat template, exactly as for training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from agentft.errors import FrameError
from agentft.models.embedded import resolve
from agentft.models.opening import DEFAULT_FORMAT
from agentft.rendering import Rendering, open_rendering
from agentft.rendering.encoding import tokens_of
from agentft.runs import RunFolder, find_finished
from agentft.types import Conversation

__all__ = ["Prompt", "Prompting", "open_prompting"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt for one reply, as text and as tokens."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prompting:
    """A rendering with its tokenizer. `name`: as the user names it."""

    name: str
    rendering: Rendering
    tokenizer: Any

    def write(self, conversation: Conversation) -> Prompt:
        """The prompt for the assistant's next turn.

        Raises:
            FrameError: the chat template cannot render the conversation faithfully.
        """
        segments = self.rendering.prompt(conversation)
        return Prompt("".join(one.text for one in segments), tuple(tokens_of(segments, self.tokenizer)))

    def plain(self, prompt: Prompt) -> str:
        """The text that the same tokenizer turns into the prompt's tokens, for a server that takes text only.

        Raises:
            FrameError: there is none, since a content holds the text of a control token.
        """
        for text in self._texts(prompt.text):
            if tuple(self.tokenizer(text)["input_ids"]) == prompt.ids:
                return text
        raise FrameError(
            "this server takes prompts as text only, and as text this conversation has other tokens (a content may "
            "hold a control token); use a server that takes token ids in /completions, such as vLLM or llama.cpp"
        )

    def _texts(self, text: str) -> Iterator[str]:
        """The text, and the text without the start token, which the tokenizer may add by itself."""
        yield text
        start = self.tokenizer.bos_token
        if start and text.startswith(start):
            yield text.removeprefix(start)


@lru_cache(maxsize=4)
def open_prompting(name: str, call_format: str | None = None) -> Prompting:
    """The prompts of a model (a folder, a hub id, an embedded name) or of a run (its folder, or `last`).

    Args:
        name: whose tokenizer and chat template to use.
        call_format: a call format's name; None: the run's, or the default.

    Raises:
        InputError: there is no such call format, or the run did not finish.
        MissingError: the tokenizer is not on this machine.
        FrameError: it has no usable chat template.
    """
    run = find_finished(name) if name == "last" or RunFolder(Path(name)).recipe.exists() else None
    source = name if run is None else str(run.weights) if run.is_whole else run.model
    resolve(source)  # refuses a missing folder before transformers is imported, which takes seconds
    from agentft.models.tokenizers import load_tokenizer

    fmt = call_format or (run.call_format if run else DEFAULT_FORMAT)
    tokenizer = load_tokenizer(source)
    return Prompting(name, open_rendering(fmt, tokenizer, thinking=run is not None and run.thinking), tokenizer)
