"""Split data files into rows of bytes in constant memory: JSON lines or one JSON array, plain or gzipped."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

from agentft.errors import InputError

__all__ = ["ROW_LIMIT", "Raw", "check_growth", "is_parquet", "iter_raw", "open_bytes"]

ROW_LIMIT = 16 * 2**20
"""Bytes; a longer row is not read into memory."""

_CHUNK = 2**18
_FREE = 200_000  # bytes: smaller packed files count as that large
_MOST = 300  # bytes that a byte of gzip may become; rows of two short turns that share 80 tools reach 120
_BOM = b"\xef\xbb\xbf"
_INDENTED = re.compile(rb'\s*{[ \t]*\r?\n\s*"')
_TURNS = re.compile(rb'\s*\[ ?{ ?"(?:role|content)"')  # a line that is a list of turns, as XTuner writes its rows
_STRUCTURE = re.compile(rb'\[+|{+|[\]},"]')
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class Raw(NamedTuple):
    """One row's bytes. `number` is its line, or its number in an array (from 1). `start` and `length` are in bytes of
    the decompressed file; `data` is None if the row is longer than `ROW_LIMIT`."""

    number: int
    start: int
    length: int
    data: bytes | None


def is_parquet(path: Path) -> bool:
    """Whether the file starts with parquet's magic bytes; its name does not matter."""
    _check_readable(path)
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open the file as a seekable stream of decompressed bytes.

    Raises:
        InputError: the file is missing, not a regular file, unreadable or (while it is read) damaged.
    """
    _check_readable(path)
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: the gzip stream is damaged or truncated ({error}); download it again") from None


def check_growth(path: Path, rows: int, size: int, most: int) -> None:
    """Refuse a packed file which seconds of reading show to be little else than repetition: it would take hours.

    Args:
        rows: how many were read so far. `size`: their bytes, unpacked.
        most: bytes that a packed byte may become. Each row must take at least four packed ones.

    Raises:
        InputError: it becomes too much.
    """
    packed = path.stat().st_size
    if rows * 4 + size // most > max(packed, _FREE):
        raise InputError(
            f"{path} ({packed:,} bytes) unpacks to at least {rows:,} rows and {size >> 20:,} MiB, so nearly all of it "
            "repeats; remove what repeats or, if it is right as it is, give the unpacked rows as JSONL"
        )


def _check_readable(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder; join its files into one: jq -c . {path}/* > rows.jsonl")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path (JSONL, a JSON array or parquet is expected)")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; save the data to a file first")
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); change its permissions") from None


def iter_raw(path: Path) -> Iterator[Raw]:
    """The rows of a text file, in order, without blank lines.

    Raises:
        InputError: see `open_bytes`; also if the file is binary.
    """
    with open_bytes(path) as stream:
        head = stream.read(1024)
        if b"\0" in head:
            raise InputError(f"{path} is not UTF-8 text (it contains NUL bytes); convert it to JSONL in UTF-8")
        start = len(_BOM) if head.startswith(_BOM) else 0
        stream.seek(start)
        if _INDENTED.match(head, start):
            remedy = "write a row per line, as jq -c . FILE does or, where a key holds the rows, jq .KEY FILE"
            raise InputError(f"{path} is an indented JSON object; {remedy}")
        array = head[start:].lstrip()[:1] == b"[" and not _TURNS.match(head, start)
        yield from _iter_array(stream, start) if array else _iter_lines(stream, start, 1)


def _iter_lines(stream: IO[bytes], start: int, number: int) -> Iterator[Raw]:
    while line := stream.readline(ROW_LIMIT + 1):
        length, data = len(line), cast("bytes | None", line)
        if length > ROW_LIMIT and not line.endswith(b"\n"):
            data = None
            while line and not line.endswith(b"\n"):
                line = stream.readline(_CHUNK)
                length += len(line)
        if data is None:
            yield Raw(number, start, length, None)
        elif data.strip():
            yield Raw(number, start, length, data.rstrip(b"\r\n"))
        start += length
        number += 1
        if not number % 1024 or length > _CHUNK:
            _check_gzip(stream, number, start)


def _check_gzip(stream: object, rows: int, size: int) -> None:
    if isinstance(stream, gzip.GzipFile):
        check_growth(Path(str(stream.name)), rows, size, _MOST)


def _iter_array(stream: IO[bytes], start: int) -> Iterator[Raw]:
    """The elements of the array at `start`. Text after the array is read as lines, so that nothing is lost.

    Elements are split by brackets and strings alone, so that a broken element does not affect the others.
    """
    number, depth, in_string = 1, 0, False
    element = start  # offset of the current element in the file
    buffer, base, at = b"", start, 0  # the file's bytes from offset `base` on, scanned up to `buffer[at]`
    while chunk := stream.read(_CHUNK):
        _check_gzip(stream, number, base)
        # Keep the bytes of the current element, unless it is too long.
        drop = at if base + at - element > ROW_LIMIT else min(at, element - base)
        buffer, base, at = buffer[drop:] + chunk, base + drop, at - drop
        while True:
            mark, at, in_string = _next_mark(buffer, at, in_string)
            if not mark:
                break
            if depth == 0 and mark[:1] == b"[":  # the first is the array's own opening bracket
                element = base + at - len(mark) + 1
            depth += len(mark) if mark[0] in b"[{" else -1 if mark in b"]}" else 0
            if depth <= 0 or (depth == 1 and mark == b","):
                raw = _element(number, element, base + at - 1, buffer[element - base : at - 1])
                if raw.data != b"" or mark == b",":
                    yield raw
                    number += 1
                element = base + at
            if depth <= 0:
                stream.seek(element)
                yield from _iter_lines(stream, element, number)
                return
    raw = _element(number, element, base + len(buffer), buffer[element - base :])
    if raw.data != b"":
        yield raw


def _next_mark(buffer: bytes, at: int, in_string: bool) -> tuple[bytes, int, bool]:
    """The next comma, bracket or run of equal opening brackets outside strings (b"" if there is none), the position
    after it, and whether that is inside a string. `in_string`: whether `at` is inside a string."""
    while True:
        if in_string:
            inside = _IN_STRING.match(buffer, at)
            at = inside.end() if inside else at
            if not buffer.startswith(b'"', at):
                return b"", at, True
            at += 1
        found = _STRUCTURE.search(buffer, at)
        if not found:
            return b"", len(buffer), False
        at, in_string = found.end(), found[0] == b'"'
        if not in_string:
            return found[0], at, False


def _element(number: int, start: int, end: int, held: bytes) -> Raw:
    return Raw(number, start, end - start, held.strip() if end - start <= ROW_LIMIT else None)
