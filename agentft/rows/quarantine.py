"""The quarantine: a JSONL file with each rejected row in full and its reason."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from agentft.errors import InputError
from agentft.files import atomic_write
from agentft.rows.ledger import Rejection
from agentft.rows.sources import open_bytes

__all__ = ["OnReject", "open_quarantine"]

_CHUNK = 786_432  # bytes; a multiple of 3, so that base64 of the chunks can be concatenated


OnReject: TypeAlias = Callable[[Rejection], None]
"""Called with each rejected row."""


@contextmanager
def open_quarantine(source: Path, path: Path | None) -> Iterator[OnReject]:
    """Write rejected rows of `source` to `path` (None: nowhere). The file appears only if the block ends without error.

    Raises:
        InputError: `path` is the data file itself, or cannot be written.
    """
    if path is None:
        yield lambda _: None
        return
    if path.exists() and (path.is_dir() or path.samefile(source)):
        raise InputError(f"the quarantine file {path} is a folder or the data file itself; name another file")
    with atomic_write(path) as stream:
        yield lambda rejection: stream.writelines(_line(rejection, source))


def _line(rejection: Rejection, source: Path) -> Iterator[str]:
    """`{"line", "reason", "detail", "turn", "offset", "raw" or "raw_base64"}`, in pieces because rows may be long."""
    head = {key: getattr(rejection, key) for key in ("line", "reason", "detail", "turn", "offset")}
    if isinstance(rejection.raw, str) and rejection.extent is None:
        yield json.dumps({**head, "raw": rejection.raw}, ensure_ascii=False) + "\n"
        return
    yield json.dumps(head, ensure_ascii=False)[:-1] + ', "raw_base64": "'
    yield from (base64.b64encode(piece).decode() for piece in _pieces(rejection, source))
    yield '"}\n'


def _pieces(rejection: Rejection, source: Path) -> Iterator[bytes]:
    if rejection.extent is None:
        yield rejection.raw if isinstance(rejection.raw, bytes) else rejection.raw.encode()
        return
    start, left = rejection.extent
    with open_bytes(source) as stream:
        stream.seek(start)
        while left and (piece := stream.read(min(left, _CHUNK))):
            left -= len(piece)
            yield piece
