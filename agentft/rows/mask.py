"""Rows as tokens with their loss weights, for people and programs to check what is learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentft.calls import CallFormat
from agentft.errors import InputError
from agentft.rendering.encoding import LearnRule, encode
from agentft.rendering.frame import Frame
from agentft.rendering.render import render_samples
from agentft.rows.reading import Rejection, parse, read_rows
from agentft.types import SegmentKind

__all__ = ["MaskedRow", "MaskedToken", "mask_rows"]


@dataclass(frozen=True, slots=True)
class MaskedToken:
    """A token; `text` is what it adds to the row's text; `sampled`: the model says it.

    A character that is spread over several tokens is the text of its last one, so the texts joined are the row.
    """

    id: int
    text: str
    weight: float
    kind: SegmentKind
    sampled: bool


@dataclass(frozen=True, slots=True)
class MaskedRow:
    """One training sample of a row. `line` is where the row stands in the file."""

    id: str
    line: int
    tokens: tuple[MaskedToken, ...]


def _texts(tokens: Sequence[int], decode: Callable[[list[int]], str]) -> list[str]:
    """What each token adds to the text."""
    texts: list[str] = []
    waiting: list[int] = []
    for token in tokens:
        waiting.append(token)
        text = decode(waiting)
        # Characters have four bytes at most; what is still broken then is really U+FFFD.
        whole = not text.endswith("\ufffd") or len(waiting) > 4
        texts.append(text if whole else "")
        waiting = [] if whole else waiting
    if waiting:
        texts[-1] = decode(waiting)
    return texts


def mask_rows(
    path: Path, tokenizer: Any, fmt: CallFormat, learn: LearnRule, row: int | None = None
) -> Iterator[MaskedRow]:
    """Encode rows as training does.

    Args:
        path: a data file.
        tokenizer: a fast transformers tokenizer with a chat template.
        row: only this row, counted from 1 (None: every row that can be read).

    Raises:
        InputError: there is no such row, or it cannot be read (the message says why).
        FrameError: the tokenizer's chat template cannot be used.
    """
    frame = Frame.of_tokenizer(tokenizer)
    number = 0
    for number, item in enumerate(read_rows(path), 1):
        if row not in (None, number):
            continue
        conversation = parse(item, path)
        if isinstance(conversation, Rejection):
            if row is not None:
                why = f"{conversation.reason}: {conversation.detail}"
                raise InputError(f"{path}:{item.line}: {why}; `agentft data inspect` lists all such rows")
            continue
        for segments in render_samples(conversation, fmt, frame):
            encoded = encode(segments, tokenizer, learn)
            columns = zip(encoded.input_ids, encoded.loss_weights, encoded.segments, strict=True)
            texts = _texts(encoded.input_ids, tokenizer.decode)
            tokens = [
                MaskedToken(token, text, weight, segments[at].kind, segments[at].sampled)
                for text, (token, weight, at) in zip(texts, columns, strict=True)
            ]
            yield MaskedRow(conversation.id, item.line, tuple(tokens))
        if row is not None:
            return
    if row is not None:
        raise InputError(f"{path} has {number} rows, so there is no row {row}; rows are counted from 1")
