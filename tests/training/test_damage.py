"""A damaged result of a finished run is named with its remedy, never loaded, and made again on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from agentft.commands import run as cli
from agentft.errors import InputError
from agentft.files import find_damage, write_digests
from agentft.runs import RunFolder, find_finished
from agentft.training import run
from agentft.training.events import Event, Note
from agentft.training.recipe import Recipe
from tests.engine.samples import write_rows
from tests.tiny import save_tiny


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    rows = write_rows(tmp_path / "rows.jsonl", 12)
    return Recipe(
        model=str(save_tiny(tmp_path / "tiny")),
        data=(str(rows),),
        output=str(tmp_path / "run"),
        pack_tokens=320,
        lr=0.01,
        save_steps=2,
        max_steps=3,
        dtype="fp32",
    )


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load((folder / "adapter" / "adapter_model.safetensors").read_bytes())
    return tensors


def damages(weights: Path) -> dict[str, Callable[[], object]]:
    file = weights / "adapter_model.safetensors"
    whole = file.read_bytes()
    flipped = bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]])
    return {
        "adapter_model.safetensors is damaged": lambda: file.write_bytes(flipped),
        "adapter_model.safetensors is damaged: its": lambda: file.write_bytes(whole[:-1]),
        "adapter_model.safetensors cannot be read (No such file": file.unlink,
        "adapter_config.json is damaged": lambda: (weights / "adapter_config.json").write_text("{}"),
        "digests.json is damaged": lambda: (weights / "digests.json").write_text("{"),
    }


@pytest.mark.parametrize("name", ["../other", "/dev/zero", "a/../../other"])
def test_a_record_of_files_elsewhere_is_damaged(tmp_path: Path, name: str) -> None:
    """To read /dev/zero would have no end."""
    (tmp_path / "other").write_text("x")
    (tmp_path / "weights" / "a").mkdir(parents=True)
    (tmp_path / "weights" / "x").write_text("x")
    write_digests(tmp_path / "weights")
    assert find_damage(tmp_path / "weights") is None
    record = tmp_path / "weights" / "digests.json"
    record.write_text(record.read_text().replace('"x"', f'"{name}"'))
    assert find_damage(tmp_path / "weights") == f"{record} is damaged"


@pytest.mark.slow
def test_a_damaged_adapter_is_named_and_made_again(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    weights = run.train(recipe, lambda event: None).weights
    assert weights is not None
    expected = adapter(folder.path)
    (weights / "README.md").write_text("mine")
    assert find_finished(str(folder.path)).weights == weights
    for named, damage in damages(weights).items():
        damage()
        remedy = f"agentft train --resume {folder.path}"
        for command in (["eval", "--tools", "weather", "--quiet"], ["chat"]):
            assert cli([*command, "--adapter", str(folder.path)]) == 2
            shown = capsys.readouterr().err
            assert (shown.count("\n"), named in shown, remedy in shown) == (1, True, True), shown
        notes: list[Event] = []
        assert run.resume(folder, notes.append).weights == weights
        assert any(isinstance(note, Note) and named in note.text for note in notes)
        assert (folder.path / "damaged-adapter").is_dir()
        assert all(torch.equal(value, expected[name]) for name, value in adapter(folder.path).items())


def test_an_adapter_of_an_older_version_needs_its_weights(recipe: Recipe, tmp_path: Path) -> None:
    weights = run.train(recipe, lambda event: None).weights
    assert weights is not None
    (weights / "digests.json").unlink()
    assert find_finished(str(tmp_path / "run")).weights == weights
    (weights / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"adapter has no weights \(\*.safetensors\); restore "):
        find_finished(str(tmp_path / "run"))
