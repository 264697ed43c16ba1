"""Rows as tokens with their loss weights, to check which tokens are supervised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from agentft.errors import InputError
from agentft.rendering.tokens import Tokenizer, tokenise
from agentft.rows.ledger import Ledger, Rejection
from agentft.rows.preparation import EncodedSample, Encoder, encode_row
from agentft.rows.reading import Row, keep_rows
from agentft.strict import counted
from agentft.types import Conversation, Segment, SegmentKind

__all__ = ["MaskedRow", "MaskedToken", "check_row", "mask_rows"]


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
    """One training sample of a row, with the tokens after its last supervised one.

    `line` is the row's line in the file. `left_out`: supervised tokens that do not fit into `max_length`; here they
    have the weight 0.
    """

    id: str
    line: int
    tokens: tuple[MaskedToken, ...]
    left_out: int


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


def mask_rows(path: Path, encoder: Encoder, row: int | None = None) -> Iterator[MaskedRow]:
    """The rows that training keeps, with the weights that their tokens have in training.

    Args:
        path: a data file.
        encoder: with a fast transformers tokenizer that has a chat template.
        row: only this row, counted from 1 (None: every row that is kept).

    Raises:
        InputError: there is no such row, or it is rejected (the message gives the reason).
    """
    if row is not None:
        check_row(path, row)

    def convert(read: Row, conversation: Conversation) -> tuple[str, list[EncodedSample]]:
        return conversation.id, encode_row(read.line, conversation, encoder)

    on_reject = (lambda _: None) if row is None else partial(_refuse, path)
    for line, (identity, found) in keep_rows(path, convert, Ledger(), on_reject, only=row):
        for one in found:
            yield MaskedRow(identity, line, tuple(_mask(one, encoder.tokenizer)), one.lost)


def check_row(path: Path, row: int) -> None:
    """Check that a file has this row, counted from 1, and that it can be parsed.

    Raises:
        InputError: see `mask_rows`.
    """
    ledger = Ledger()
    if not any(keep_rows(path, lambda *_: True, ledger, partial(_refuse, path), only=row)):
        raise InputError(f"{path} has {counted(ledger.rows, 'row')}, so there is no row {row}; rows are counted from 1")


def _refuse(path: Path, rejection: Rejection) -> None:
    why = f"{rejection.reason}: {rejection.detail}"
    raise InputError(f"{path}:{rejection.line}: {why}; `agentft data inspect` lists all rejected rows")


def _mask(one: EncodedSample, tokenizer: Tokenizer) -> Iterator[MaskedToken]:
    weights = dict(zip(one.sample.places, one.sample.weights, strict=True)) if one.sample else {}
    columns = zip(one.encoded.input_ids, _texts(one.segments, tokenizer), one.encoded.segments, strict=True)
    for place, (token, text, index) in enumerate(columns):
        segment = one.segments[index]
        yield MaskedToken(token, text, weights.get(place, 0.0), segment.kind, segment.sampled)
