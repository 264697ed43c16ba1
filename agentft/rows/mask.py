"""Rows as tokens with their loss weights, to check which tokens are supervised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from agentft.errors import InputError
from agentft.rendering import Rendering
from agentft.rendering.encoding import LearnRule, encode
from agentft.rendering.tokens import Tokenizer, tokenise
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


def _texts(segments: Sequence[Segment], tokenizer: Tokenizer) -> list[str]:
    """The text that each token adds, by the tokens' offsets. Text without a token belongs to the next one."""
    texts: list[str] = []
    before = ""  # the text of runs without tokens
    for run in tokenise(segments, tokenizer):
        text = "".join(segments[index].text for index in run.segments)
        if not run.ids:
            before += text
            continue
        ends = [len(text)]
        for (_, stop), (start, end) in reversed([*pairwise(run.offsets)]):
            ends.append(min(ends[-1], stop, start) if start < end else ends[-1])
        first, *rest = (text[start:end] for start, end in pairwise([0, *reversed(ends)]))
        texts += [before + first, *rest]
        before = ""
    return [*texts[:-1], texts[-1] + before] if texts else []


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
    texts = _texts(segments, tokenizer)
    columns = zip(encoded.input_ids, texts, encoded.loss_weights, encoded.segments, strict=True)
    for token, text, weight, index in columns:
        yield MaskedToken(token, text, weight, segments[index].kind, segments[index].sampled)
