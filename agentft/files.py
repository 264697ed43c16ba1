"""Atomic file writes: a crash leaves the old content or the new, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["atomic_write", "fsync_folder", "write_text"]


@contextmanager
def atomic_write(path: Path) -> Iterator[TextIO]:
    """Open a temporary file beside `path`; on success fsync it and rename it over `path`, on failure remove it.

    Text is written as UTF-8 with unchanged newlines.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        fsync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Atomically write `text` to `path`."""
    with atomic_write(path) as stream:
        stream.write(text)


def fsync_folder(folder: Path) -> None:
    """Fsync `folder`, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
