"""Blank values and per-turn loss weights, as all parsers read them."""

from __future__ import annotations

from collections.abc import Mapping

from agentft.calls.reading import ARGUMENT_KEYS
from agentft.errors import RowError
from agentft.types import Json

__all__ = ["REASONING_KEYS", "WEIGHT_KEYS", "argument_key", "as_text", "is_blank", "read_excluded", "read_reasoning"]

WEIGHT_KEYS = ("weight", "loss", "train", "loss_mask", "loss_weight")
"""Keys of an assistant turn that say whether it is supervised: OpenAI's and Mistral's, ms-swift's, axolotl's, Step,
LLaMA-Factory's."""

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Keys of an assistant turn that hold its thought."""

_BLANK = frozenset({"", "[]", "{}", "null", "None"})


def argument_key(function: Mapping[str, Json]) -> str:
    """The key of a call that holds its arguments."""
    return next((key for key in ARGUMENT_KEYS if function.get(key) is not None), "arguments")


def is_blank(value: Json) -> bool:
    """Whether a value is blank: null, an empty list or object, or the text of one of these."""
    return value.strip() in _BLANK if isinstance(value, str) else value is None or value in ([], {})


def read_reasoning(turn: Mapping[str, Json]) -> str:
    """The thought under the first of an assistant turn's `REASONING_KEYS` that holds something.

    Raises:
        RowError: `value-not-text`.
    """
    for key in REASONING_KEYS:
        thought = turn.get(key)
        if isinstance(thought, str | list | dict) and not is_blank(thought):
            if not isinstance(thought, str):
                raise RowError("value-not-text", f"`{key}` must be text, not {thought!r:.60}")
            return thought
    return ""


def read_excluded(turn: Mapping[str, Json]) -> bool:
    """Whether the turn's own weight (one of `WEIGHT_KEYS`: 0 or 1, false or true) excludes it from the loss.

    Raises:
        RowError: `turn-weight`: another value, or two that contradict each other.
    """
    given = {key: turn[key] for key in WEIGHT_KEYS if turn.get(key) is not None}
    for key, value in given.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise RowError("turn-weight", f"`{key}` is {value!r:.60}; it must be 0 or 1 (false or true)")
    excluded = {bool(value) for value in given.values()}
    if len(excluded) > 1:
        raise RowError("turn-weight", f"`{'` and `'.join(given)}` contradict each other")
    return False in excluded


def as_text(value: Json) -> str:
    """The value if it is text, else empty text."""
    return value if isinstance(value, str) else ""
