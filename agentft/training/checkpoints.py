"""Atomic checkpoint folders: written under a temporary name, synced, and renamed at the end."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from agentft.files import fsync_folder

__all__ = ["clear_partial", "complete_folder", "last_checkpoint", "prune_checkpoints", "step_of"]

_NAME = re.compile(r"checkpoint-(\d+)")
_PARTIAL = ".partial-"
_MIN_FREE = 1 << 20
"""A disk with fewer free bytes counts as full."""


@contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; at the end it replaces `target`.

    Raises:
        OSError: the disk is full; errors of torch and safetensors that it caused are converted.
    """
    partial = target.with_name(_PARTIAL + target.name)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _sync(partial)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        fsync_folder(target.parent)
    except (RuntimeError, SafetensorError) as error:
        if shutil.disk_usage(partial).free < _MIN_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def clear_partial(folder: Path) -> None:
    """Remove the temporary folders in `folder` that a killed process left."""
    for partial in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(partial)


def last_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint in `folder`; None if there is none."""
    return max(_checkpoints(folder), key=step_of, default=None)


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the latest `keep` checkpoints. Each is renamed first, so that none is ever partly deleted."""
    for old in sorted(_checkpoints(folder), key=step_of)[:-keep]:
        doomed = old.with_name(_PARTIAL + old.name)
        old.rename(doomed)
        shutil.rmtree(doomed)


def step_of(checkpoint: Path) -> int:
    """The step after which `checkpoint` was saved."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else -1


def _checkpoints(folder: Path) -> list[Path]:
    return [entry for entry in folder.glob("checkpoint-*") if step_of(entry) >= 0]


def _sync(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "rb") as stream:
                os.fsync(stream.fileno())
        fsync_folder(Path(root))
