"""Control tokens: the tokens that delimit turns. Only the frame may write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agentft.calls import CALL_FORMATS

__all__ = ["AddedTokens", "control_tokens", "strip_controls"]

_SHAPE = re.compile(r"<[|｜].+[|｜]>", re.DOTALL)
# Written by call formats, so models may generate them as single tokens.
_MARKERS = frozenset(
    ["<think>", "</think>"]
    + [marker for fmt in CALL_FORMATS.values() for marker in (*fmt.call_markers, *fmt.other_markers)]
)


class AddedTokens(Protocol):
    """The part of a transformers tokenizer that tells its control tokens."""

    all_special_tokens: list[str]

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Id -> token, with `content` and `special`."""


def control_tokens(tokenizer: AddedTokens) -> tuple[str, ...]:
    """Texts of the tokenizer's control tokens: special ones, named or not, and those that look like `<|this|>`."""
    added = tokenizer.added_tokens_decoder.values()
    found = [str(token.content) for token in added if token.special or _SHAPE.fullmatch(str(token.content))]
    return tuple(text for text in dict.fromkeys([*tokenizer.all_special_tokens, *found]) if text not in _MARKERS)


def strip_controls(text: str, controls: Sequence[str]) -> str:
    """The text without the control tokens that many data sets have at the end of an answer."""
    while (bare := text.rstrip()).endswith(tuple(controls)):
        text = bare.removesuffix(next(stop for stop in controls if bare.endswith(stop)))
    return text
