"""Checkpoint folders are atomic, also when the disk is full."""

from __future__ import annotations

import errno
from collections import namedtuple
from pathlib import Path

import pytest
from safetensors import SafetensorError

from agentft.training.checkpoints import complete_folder

Usage = namedtuple("Usage", "total used free")


def fail(target: Path, error: Exception) -> None:
    with complete_folder(target) as partial:
        (partial / "weights").write_text("new")
        raise error


@pytest.mark.parametrize("kind", [RuntimeError, SafetensorError])
def test_a_full_disk_is_reported_whatever_the_library_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    target = tmp_path / "checkpoint-2"
    target.mkdir()
    (target / "weights").write_text("old")
    with pytest.raises(kind, match="unexpected pos"):
        fail(target, kind("unexpected pos"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1, 1, 0))
    with pytest.raises(OSError, match="No space left") as caught:
        fail(target, kind("unexpected pos"))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(target)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    assert (target / "weights").read_text() == "old"
