"""Rows as tokens with their loss weights, for people and programs to check what is learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from agentft.data.rows import Accounting, Row, read_rows
from agentft.encoding import LearnRule, Tokenizer, encode
from agentft.errors import InputError, RowError
from agentft.formats import CallFormat
from agentft.formats.frame import Frame
from agentft.formats.render import render_samples
from agentft.parsers import parse_row
from agentft.types import SegmentKind

__all__ = ["DecodingTokenizer", "MaskedRow", "MaskedToken", "mask_rows"]


class DecodingTokenizer(Tokenizer, Protocol):
    """A tokenizer that can also turn single tokens back into text."""

    def decode(self, token_ids: list[int]) -> str:
        """The text of tokens."""
        ...


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

    def document(self) -> dict[str, Any]:
        """The row as `data mask --json` shows it."""
        tokens = [asdict(token) for token in self.tokens]
        return {"id": self.id, "line": self.line, "tokens": tokens}


def _texts(tokens: Sequence[int], tokenizer: DecodingTokenizer) -> list[str]:
    """What each token adds to the text."""
    texts: list[str] = []
    waiting: list[int] = []
    for token in tokens:
        waiting.append(token)
        text = tokenizer.decode(waiting)
        # Characters have four bytes at most; what is still broken then is really U+FFFD.
        whole = not text.endswith("\ufffd") or len(waiting) > 4
        texts.append(text if whole else "")
        waiting = [] if whole else waiting
    if waiting:
        texts[-1] = tokenizer.decode(waiting)
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
    accounting = Accounting()
    for item in read_rows(path):
        accounting.rows += 1
        if row is not None and accounting.rows != row:
            continue
        try:
            if not isinstance(item, Row):
                raise RowError(item.reason, item.detail, turn=item.turn, offset=item.offset)
            conversation = parse_row(item.value, f"{path.name}:{item.line}")
        except RowError as error:
            if row is not None:
                raise InputError(f"{path}:{item.line}: {error}; `agentft data inspect` lists all such rows") from None
            continue
        for segments in render_samples(conversation, fmt, frame):
            encoded = encode(segments, tokenizer, learn)
            columns = zip(encoded.input_ids, encoded.loss_weights, encoded.segments, strict=True)
            texts = _texts(encoded.input_ids, tokenizer)
            tokens = [
                MaskedToken(token, text, weight, segments[at].kind, segments[at].sampled)
                for text, (token, weight, at) in zip(texts, columns, strict=True)
            ]
            yield MaskedRow(conversation.id, item.line, tuple(tokens))
        if row is not None:
            return
    if row is not None:
        raise InputError(f"{path} has {accounting.rows} rows, so there is no row {row}; rows are counted from 1")
