"""What the first process stores for the others is what it prepared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agentft.engine.collation import collate
from agentft.engine.packing import epoch_packs, pack_in_order
from agentft.training.stored import load_samples, save_samples
from tests.engine.samples import nested


def test_stored_samples_and_packs_are_equal_and_outlive_their_file(tmp_path: Path) -> None:
    samples = nested()
    packs = epoch_packs(samples, 60, 0, 0)
    save_samples(samples, packs, tmp_path / "samples")
    found, found_packs = load_samples(tmp_path / "samples")
    (tmp_path / "samples").unlink()

    assert list(found) == [replace(sample, id="") for sample in samples]
    assert list(found_packs) == packs
    assert found[1:3] == [found[1], found[2]]
    assert found_packs[-1] == packs[-1]
    ours, theirs = collate(packs[:1], samples, 8), collate(found_packs[:1], found, 8)
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    assert ours["weights"].tolist() == theirs["weights"].tolist()
    assert pack_in_order(found, [0, 1, 2], 60) == pack_in_order(samples, [0, 1, 2], 60)
