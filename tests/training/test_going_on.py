"""An interrupted run goes on with the settings, the model and the number of packs that it began with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from agentft.errors import InputError
from agentft.models.opening import open_model
from agentft.runs import RunFolder
from agentft.training import run
from agentft.training.ranks import Ranks
from agentft.training.recipe import Recipe
from tests.engine.samples import write_rows
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, rows and a run that was stopped after its first step."""
    place = tmp_path_factory.mktemp("begun")
    model, rows = save_tiny(place / "tiny"), write_rows(place / "rows.jsonl", 12)
    recipe = Recipe(model=str(model), data=(str(rows),), output=str(place / "run"), pack_tokens=320, lora_r=4)
    run.train(recipe, lambda event: None, lambda: True)
    return place


@pytest.fixture
def stopped(begun: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(begun / "run", tmp_path / "run")))


def edit(folder: RunFolder, **settings: str) -> None:
    text = folder.recipe.read_text(encoding="utf-8")
    for key, value in settings.items():
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
    folder.recipe.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("key", "value"), [("lr", "0.5"), ("seed", "3"), ("lora_r", "8"), ("epochs", "2")])
def test_an_edited_setting_is_named_and_not_ignored(stopped: RunFolder, key: str, value: str) -> None:
    edit(stopped, **{key: value})
    with pytest.raises(InputError, match=rf"recipe\.toml: edited since the run began: {key} \(it was "):
        run.resume(stopped, lambda event: None)


def test_more_processes_than_packs_in_a_step_are_refused(stopped: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "join_ranks", lambda: Ranks(size=2))
    with pytest.raises(InputError, match=r"batch = 1, so 2 processes are too many to continue it; give at most 1"):
        run.resume(stopped, lambda event: None)


def test_a_moved_run_goes_on_but_not_with_another_model(begun: Path, stopped: RunFolder, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(begun / "tiny", tmp_path / "moved"))
    rows = shutil.copy(begun / "rows.jsonl", tmp_path / "moved.jsonl")
    edit(stopped, model=f'"{moved}"', data=f'["{rows}"]', save_steps="7")
    weights = moved / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: 1.5 * tensor for name, tensor in tensors.items()}, weights, {"format": "pt"})
    with pytest.raises(InputError, match=r"the weights in .*moved have changed since .*run began"):
        run.resume(stopped, lambda event: None)

    save_file(tensors, weights, {"format": "pt"})
    done = run.resume(stopped, lambda event: None)
    assert done.weights == stopped.path / "adapter"
    save_file({name: 1.5 * tensor for name, tensor in tensors.items()}, weights, {"format": "pt"})
    with pytest.raises(InputError, match=r"the weights in .*moved have changed"):
        open_model(None, str(stopped.path))
