"""Tokens of a text, joined from pieces that the tokenizer itself separates, are the tokens of the whole text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from agentft.errors import FrameError
from agentft.rendering import pieces
from agentft.rendering.pieces import PieceCache, separates_runs, separates_words
from agentft.rendering.tokens import Run
from tests.rendering.test_tokens import spaced
from tests.tiny import tiny_tokenizer

GPT4 = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
TEXTS = st.text(st.sampled_from("ab A7_.,'\"{}\n\t\r \x1c\u3000é漢́\0<|>"), max_size=24)


def byte_level(steps: Any, **more: Any) -> Tokenizer:
    core = Tokenizer(tiny_tokenizer().backend_tokenizer.model)
    core.pre_tokenizer = steps
    for name, value in more.items():
        setattr(core, name, value)
    return core


@cache
def tokenizers() -> dict[str, Tokenizer]:
    """Tokenizers whose texts are cut into words."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(GPT4, "isolated")
    digits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return {
        "gpt2": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "prefix": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        "smollm2": byte_level(pre_tokenizers.Sequence(digits)),
        "qwen": byte_level(pre_tokenizers.Sequence([split, level]), normalizer=normalizers.NFC()),
    }


@cache
def probed(name: str) -> PieceCache:
    """A tokenizer is probed when its cache is made, which takes longer than a test."""
    return PieceCache(tokenizers()[name])


def empty_cache(name: str) -> PieceCache:
    for store in (probed(name)._texts, probed(name)):
        store.clear()
    return probed(name)


@settings(deadline=None, max_examples=300)
@given(TEXTS, TEXTS, st.sampled_from(["gpt2", "prefix", "smollm2", "qwen"]))
def test_pieces_give_the_tokens_and_offsets_of_the_whole_text(one: str, two: str, name: str) -> None:
    core, cache_of = tokenizers()[name], empty_cache(name)
    assert cache_of.words
    for text in (one, two, f"{one} {two}", f"{two} {one}", f"{one} {two}"):
        whole = core.encode(text, add_special_tokens=False)
        chunk = Run([], cache_of.encode(text))
        assert ([*chunk.ids], chunk.offsets) == (whole.ids, whole.offsets)
        places = range(len(text) + 1)
        assert list(chunk.cuts(places)) == [
            (sum(stop <= place for _, stop in whole.offsets), sum(start < place for start, _ in whole.offsets))
            for place in places
        ]


@pytest.mark.parametrize(
    "core",
    [
        spaced().backend_tokenizer,
        spaced(legacy=True).backend_tokenizer,
        byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
        byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer=normalizers.Lowercase()),
        Tokenizer(models.WordLevel({"a": 0}, unk_token="a")),
    ],
    ids=["metaspace", "legacy", "no-words", "normalizer", "not-bpe"],
)
def test_other_tokenizers_get_whole_texts(core: Tokenizer) -> None:
    assert not separates_words(core)
    text = "What is the weather in Rome? It is fine."
    assert len(PieceCache(core).encode(text)) == 1


@pytest.mark.parametrize("token", [AddedToken("a b"), AddedToken("<x>", lstrip=True), AddedToken("<x>", rstrip=True)])
def test_a_token_that_reaches_over_a_space_keeps_texts_whole(token: AddedToken) -> None:
    core = Tokenizer.from_str(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)).to_str())
    core.add_tokens([token])
    assert not separates_words(core)


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("gpt2", ['["', "Rome", "42", '"]', '["Rome42"]']),
        ("smollm2", ['["', "Rome", "4", "2", '"]', '["Rome42"]']),  # splits digits, too
        ("prefix", ['["Rome42"]']),
        ("qwen", ['["Rome42"]']),
    ],
)
def test_a_new_piece_is_made_of_runs_where_the_tokenizer_separates_them(name: str, runs: list[str]) -> None:
    asked = empty_cache(name)
    assert bool(asked.runs) == (len(runs) > 1)
    asked.encode('["Rome42"]')
    assert list(asked) == runs


@pytest.mark.parametrize(
    ("token", "separated"),
    [
        (AddedToken("word"), True),
        (AddedToken("<|>"), True),
        (AddedToken("<x>"), False),
        (AddedToken("n't"), False),
        (AddedToken("word", single_word=True), False),
        (AddedToken("<|x|>", special=True), True),
    ],
)
def test_a_token_that_reaches_over_runs_keeps_pieces_whole(token: AddedToken, separated: bool) -> None:
    core = Tokenizer.from_str(tokenizers()["gpt2"].to_str())
    (core.add_special_tokens if token.special else core.add_tokens)([token])
    assert separates_words(core)
    assert separates_runs(core) == separated
    core.encode_special_tokens = True
    cache_of, text = PieceCache(core), "a word wordy word_ <x>y can't <|>\"<|x|>"
    assert [*Run([], cache_of.encode(text)).ids] == core.encode(text, add_special_tokens=False).ids


def test_only_the_last_long_texts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_KEPT_TEXTS", 3)
    cache_of = PieceCache(tokenizers()["gpt2"])
    for number in (0, 1, 2, 3, 2, 4):
        cache_of.encode(f"{number} " * 200)
        cache_of.encode("short")
    assert [text[0] for text in cache_of._texts] == ["3", "2", "4"]


def test_only_some_short_pieces_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_KEPT_PIECES", 50)
    core = tokenizers()["gpt2"]
    cache_of = PieceCache(core)
    for number in range(100):
        text = f"a{number} b{number} {'x' * 65}{number} c{number}\n"
        assert [*Run([], cache_of.encode(text)).ids] == core.encode(text, add_special_tokens=False).ids
        assert len(cache_of) <= 50
        assert max(map(len, cache_of), default=0) <= 64


def test_the_sizes_of_the_caches() -> None:
    """Texts are kept whole from 200 characters on, the last 512 of them; pieces up to 64, 65,536."""
    cache_of = PieceCache(tokenizers()["gpt2"])
    for length in (199, 200):
        cache_of.encode("a" * length)
    assert list(map(len, cache_of._texts)) == [200]
    for number in range(520):
        cache_of.encode(f"{number} ".ljust(200))
    assert len(cache_of._texts) == 512
    for length in (64, 65):
        cache_of.encode("b" * length)
    assert "b" * 64 in cache_of
    assert "b" * 65 not in cache_of
    piece = cache_of["b" * 64]
    cache_of.clear()
    cache_of.update({str(number): piece for number in range(65_535)})
    cache_of.encode("cde")
    assert len(cache_of) == 65_536
    cache_of.encode("def")
    assert list(cache_of) == ["def"]


def test_a_piece_is_tokenised_once() -> None:
    core, asked = tokenizers()["gpt2"], []

    class Counting:
        """Remembers which texts it was asked for."""

        def __getattr__(self, name: str) -> Any:
            return getattr(core, name)

        def encode(self, text: str, **options: Any) -> Any:
            asked.append(text)
            return core.encode(text, **options)

    cache_of = PieceCache(Counting())
    for text in ("a b\n", "a b\n", "a b\n c", " a b b"):
        cache_of.encode(text)
    assert asked == ["a", " b", "\n", " b\n c", " a"]
    assert list(cache_of) == ["a", " b", "\n", " b\n", " b\n c", " a"]


def test_a_long_text_that_comes_again_is_one_piece() -> None:
    core = tokenizers()["smollm2"]
    cache_of = PieceCache(core)
    text = "Find the 12 trains (to Rome). " * 10
    whole = core.encode(text, add_special_tokens=False)
    for count in (60, 1, 1):
        pieces = cache_of.encode(text)
        assert len(pieces) == count
        assert ([*Run([], pieces).ids], Run([], pieces).offsets) == (whole.ids, whole.offsets)


def test_a_tokenizer_with_dropout_or_without_words_is_asked_for_whole_texts() -> None:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core = Tokenizer.from_str(byte_level(level).to_str())
    assert separates_words(core)
    core.model.dropout = 0.1
    assert not separates_words(core)
    other = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    other.pre_tokenizer = level
    assert not separates_words(other)
    special = Tokenizer.from_str(byte_level(level).to_str())
    special.add_special_tokens([AddedToken("<|a b|>", lstrip=True, special=True)])  # the copy reads it as text
    assert separates_words(special)
    special.add_tokens([AddedToken("word")])
    assert separates_words(special)


def test_the_tokenizer_adds_no_tokens_of_its_own() -> None:
    core = Tokenizer.from_str(tokenizers()["gpt2"].to_str())
    core.add_special_tokens(["<s>"])
    start = core.token_to_id("<s>")
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    assert core.encode("a").ids[0] == start
    assert start not in Run([], PieceCache(core).encode("a")).ids


def bytewise(*others: str) -> Tokenizer:
    """A tokenizer with a token for each byte, and others."""
    names = [*(f"<0x{byte:02X}>" for byte in range(256)), *others]
    return Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, [], byte_fallback=True))


def normalizing(core: Tokenizer, *steps: Any) -> Tokenizer:
    core.normalizer = normalizers.Sequence(list(steps))
    return core


LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize(
    ("core", "text", "tokens"),
    [
        (normalizing(byte_level(LEVEL), normalizers.NFKC()), "\ufdfa" * 30_000, 990_000),
        (normalizing(byte_level(LEVEL), normalizers.NFKC()), "\ufdfa" * 1_000, 0),
        (normalizing(byte_level(LEVEL), normalizers.NFKC()), "漢字 é a" * 5_000, 0),
        (normalizing(byte_level(LEVEL), normalizers.Replace("a", "bb")), "a" * 30_000, 60_000),
        (byte_level(pre_tokenizers.Sequence([LEVEL, LEVEL])), "é" * 30_000, 120_000),
        (byte_level(LEVEL), "é漢" * 30_000, 0),
        (normalizing(bytewise("▁"), normalizers.Replace(" ", "▁")), " " * 30_000, 0),
        (normalizing(bytewise(), normalizers.Replace("a", "漢")), "a" * 30_000, 90_000),
        (normalizing(bytewise()), "漢字" * 30_000, 0),
    ],
)
def test_a_long_text_of_far_more_tokens_than_bytes_is_refused(core: Tokenizer, text: str, tokens: int) -> None:
    if not tokens:
        assert PieceCache(core).encode(text)
        return
    with pytest.raises(FrameError, match=f"makes up to {tokens:,} tokens of a text of 30,000 characters"):
        PieceCache(core).encode(text)


def test_a_short_text_of_many_tokens_is_not_remembered() -> None:
    cache_of = PieceCache(normalizing(byte_level(LEVEL), normalizers.Replace("a", "b" * 5)))
    assert len(cache_of.encode("a" * 300)[0].ids) == 1500
    assert not cache_of._texts
    cache_of.encode("c" * 300)
    assert cache_of._texts


@pytest.mark.parametrize(
    ("core", "text", "why"),
    [
        (byte_level(pre_tokenizers.Split(Regex("(a+)+b"), "isolated")), "a" * 40, "retry-limit"),
        (Tokenizer(models.WordLevel({"x": 0}, unk_token="?")), "y", "Missing .UNK. token"),
    ],
)
def test_a_failing_tokenizer_is_an_error_that_names_the_text(core: Tokenizer, text: str, why: str) -> None:
    with pytest.raises(FrameError, match=f"the tokenizer fails on the text '{text}' .*{why}"):
        PieceCache(core).encode(text)


@pytest.mark.slow
def test_the_real_small_model_gives_the_tokens_of_whole_texts(smollm2_folder: Path) -> None:
    core = Tokenizer.from_file(str(smollm2_folder / "tokenizer.json"))
    cache_of = PieceCache(core)
    assert cache_of.words
    assert cache_of.runs
    for line in (Path(__file__).parent.parent / "rows" / "public_rows.jsonl").read_text().splitlines():
        assert [*Run([], cache_of.encode(line)).ids] == core.encode(line, add_special_tokens=False).ids
