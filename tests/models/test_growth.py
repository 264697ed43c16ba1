"""A tokenizer that makes texts many times as long is refused before it is loaded."""

from __future__ import annotations

import base64
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from agentft.commands import run
from agentft.errors import InputError, MissingError
from agentft.models.growth import check_steps, growth
from agentft.models.tokenizers import load_tokenizer
from tests.engine.samples import write_rows
from tests.tiny import tiny_tokenizer


def replace(text: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": text}, "content": content}


def matching(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def charsmap(*texts: str) -> dict[str, Any]:
    table = b"\4\0\0\0" + b"trie" + b"".join(text.encode() + b"\0" for text in texts)
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
HONEST = {
    "none": None,
    "empty": sequence(),
    "Llama 2": sequence({"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")),
    "T5": sequence(charsmap("صلى الله عليه وسلم", "ss"), {"type": "Strip"}, matching(" {2,}", "▁")),
    "CLIP": sequence({"type": "NFC"}, matching(r"\s+", " "), {"type": "Lowercase"}),
    "many signs": sequence(*[replace(sign, "...") for sign in "…‥⋯᠁"], *[matching(r"\p{Pd}", "-")] * 40),
    "apart": sequence(replace("b", "ccccc"), replace("a", "bbbbb")),
    "bytes": {"type": "Sequence", "pretokenizers": [BYTES]},
}
HOSTILE = {
    "one": replace("a", "b" * 21),
    "nested": sequence(*[replace("a", "aa")] * 5),
    "chain": sequence(replace("a", "bbbbb"), replace("b", "ccccc")),
    "longer pattern": sequence(*[replace("aa", "aaaa")] * 5),
    "looks ahead": matching("(?=a)", "b" * 20),
    "no text": replace("", "b" * 20),
    "lazy": sequence(*[matching("a{2}?", "aaa")] * 3),
    "before each": {"type": "Prepend", "prepend": "b" * 20},
    "without a type": sequence(*[{"pattern": {"String": "a"}, "content": "aa"}] * 5),
    "in a sequence": sequence(sequence(replace("a", "aaaaa")), sequence(replace("a", "aaaaa"))),
    "table": charsmap("a" * 21),
    "under another key": sequence(*[{**replace("a", "aaaaa"), "prepend": "b", "normalizers": [{"type": "NFC"}]}] * 2),
    "bytes": {"type": "Sequence", "pretokenizers": [BYTES] * 3},
    "decoders": {"type": "Sequence", "decoders": [{"type": "Fuse"}, *[replace("a", "aa")] * 5]},
}


def save(folder: Path, **changes: Any) -> Path:
    """A tokenizer's folder whose tokenizer.json has these parts."""
    tiny_tokenizer().save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"] |= changes.pop("model", {})
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", HONEST)
def test_honest_steps_are_accepted(name: str) -> None:
    assert growth(HONEST[name]) <= 20


@pytest.mark.parametrize("name", HOSTILE)
def test_steps_that_fill_the_memory_are_refused(name: str) -> None:
    assert growth(HOSTILE[name]) > 20


def test_the_growth_of_the_steps_is_multiplied(tmp_path: Path) -> None:
    folder = save(tmp_path, normalizer=replace("a", "bbbbbb"))
    with pytest.raises(InputError, match="its steps make up to 24 characters of one"):
        check_steps(folder)


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (replace("aa", "aaaa"), 2),
        (matching("a", "bb"), 2),
        (matching("a?", "bb"), 4),  # in place of it, and at its end
        ({"type": "Sequence", "pretokenizers": [BYTES]}, 4),
        (charsmap("a" * 21, "b"), 21),
        (charsmap(), 1),
        (sequence(replace("a", "b"), charsmap("a")), 1),
    ],
)
def test_the_growth_of_a_step(step: dict[str, Any], factor: int) -> None:
    assert growth(step) == factor


def test_the_limits_are_accepted_and_one_more_is_refused(tmp_path: Path) -> None:
    for more in (0, 1):
        for part in ({"normalizer": replace("a", "b" * (20 + more))}, {"model": {"vocab": {"a" * (4096 + more): 0}}}):
            folder = save(tmp_path / f"{more}{[*part]}", pre_tokenizer=None, **part)
            with pytest.raises(InputError, match="can fill the memory") if more else nullcontext():
                check_steps(folder)


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "decoder"])
def test_each_part_is_checked_before_the_tokenizer_is_loaded(part: str, tmp_path: Path) -> None:
    folder = save(tmp_path, **{part: sequence(*[replace("a", "a" * 10)] * 6)})
    with pytest.raises(InputError, match=r"tokenizer.json: its steps make up to [14],000,000 characters of one"):
        load_tokenizer(str(folder))


def test_the_tokenizer_of_a_hub_id_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached = tmp_path / "models--org--name"
    (save(cached / "snapshots" / "abc") / "config.json").write_text('{"model_type": "llama"}')
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert len(load_tokenizer("org/name")) == len(tiny_tokenizer())
    save(cached / "snapshots" / "abc", normalizer=sequence(*[replace("a", "a" * 10)] * 6))
    with pytest.raises(InputError, match=r"abc/tokenizer.json: its steps make up to [14],000,000 characters of one"):
        load_tokenizer("org/name")
    (cached / "snapshots" / "abc" / "tokenizer.json").unlink()
    with pytest.raises(MissingError, match="instantiate the backend tokenizer"):
        load_tokenizer("org/name")


@pytest.mark.parametrize("vocabulary", [{"a" * 5000: 0}, [["a" * 5000, -1.0]]], ids=["BPE", "Unigram"])
def test_a_token_of_thousands_of_characters_is_refused(vocabulary: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its longest token has 5,000"):
        check_steps(save(tmp_path, model={"vocab": vocabulary}))


def test_a_tokenizer_without_words_is_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="4,000 characters of one"):
        check_steps(save(tmp_path, normalizer=replace("a", "b" * 1000), model={"vocab": {}}))


@pytest.mark.parametrize(
    "content", ["[", "[]", "{}", '{"normalizer": 1, "model": 2}', '{"model": {"vocab": 5}}', "[" * 2000]
)
def test_a_damaged_file_is_left_to_its_library(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    check_steps(tmp_path)


def test_the_files_beside_a_damaged_one_are_checked(tmp_path: Path) -> None:
    save(tmp_path, normalizer=replace("a", "b" * 1000), pre_tokenizer=None)
    for number in range(20):  # in the order of the folder, some of them come first
        (tmp_path / f"tokenizer-{number}.json").mkdir()
    with pytest.raises(InputError, match="1,000 characters of one"):
        check_steps(tmp_path)


def test_a_panic_of_a_library_is_one_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "model", model={"continuing_subword_prefix": "p" * 1000})
    rows = write_rows(tmp_path / "rows.jsonl", 1)
    assert run(["data", "mask", str(rows), "--model", str(folder)]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: a library cannot use a file of the model (range end index")
