"""Checkpoint folders are atomic, also when the disk is full, and a damaged one is never used."""

from __future__ import annotations

import errno
import random
from collections import namedtuple
from pathlib import Path

import pytest
from safetensors import SafetensorError

from agentft.errors import InputError
from agentft.files import write_digests
from agentft.training.checkpoints import complete_folder, last_intact, prune_checkpoints

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
