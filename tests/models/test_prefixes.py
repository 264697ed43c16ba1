"""A prefix that one process computed is loaded by the next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from agentft.models import Sampling, prefixes
from agentft.models.completion import TextRequest
from agentft.models.decoding import Prefix
from agentft.models.hf import HfEngine
from agentft.types import Segment
from tests.tiny import tiny_model, tiny_tokenizer

SYSTEM = Segment("You are a helpful assistant. " * 12, False, "system")


class Counting:
    """An engine that counts the tokens that its model reads."""

    def __init__(self, folder: Path, source: str = "tiny", change: float = 0.0) -> None:
        self.read = 0
        network = tiny_model()
        with torch.no_grad():
            network.model.layers[0].mlp.down_proj.weight += change
        network.register_forward_pre_hook(self._count, with_kwargs=True)
        self.engine = HfEngine(network, tiny_tokenizer(), "tiny")
        self.engine.keep_prefix(folder, source)

    def say(self, text: str) -> tuple[str, int]:
        """The completion, and the tokens that were read for it, but not those that it generated."""
        self.read = 0
        request = TextRequest("x", (SYSTEM, Segment(text, False, "user")), ())
        (made,) = self.engine.complete([request], Sampling(max_new_tokens=4), lambda *_: None)
        return made.text, self.read

    def _count(self, _: object, __: object, given: dict[str, Any]) -> None:
        self.read += given["input_ids"].numel()


def test_the_next_process_reads_the_end_only(tmp_path: Path) -> None:
    (said, first), (again, second) = Counting(tmp_path).say("Hi"), Counting(tmp_path).say("Hi")
    assert said == again
    assert first > 50
    assert second <= 5


def test_only_the_first_prefix_is_kept(tmp_path: Path) -> None:
    one = Counting(tmp_path)
    one.say("Hi")
    one.engine._prefixes.clear()
    one.say("Hello there")
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("other", [{"source": "other"}, {"change": 0.01}])
def test_another_model_reads_for_itself(tmp_path: Path, other: dict[str, Any]) -> None:
    assert Counting(tmp_path).say("Hi")[1] == Counting(tmp_path, **other).say("Hi")[1]
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None])
def test_a_damaged_file_is_written_anew(tmp_path: Path, damage: bytes | None) -> None:
    said, first = Counting(tmp_path).say("Hi")
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] if damage is None else damage)
    assert Counting(tmp_path).say("Hi") == (said, first)
    assert path.read_bytes() == whole


def test_few_and_small_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = prefixes.PrefixFiles(tmp_path / "kept", "model")
    made = [Prefix((number, 1), ((torch.ones(1, 2, 3), torch.zeros(1, 2, 3)),)) for number in range(6)]
    for number, prefix in enumerate(made):
        files.save(prefix)
        os.utime(files._path(prefix.tokens), (number, number))
    assert [files.load(prefix.tokens) is not None for prefix in made] == [False, False, True, True, True, True]
    monkeypatch.setattr(prefixes, "_BYTES", 47)
    files.save(made[0])
    assert files.load(made[0].tokens) is None
    monkeypatch.setattr(prefixes, "_BYTES", 48)
    files.save(made[0])
    assert files.load(made[0].tokens) is not None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Counting(tmp_path / "file" / "folder").say("Hi")[1] > 50
