"""Models that must not be loaded: each is refused in one sentence, and none of its code runs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from agentft.errors import InputError, MissingError
from agentft.models import Sampling
from agentft.models.completion import TextRequest
from agentft.models.hf import HfEngine
from agentft.models.tokenizers import load_tokenizer, located
from agentft.training.recipe import Recipe
from agentft.training.resolve import plan_cards, read_architecture
from agentft.training.run import dry_run, read_data
from agentft.types import Segment
from tests.engine.samples import write_rows
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer


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
    with pytest.raises(InputError, match="needs its own Python code, which agentft never runs; use another"):
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


def test_tokens_without_an_embedding_are_refused_before_training_and_in_serving(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    tokenizer.save_pretrained(folder)
    path = write_rows(tmp_path / "rows.jsonl", 2)
    recipe = Recipe(model=str(folder), data=(str(path),), format="hermes")
    message = r"has 402 tokens, but the model has embeddings for 400; the rows use 2 .*'<tool_call>', '</tool_call>'"
    for refuse in (lambda: dry_run(recipe, lambda event: None), lambda: plan_cards(recipe, read_data(recipe).samples)):
        with pytest.raises(InputError, match=message):
            refuse()
    engine = HfEngine.open(str(folder))
    with pytest.raises(InputError, match="the rows use 1 of the tokens without one"):
        engine.complete([TextRequest("k", (Segment("<tool_call>", False, "user"),), ())], Sampling(max_new_tokens=1))


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_too_little_memory_is_not_called_a_damaged_file(error: Exception, tmp_path: Path) -> None:
    def load() -> None:
        raise error

    with pytest.raises(InputError, match=r"too little memory for '.*' \((Out|Mem).*\); use fewer bits, or another"):
        located(str(tmp_path), load)
