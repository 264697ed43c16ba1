"""Atomic checkpoint folders: written under a temporary name, synced, and renamed at the end.

A checkpoint holds the digests of its files, so that a damaged one is never loaded.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from agentft.errors import InputError
from agentft.files import find_damage, fsync_folder, lock_folder, naming

__all__ = [
    "clear_partial",
    "complete_folder",
    "disk_errors",
    "last_intact",
    "partial_name",
    "prune_checkpoints",
    "set_aside",
    "step_of",
]

_NAME = re.compile(r"checkpoint-(\d+)")
_PARTIAL = ".partial-"
_DAMAGED = "damaged-"
_PROBE = 1 << 20
"""Bytes that a disk with room takes."""


@contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; at the end it replaces `target`.

    Raises:
        InputError: another process writes `target`.
        OSError: the disk or the quota is full, or a file is too large for it.
    """
    partial = partial_name(target)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(partial.parent, "written"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            with naming(target), disk_errors(partial, target):
                yield partial
            _sync(partial)
            _remove(target)
            partial.rename(target)
            fsync_folder(target.parent)
        finally:
            shutil.rmtree(partial.parent, ignore_errors=True)


@contextmanager
def disk_errors(partial: Path, target: Path) -> Iterator[None]:
    """Turn what torch, safetensors and shutil raise when the system refuses a write to `partial` into an OSError.

    Most of them have its number in their text. torch has not, so writing is tried once more.
    """
    try:
        yield
    except (RuntimeError, SafetensorError, shutil.Error) as error:
        match = re.search(r"(?:os error|Errno) (\d+)", str(error))
        number = int(match[1]) if match else 0
        try:
            (partial / "probe").write_bytes(bytes(_PROBE))
        except OSError as refused:
            number = number or refused.errno or 0
        if number:
            raise OSError(number, os.strerror(number), str(target)) from error
        raise


def partial_name(target: Path) -> Path:
    """The temporary folder that becomes `target`. The one around it is locked by the process that writes it."""
    return target.with_name(_PARTIAL + target.name) / target.name


def clear_partial(folder: Path) -> None:
    """Remove the temporary folders in `folder` that a killed process left."""
    for partial in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(partial)


def last_intact(folder: Path, on_damage: Callable[[str], None]) -> Path | None:
    """The latest checkpoint in `folder` that is not damaged; None if there are no checkpoints.

    Later, damaged ones are renamed to `damaged-checkpoint-<step>`, and `on_damage` receives a sentence about each.

    Raises:
        InputError: all checkpoints are damaged; they keep their names.
    """
    damaged: list[tuple[Path, str]] = []
    for checkpoint in sorted(_checkpoints(folder), key=step_of, reverse=True):
        if damage := find_damage(checkpoint):
            damaged.append((checkpoint, damage))
            continue
        for later, why in damaged:
            aside = set_aside(later)
            on_damage(f"{why}; continuing from {checkpoint.name}, and {later.name} is kept as {aside.name}")
        return checkpoint
    if damaged:
        raise InputError(f"{damaged[0][1]}, and no earlier checkpoint is intact; to start again, remove {folder}")
    return None


def set_aside(folder: Path) -> Path:
    """Rename a damaged folder to `damaged-<name>`; return its new path."""
    aside = folder.with_name(_DAMAGED + folder.name)
    _remove(aside)
    folder.rename(aside)
    return aside


def prune_checkpoints(folder: Path, keep: int, best: int = 0) -> None:
    """Remove all but the latest `keep` checkpoints and that of step `best`."""
    for old in sorted(_checkpoints(folder), key=step_of)[:-keep]:
        if step_of(old) != best:
            _remove(old)


def step_of(checkpoint: Path) -> int:
    """The step after which `checkpoint` was saved."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else -1


def _checkpoints(folder: Path) -> list[Path]:
    return [entry for entry in folder.glob("checkpoint-*") if step_of(entry) >= 0]


def _remove(folder: Path) -> None:
    """Remove a folder, if it exists. It is renamed first, so that none is ever partly deleted under its name."""
    doomed = folder.with_name(f"{_PARTIAL}removed-{folder.name}")
    with suppress(FileNotFoundError):
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _sync(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        fsync_folder(path)  # a file, too
