"""The loop over the rows of a data file: each is read, converted, and counted in a ledger as kept or rejected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from agentft.errors import InputError, RowError
from agentft.json_text import UnreadableError, read_json, repeated_keys
from agentft.records import parse_row
from agentft.rows.ledger import Ledger, Rejection
from agentft.rows.quarantine import OnReject, open_quarantine
from agentft.rows.sources import ROW_LIMIT, Raw, check_growth, is_parquet, iter_raw
from agentft.types import Conversation, Json

__all__ = ["Row", "Undecoded", "decode_row", "iter_undecoded", "keep_rows", "read_conversations", "read_rows"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """A row that is a JSON object. `line` as in `Rejection`; `raw` is its text."""

    line: int
    value: Mapping[str, Json]
    raw: str

    def rejected(self, error: RowError) -> Rejection:
        """The rejection of this row for the given error."""
        return Rejection(self.line, error.reason, error.detail, error.turn, error.offset, self.raw)


Undecoded: TypeAlias = Raw | Row | Rejection
"""A row of a file: bytes, or decoded already (parquet)."""


def read_rows(path: Path) -> Iterator[Row | Rejection]:
    """The rows of a JSONL file, a JSON array (both may be gzipped) or a parquet file, in constant memory.

    Raises:
        InputError: the file is missing, a folder, binary, damaged or empty.
    """
    return map(decode_row, iter_undecoded(path))


def iter_undecoded(path: Path) -> Iterator[Undecoded]:
    """The rows as `decode_row` takes them.

    Raises:
        InputError: see `read_rows`.
    """
    empty = True
    for item in _read_parquet(path) if is_parquet(path) else iter_raw(path):
        empty = False
        yield item
    if empty:
        raise InputError(f"{path} contains no rows; check that it is the right file and was written completely")


def keep_rows(
    path: Path,
    convert: Callable[[Row, Conversation], T],
    ledger: Ledger,
    on_reject: OnReject,
    *,
    only: int | None = None,
    items: Iterable[Undecoded] | None = None,
) -> Iterator[tuple[int, T]]:
    """Yield (line, `convert(row, its conversation)`) for each kept row of a file; every row is counted in `ledger`.

    `items`: some of its rows, instead of all.

    A row is rejected if it is not a JSON object, contains no valid conversation, or if `convert` raises RowError. It is
    counted by reason and passed to `on_reject`. A conversation without an id gets `file:line`. With `only`, reading
    stops after row number `only` (from 1), and only that one is converted, kept or rejected; the rows before it only
    count in `rows`.

    Raises:
        InputError: see `read_rows`.
    """
    for raw in iter_undecoded(path) if items is None else items:
        if ledger.rows == only:
            return
        ledger.rows += 1
        if only is not None and ledger.rows < only:
            continue
        found = _parse(path, raw)
        if not isinstance(found, Rejection):
            row, conversation = found
            try:
                converted = convert(row, conversation)
            except RowError as error:
                found = row.rejected(error)
            else:
                ledger.keep(path, row.line, conversation)
                yield row.line, converted
                continue
        ledger.reject(path, found)
        on_reject(found)


def _parse(path: Path, raw: Undecoded) -> tuple[Row, Conversation] | Rejection:
    with repeated_keys() as repeated:
        row = decode_row(raw)
        if isinstance(row, Rejection):
            return row
        try:
            conversation = parse_row(row.value, f"{path.name}:{row.line}")
        except RowError as error:
            return row.rejected(error)
    if repeated:
        unread = (*conversation.unread, *(f"{key:.40} (repeated)" for key in repeated))
        conversation = replace(conversation, unread=unread)
    return row, conversation


def read_conversations(
    path: Path, ledger: Ledger, quarantine: Path | None = None
) -> Iterator[tuple[int, Conversation]]:
    """Yield the line and conversation of each kept row; write rejected rows to `quarantine`, if it is not None.

    The ledger is complete and the quarantine file exists once the iterator is exhausted.

    Raises:
        InputError: see `read_rows`; also if the quarantine file cannot be written.
    """
    with open_quarantine(path, quarantine) as on_reject:
        yield from keep_rows(path, lambda _, conversation: conversation, ledger, on_reject)


def decode_row(raw: Undecoded) -> Row | Rejection:
    """Decode the bytes of a row."""
    if not isinstance(raw, Raw):
        return raw
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
    if isinstance(value, list) and value and all(isinstance(turn, dict) and "role" in turn for turn in value):
        value = {"messages": value}
    if not isinstance(value, dict):
        return Rejection(raw.number, "not-an-object", f"a row must be an object, not {text:.60}", None, None, text)
    return Row(raw.number, value, text)


def _read_parquet(path: Path) -> Iterator[Row | Rejection]:
    from agentft.rows.parquet import check_arguments, iter_parquet

    size = 0
    for number, value in enumerate(iter_parquet(path), 1):
        raw = json.dumps(value, ensure_ascii=False, default=_as_text)
        size += len(raw)
        check_growth(path, number, size, 1000)  # equal values of a column are stored once
        row = Row(number, json.loads(raw), raw)
        try:
            check_arguments(row.value)
        except RowError as error:
            yield row.rejected(error)
        else:
            yield row


def _as_text(value: object) -> str:
    """A value that JSON does not have, such as a date or a binary text, as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
