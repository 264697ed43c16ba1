"""An export keeps those of the base's files that servers need and transformers does not save as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from agentft.export.originals import keep_originals
from tests.tiny import save_tiny, tiny_tokenizer

SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "additional_special_tokens": ["<|im_start|>"],
    "eos_token": "<|im_end|>",
    "chat_template": "the base's",
}
FILES = ("tokenizer.model", "preprocessor_config.json", "merges.txt")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model folder as transformers 4 wrote it."""
    folder = save_tiny(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_parameters")
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 5e5, "rope_scaling": None}))
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    for name in FILES:
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def target(tmp_path: Path, base: Path) -> Path:
    """The same, saved by transformers 5, with another template."""
    folder, tokenizer = tmp_path / "export", tiny_tokenizer()
    tokenizer.chat_template = "the run's"
    tokenizer.save_pretrained(folder)
    AutoConfig.from_pretrained(base).save_pretrained(folder)
    return folder


def test_what_older_servers_read_is_the_bases(base: Path, target: Path) -> None:
    keep_originals(str(base), target, added=False)
    for name in FILES:
        assert (target / name).read_text() == name
    settings = json.loads((target / "tokenizer_config.json").read_text())
    assert settings == {key: value for key, value in SETTINGS.items() if key != "chat_template"}
    assert AutoTokenizer.from_pretrained(target).chat_template == "the run's"
    config = json.loads((target / "config.json").read_text())
    assert (config["rope_theta"], config["rope_parameters"]["rope_theta"]) == (5e5, 5e5)
    assert AutoConfig.from_pretrained(target).rope_parameters == AutoConfig.from_pretrained(base).rope_parameters


def test_a_tokenizer_with_added_tokens_is_the_runs(base: Path, target: Path) -> None:
    before = (target / "tokenizer_config.json").read_text()
    keep_originals(str(base), target, added=True)
    assert (target / "tokenizer_config.json").read_text() == before
    assert not (target / "merges.txt").exists()
    assert (target / "tokenizer.model").exists()


def test_a_base_that_is_gone_or_has_no_such_files_changes_nothing(tmp_path: Path, target: Path) -> None:
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    for model in (str(tmp_path / "gone"), str(save_tiny(tmp_path / "plain"))):
        keep_originals(model, target, added=True)
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before
