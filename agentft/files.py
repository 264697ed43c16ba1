"""Atomic file writes (a crash leaves the old content or the new, never a part), digests, and locks on folders."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from agentft.errors import InputError

__all__ = [
    "DIGESTS",
    "LOCK",
    "atomic_write",
    "clear_unfinished",
    "digest_of",
    "find_damage",
    "fsync_folder",
    "is_at",
    "json_of",
    "lock_folder",
    "lock_holder",
    "naming",
    "path_argument",
    "read_object",
    "write_digests",
    "write_text",
]

DIGESTS = "digests.json"
"""In a folder of weights: the SHA-256 of each other file, by name."""
LOCK = ".lock"
"""The lock file of a folder; it names the process that holds the lock."""


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Name the file in an error of the block, which writes it, by way of a temporary file or not.

    A full disk refuses a write without a name.
    """
    try:
        yield
    except OSError as error:
        named = str(error.filename or ".partial")
        if error.errno is not None and named.endswith(".partial"):  # without a number, the message is our own
            error.filename = str(path)
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[TextIO]:
    """Open a temporary file beside `path`; on success fsync it and rename it over `path`, on failure remove it.

    Text is written as UTF-8 with unchanged newlines; half a surrogate pair as its escape in JSON. A file that is there
    already keeps its permissions and, where this process may set them, its owner and group.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with naming(path), partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            with suppress(OSError):
                was = path.stat()
                os.fchmod(stream.fileno(), was.st_mode & 0o777)
                os.fchown(stream.fileno(), was.st_uid, was.st_gid)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Atomically write `text` to `path`."""
    with atomic_write(path) as stream:
        stream.write(text)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that may be missing or damaged; then it is empty."""
    try:
        found = json_of(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def json_of(content: str | bytes) -> Any:
    """The value of a document that agentft wrote. Any damage is a ValueError, values nested too deeply included."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def fsync_folder(folder: Path) -> None:
    """Fsync `folder`, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_digests(folder: Path) -> None:
    """Record the SHA-256 of every file in `folder` that is loaded, for `find_damage`; a README may be edited later."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"]
    digests = {path.relative_to(folder).as_posix(): own for path, own in zip(files, _digests(files), strict=True)}
    (folder / DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def find_damage(folder: Path) -> str | None:
    """A sentence about the first damaged or missing file; None if every recorded file has its digest."""
    record = folder / DIGESTS
    try:
        digests = json_of(record.read_bytes())
        if any({"/", ".."} & {*Path(name).parts} for name in digests):  # such as /dev/zero, which has no end
            raise ValueError
        found = _digests([folder / name for name, _ in digests.items()])
        wrong = next((name for name, own in zip(digests, found, strict=True) if own != digests[name]), None)
    except (ValueError, AttributeError, TypeError):
        return f"{record} is damaged"
    except OSError as error:
        return f"{error.filename or record} cannot be read ({error.strerror})"
    return f"{folder / wrong} is damaged: its SHA-256 is not the recorded one" if wrong else None


def _digests(files: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor() as pool:  # one by one, the shards of a 7B model would take minutes
        return list(pool.map(digest_of, files))


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def clear_unfinished(folder: Path) -> None:
    """Remove the temporary files in `folder` that killed processes left. Only for the holder of the folder's lock."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


@contextmanager
def lock_folder(folder: Path, use: str) -> Iterator[None]:
    """Lock `folder` for this process; the operating system frees the lock when the process ends or is killed.

    `use` says what this process does with the folder ("trained"), for the message that other processes get.

    Raises:
        InputError: another process holds the lock; the message names that process.
    """
    path = folder / LOCK
    text = f"being {use} by process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
    while True:
        with path.open("a+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                holder = stream.read().strip() or "in use by another process"
                raise InputError(f"{folder} is {holder}; wait for it, or stop it first") from None
            # The previous holder may have removed the file, and others would then lock a new one.
            if is_at(stream, path):
                with naming(path):
                    stream.truncate(0)
                    os.write(stream.fileno(), text.encode())  # not buffered: closing would fail again
                yield
                return


def lock_holder(folder: Path) -> int | None:
    """The process that holds the lock of `folder`; None if none does.

    The system frees the lock of a process that ends, so a number that another process has now is not taken for it.
    """
    with suppress(FileNotFoundError), (folder / LOCK).open("r", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found = re.search(r"by process (\d+)", stream.read())
            return int(found[1]) if found else None
    return None


def is_at(stream: IO[Any], path: Path) -> bool:
    """Whether an open file is the one that is at `path` now."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    return False


def path_argument(path: Path) -> str:
    """The path for a command line, where `mine` would be read as a name: `./mine`."""
    return str(path) if path.is_absolute() else f"./{path}"
