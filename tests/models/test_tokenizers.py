"""Models that must not be loaded: each is refused in one sentence, and none of its code runs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from agentft.errors import InputError, MissingError
from agentft.models.hf import HfEngine
from agentft.models.tokenizers import load_tokenizer
from agentft.training.recipe import Recipe
from agentft.training.resolve import read_architecture
from tests.tiny import save_tiny, tiny_model


def with_own_code(folder: Path, file: str, key: str) -> Path:
    """A model folder whose config asks transformers to run `evil.py`, which writes a file."""
    (folder / "evil.py").write_text(f"open({str(folder / 'RAN')!r}, 'w')\nclass C: pass\n")
    config = json.loads((folder / file).read_text())
    config |= {"auto_map": {key: ["evil.C", "evil.C"] if key == "AutoTokenizer" else "evil.C"}}
    config |= {"tokenizer_class": "Evil"} if key == "AutoTokenizer" else {"model_type": "evil"}
    (folder / file).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("key", ["AutoConfig", "AutoModelForCausalLM"])
def test_code_in_a_models_folder_never_runs(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail(f"the user was asked: {prompt}"))
    folder = with_own_code(save_tiny(tmp_path / "model"), "config.json", key)
    for load in (HfEngine.open, lambda where: read_architecture(Recipe(model=where))):
        with pytest.raises((InputError, MissingError)):
            load(str(folder))
    assert not (folder / "RAN").exists()


def test_code_in_a_tokenizers_folder_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail(f"the user was asked: {prompt}"))
    folder = with_own_code(save_tiny(tmp_path / "model"), "tokenizer_config.json", "AutoTokenizer")
    with pytest.raises(InputError, match="Python code of its own, which agentft never runs"):
        load_tokenizer(str(folder))
    assert not (folder / "RAN").exists()


class Opener:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_pickle_of_more_than_tensors_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as stream:
        pickle.dump({"model.embed_tokens.weight": Opener(tmp_path / "RAN")}, stream, protocol=2)
    with pytest.raises(InputError, match=r"a pickle that holds more than tensors.*convert them to safetensors"):
        HfEngine.open(str(folder))
    torch.save({**tiny_model().state_dict(), "x": Opener(tmp_path / "RAN")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"a pickle that holds more than tensors.*convert them to safetensors"):
        HfEngine.open(str(folder))
    assert not (tmp_path / "RAN").exists()


def test_a_pickle_of_tensors_is_loaded(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model().state_dict(), folder / "pytorch_model.bin")
    assert HfEngine.open(str(folder)).name == str(folder)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_file_is_named_as_such(file: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    (folder / file).write_bytes((folder / file).read_bytes()[:99])
    with pytest.raises((InputError, MissingError), match=r"damaged|cannot be loaded"):
        HfEngine.open(str(folder))
