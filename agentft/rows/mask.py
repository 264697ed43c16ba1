"""Rows as tokens with their loss weights, to check which tokens are supervised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agentft.errors import InputError
from agentft.rendering import Rendering
from agentft.rendering.encoding import LearnRule, encode
from agentft.rows.ledger import Ledger, Rejection
from agentft.rows.preparation import render_row
from agentft.rows.reading import Row, keep_rows
from agentft.types import Conversation, Segment, SegmentKind

__all__ = ["MaskedRow", "MaskedToken", "mask_rows"]


@dataclass(frozen=True, slots=True)
class MaskedToken:
    """A token. `text`: the text that it adds to the row. `sampled`: the model generates it when serving.

    A character of several tokens belongs to the last of them, so the texts joined give the row.
    """

    id: int
    text: str
    weight: float
    kind: SegmentKind
    sampled: bool


@dataclass(frozen=True, slots=True)
class MaskedRow:
    """One training sample of a row. `line` is the row's line in the file."""

    id: str
    line: int
    tokens: tuple[MaskedToken, ...]


def _texts(tokens: Sequence[int], decode: Callable[[list[int]], str]) -> list[str]:
    """The text that each token adds."""
    texts: list[str] = []
    before: list[int] = []  # a decoder may take the space from the first token of a text
    pending: list[int] = []
    for token in tokens:
        pending.append(token)
        text = decode([*before, *pending]).removeprefix(decode(before)) if before else decode(pending)
        # A character has at most four bytes, so after five tokens U+FFFD is really in the text.
        complete = not text.endswith("\ufffd") or len(pending) > 4
        texts.append(text if complete else "")
        if complete:
            before, pending = pending, []
    if pending:
        texts[-1] = decode([*before, *pending]).removeprefix(decode(before))
    return texts


def mask_rows(
    path: Path, tokenizer: Any, rendering: Rendering, learn: LearnRule, row: int | None = None
) -> Iterator[MaskedRow]:
    """Encode rows as training does.

    Args:
        path: a data file.
        tokenizer: a fast transformers tokenizer with a chat template.
        row: only this row, counted from 1 (None: every row that is kept).

    Raises:
        InputError: there is no such row, or it is rejected (the message gives the reason).
        FrameError: the tokenizer's chat template cannot be used.
    """
    ledger = Ledger()

    def convert(_: Row, conversation: Conversation) -> tuple[str, list[tuple[Segment, ...]]]:
        return conversation.id, render_row(conversation, rendering)

    def on_reject(rejection: Rejection) -> None:
        if row is not None:
            why = f"{rejection.reason}: {rejection.detail}"
            raise InputError(f"{path}:{rejection.line}: {why}; `agentft data inspect` lists all rejected rows")

    for line, (identity, rendered) in keep_rows(path, convert, ledger, on_reject, only=row):
        for segments in rendered:
            tokens = tuple(_mask(segments, tokenizer, learn))
            yield MaskedRow(identity, line, tokens)
        if row is not None:
            return
    if row is not None:
        count = f"{ledger.rows} rows" if ledger.rows > 1 else "1 row"
        raise InputError(f"{path} has {count}, so there is no row {row}; rows are counted from 1")


def _mask(segments: Sequence[Segment], tokenizer: Any, learn: LearnRule) -> Iterator[MaskedToken]:
    encoded = encode(segments, tokenizer, learn)
    decode = partial(tokenizer.decode, clean_up_tokenization_spaces=False)
    texts = _texts(encoded.input_ids, decode)
    columns = zip(encoded.input_ids, texts, encoded.loss_weights, encoded.segments, strict=True)
    for token, text, weight, index in columns:
        yield MaskedToken(token, text, weight, segments[index].kind, segments[index].sampled)
