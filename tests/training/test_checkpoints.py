"""Checkpoint folders are atomic, also when the disk is full, and a damaged one is never used."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from agentft.errors import InputError
from agentft.files import find_damage, write_digests
from agentft.training.checkpoints import complete_folder, last_intact, prune_checkpoints


def fail(target: Path, error: Exception) -> None:
    with complete_folder(target) as partial:
        (partial / "weights").write_text("new")
        raise error


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """The system refuses to write more than `most` bytes into one file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def copy(source: Path, partial: Path) -> None:
    shutil.copytree(source, partial, dirs_exist_ok=True)


def save_tensors(_: Path, partial: Path) -> None:
    save_file({"x": torch.zeros(100_000)}, partial / "model.safetensors")


def save_state(_: Path, partial: Path) -> None:
    torch.save(torch.zeros(100_000), partial / "optimizer.pt")


def test_what_another_process_writes_is_refused_and_survives(tmp_path: Path) -> None:
    target = tmp_path / "merged"
    with complete_folder(target) as partial:
        (partial / "weights").write_text("half")
        with pytest.raises(InputError, match=rf"\.partial-merged is being written by process {os.getpid()}, since"):
            fail(target, ValueError())
        (partial / "weights").write_text("whole")
        write_digests(partial)
    assert (target / "weights").read_text() == "whole"
    assert find_damage(target) is None
    assert sorted(path.name for path in target.iterdir()) == ["digests.json", "weights"]
    partial.mkdir(parents=True)
    (partial / "left").write_text("by a killed process")
    with complete_folder(target) as partial:
        assert not [*partial.iterdir()]
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.parametrize("write", [copy, save_tensors, save_state])
def test_a_refused_write_is_an_os_error_whatever_the_library_raises(
    write: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "checkpoint-2"
    for folder in (source, target):
        folder.mkdir()
        (folder / "weights").write_bytes(bytes(400_000))
    with pytest.raises(OSError, match="File too large") as caught, small_files(200_000), complete_folder(target) as new:
        write(source, new)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(target))
    assert {path.name for path in tmp_path.iterdir()} == {"source", "checkpoint-2"}
    assert (target / "weights").stat().st_size == 400_000


@pytest.mark.parametrize("kind", [RuntimeError, SafetensorError])
def test_a_used_up_quota_is_told_from_a_bug(kind: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(kind, match="unexpected pos"):
        fail(tmp_path / "checkpoint-2", kind("unexpected pos"))
    with pytest.raises(OSError, match="quota"):
        fail(tmp_path / "checkpoint-2", kind("I/O error: Disk quota exceeded (os error 122)"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="No space left") as caught:
        fail(tmp_path / "checkpoint-2", OSError(errno.ENOSPC, "No space left"))
    assert caught.value.filename == str(tmp_path / "checkpoint-2")


def make_checkpoints(folder: Path, *steps: int) -> None:
    for step in steps:
        with complete_folder(folder / f"checkpoint-{step}") as partial:
            (partial / "adapter_model.safetensors").write_bytes(random.Random(step).randbytes(4_000))
            (partial / "state.pt").write_bytes(b"state")
            (partial / "rng").mkdir()
            (partial / "rng" / "0").write_bytes(b"generator")
            write_digests(partial)


def test_the_latest_intact_checkpoint_is_used_and_the_damage_named(tmp_path: Path) -> None:
    make_checkpoints(tmp_path, 2, 4, 10)
    said: list[str] = []
    assert last_intact(tmp_path, said.append) == tmp_path / "checkpoint-10"
    weights = tmp_path / "checkpoint-10" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2_000])
    (tmp_path / "checkpoint-4" / "rng" / "0").unlink()
    assert last_intact(tmp_path, said.append) == tmp_path / "checkpoint-2"
    assert len(said) == 2
    assert said[0].startswith(f"{weights} is damaged")
    assert said[1].startswith(f"{tmp_path}/checkpoint-4/rng/0 cannot be read (No such file")
    assert "continuing from checkpoint-2" in said[0]
    make_checkpoints(tmp_path, 3)
    prune_checkpoints(tmp_path, keep=1)
    left = {"checkpoint-3", "damaged-checkpoint-4", "damaged-checkpoint-10"}
    assert {entry.name for entry in tmp_path.iterdir()} == left


def test_without_an_intact_checkpoint_the_run_is_refused(tmp_path: Path) -> None:
    assert last_intact(tmp_path / "none", print) is None
    make_checkpoints(tmp_path, 2, 4)
    (tmp_path / "checkpoint-2" / "digests.json").unlink()
    (tmp_path / "checkpoint-4" / "digests.json").write_text("[]")
    with pytest.raises(InputError, match=r"checkpoint-4/digests.json is damaged, and no earlier .* remove "):
        last_intact(tmp_path, print)
    assert {entry.name for entry in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-4"}


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    make_checkpoints(tmp_path, 2)
    files = [path for path in (tmp_path / "checkpoint-2").rglob("*") if path.is_file()]
    for seed in range(200):
        drawn = random.Random(seed)
        path = drawn.choice(files)
        whole = path.read_bytes()
        place, bits = drawn.randrange(len(whole)), drawn.randrange(1, 256)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"damaged|cannot be read"):
            last_intact(tmp_path, print)
        path.write_bytes(whole)
