"""Files of rows as pieces of bytes, one a row: JSON lines or one JSON array, plain or gzipped, in constant memory."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

from agentft.errors import InputError

__all__ = ["ROW_LIMIT", "Raw", "is_parquet", "iter_raw", "open_bytes"]

ROW_LIMIT = 16 * 2**20
"""Bytes; a longer row is not read into memory."""

_CHUNK = 2**18
_BOM = b"\xef\xbb\xbf"
_STRUCTURE = re.compile(rb'[\[\]{},"]')
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class Raw(NamedTuple):
    """One row's bytes. `number` is its line, or its ordinal in an array (from 1). `start` and `length` are bytes of the
    file after decompression; `data` is None where the row is above `ROW_LIMIT`."""

    number: int
    start: int
    length: int
    data: bytes | None


def is_parquet(path: Path) -> bool:
    """Whether the file says so itself, whatever its name."""
    _check_readable(path)
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed; a stream that can seek.

    Raises:
        InputError: missing, not a file, unreadable, or (while it is read) damaged.
    """
    _check_readable(path)
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: the gzip stream is damaged or cut ({error}); fetch or pack it again") from None


def _check_readable(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder; name one of the data files in it")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path (JSONL, a JSON array or parquet is expected)")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; save the data to a file first")
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); change its permissions") from None


def iter_raw(path: Path) -> Iterator[Raw]:
    """The rows of a text file, in order; blank lines are none.

    Raises:
        InputError: see `open_bytes`; also a binary file.
    """
    with open_bytes(path) as stream:
        head = stream.read(1024)
        if b"\0" in head:
            raise InputError(f"{path} is not UTF-8 text (it holds NUL bytes); convert it to JSONL in UTF-8")
        start = len(_BOM) if head.startswith(_BOM) else 0
        stream.seek(start)
        array = head[start:].lstrip()[:1] == b"["
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


def _iter_array(stream: IO[bytes], start: int) -> Iterator[Raw]:
    """The elements of the array at `start`; what follows the array is read as lines, so that nothing gets lost."""
    scanner = _ArrayScanner(stream, start)
    yield from scanner
    stream.seek(scanner.base + scanner.at)
    yield from _iter_lines(stream, scanner.base + scanner.at, scanner.number)


class _ArrayScanner:
    """Finds where elements end by brackets and strings alone, so that one broken element costs no other.

    `buffer` holds the file's bytes from offset `base`; `at` is the place in it up to which was looked.
    """

    def __init__(self, stream: IO[bytes], start: int) -> None:
        self.stream = stream
        self.buffer = b""
        self.base = start
        self.at = 0
        self.number = 1
        self.element = start  # offset in the file of the element that is being looked at
        self.depth = 0  # brackets open, the array's own included
        self.in_string = False

    def __iter__(self) -> Iterator[Raw]:
        while self._fill():
            for mark in self._marks():
                if mark == b"[" and self.depth == 1:  # the array's own opening bracket
                    self.element = self.base + self.at
                    continue
                raw = self._cut(keep_blank=mark == b",")
                if raw:
                    yield raw
                if mark == b"]":
                    return
        self.at = len(self.buffer)
        rest = self._cut(keep_blank=False, marked=False)
        if rest:
            yield rest

    def _fill(self) -> bool:
        """Read on; keep what the current element needs, unless it is too long to be kept."""
        kept = self.at if self._length() > ROW_LIMIT else min(self.at, max(0, self.element - self.base))
        chunk = self.stream.read(_CHUNK)
        self.buffer = self.buffer[kept:] + chunk
        self.base += kept
        self.at -= kept
        return bool(chunk)

    def _length(self) -> int:
        return self.base + self.at - self.element

    def _marks(self) -> Iterator[bytes]:
        """The array's own brackets and the commas between its elements; `at` is behind each as it is given."""
        while True:
            if self.in_string:
                self.at = self._end_of(_IN_STRING)
                if not self.buffer.startswith(b'"', self.at):
                    return
                self.at += 1
                self.in_string = False
            found = _STRUCTURE.search(self.buffer, self.at)
            if not found:
                self.at = len(self.buffer)
                return
            self.at = found.end()
            yield from self._step(found[0])

    def _end_of(self, pattern: re.Pattern[bytes]) -> int:
        found = pattern.match(self.buffer, self.at)
        return found.end() if found else self.at

    def _step(self, mark: bytes) -> Iterator[bytes]:
        if mark == b'"':
            self.in_string = True
        elif mark in b"[{":
            self.depth += 1
            if self.depth == 1:
                yield b"["
        elif mark in b"]}":
            self.depth -= 1
            if self.depth <= 0:
                yield b"]"
        elif self.depth == 1:
            yield b","

    def _cut(self, *, keep_blank: bool, marked: bool = True) -> Raw | None:
        """The element that ends here (before the mark, if one was just passed), and on to the next."""
        length = self._length() - marked
        start, self.element = self.element, self.base + self.at
        if length > ROW_LIMIT:
            raw = Raw(self.number, start, length, None)
        else:
            data = self.buffer[start - self.base :][:length].strip()
            if not (data or keep_blank):
                return None
            raw = Raw(self.number, start, length, data)
        self.number += 1
        return raw
