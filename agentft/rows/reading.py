"""Rows of a data file -> conversations, with an account of every row: rows in = parsed + rejected, always."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agentft.errors import InputError, RowError
from agentft.json_text import UnreadableError, read_json
from agentft.records import parse_row
from agentft.rows.quarantine import Rejection, open_quarantine
from agentft.rows.sources import ROW_LIMIT, Raw, is_parquet, iter_raw
from agentft.types import Conversation, Json

__all__ = ["Accounting", "Rejection", "Row", "parse", "read_conversations", "read_rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row that is a JSON object. `line` as in `Rejection`; `raw` is its text."""

    line: int
    value: Mapping[str, Json]
    raw: str

    def rejected(self, error: RowError) -> Rejection:
        """The row as one that cannot be used."""
        return Rejection(self.line, error.reason, error.detail, error.turn, error.offset, self.raw)


@dataclass(slots=True)
class Accounting:
    """What became of the rows. `first` holds the first rejection of each reason; `notes` are sentences for a person."""

    rows: int = 0
    parsed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, Rejection] = field(default_factory=dict)
    duplicate_ids: int = 0

    @property
    def rejected(self) -> int:
        """How many rows were rejected, for whatever reason."""
        return self.reasons.total()

    @property
    def notes(self) -> list[str]:
        """What was changed on the way, for a person."""
        if not self.duplicate_ids:
            return []
        return [
            f"{self.duplicate_ids} rows had an id that an earlier row has; they were kept, with #2, #3, ... after it"
        ]


def read_rows(path: Path) -> Iterator[Row | Rejection]:
    """The rows of a JSONL file, of a JSON array (both may be gzipped) or of a parquet file, in constant memory.

    Raises:
        InputError: the file is missing, a folder, binary, damaged, or holds no row at all.
    """
    empty = True
    for item in _read_parquet(path) if is_parquet(path) else map(_read_raw, iter_raw(path)):
        empty = False
        yield item
    if empty:
        raise InputError(f"{path} holds no rows; check that it is the right file and was written completely")


def read_conversations(
    path: Path, accounting: Accounting, quarantine: Path | None = None
) -> Iterator[tuple[int, Conversation]]:
    """The conversations of a file with their lines; what cannot be one is counted and, if asked, kept in `quarantine`.

    The account is complete, and the quarantine file there, when the iterator is exhausted.

    Raises:
        InputError: see `read_rows`; also a quarantine file that cannot be used.
    """
    ids = _Ids()
    fallback = f"{path.name}:"  # ids of this form are ours and hold the line, so they need no check
    with open_quarantine(path, quarantine) as keep:
        for item in read_rows(path):
            accounting.rows += 1
            outcome = parse(item, path)
            if isinstance(outcome, Rejection):
                accounting.reasons[outcome.reason] += 1
                accounting.first.setdefault(outcome.reason, outcome)
                keep(outcome)
                continue
            accounting.parsed += 1
            unnamed = outcome.id == f"{fallback}{item.line}"
            unique = outcome.id if unnamed else ids.make_unique(outcome.id)
            if unique != outcome.id:
                accounting.duplicate_ids += 1
                outcome = replace(outcome, id=unique)
            yield item.line, outcome


def parse(item: Row | Rejection, path: Path) -> Conversation | Rejection:
    """The row's conversation, or why there is none."""
    if isinstance(item, Rejection):
        return item
    try:
        return parse_row(item.value, f"{path.name}:{item.line}")
    except RowError as error:
        return item.rejected(error)


def _read_raw(raw: Raw) -> Row | Rejection:
    if raw.data is None:
        detail = f"a row of {raw.length} bytes is above the limit of {ROW_LIMIT}"
        return Rejection(raw.number, "line-too-long", detail, None, None, "", (raw.start, raw.length))
    try:
        text = raw.data.decode()
    except UnicodeDecodeError as error:
        detail = f"the byte 0x{raw.data[error.start]:02x} is not UTF-8 here"
        return Rejection(raw.number, "invalid-utf8", detail, None, error.start, raw.data)
    try:
        value, end = read_json(text, len(text) - len(text.lstrip()))
    except UnreadableError as error:
        return Rejection(raw.number, error.reason, str(error), None, error.position, text)
    if end < len(text.rstrip()):
        detail = f"not JSON (text after the value at character {end})"
        return Rejection(raw.number, "invalid-json", detail, None, end, text)
    if not isinstance(value, dict):
        return Rejection(raw.number, "not-an-object", f"a row must be an object, not {text:.60}", None, None, text)
    return Row(raw.number, value, text)


class _Ids:
    """Ids that were seen, by their hashes: some 60 bytes a row, however long the ids are."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.repeats: Counter[str] = Counter()

    def make_unique(self, identity: str) -> str:
        unique = identity
        while hash(unique) in self.seen:
            self.repeats[identity] += 1
            unique = f"{identity}#{self.repeats[identity] + 1}"
        self.seen.add(hash(unique))
        return unique


def _read_parquet(path: Path) -> Iterator[Row | Rejection]:
    from agentft.rows.parquet import check_arguments, iter_parquet

    for number, value in enumerate(iter_parquet(path), 1):
        row = Row(number, value, json.dumps(value, ensure_ascii=False, default=str))
        try:
            check_arguments(value)
        except RowError as error:
            yield row.rejected(error)
        else:
            yield row
