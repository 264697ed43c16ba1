"""Rows as tokens: each character once, and the row that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.errors import InputError
from agentft.rendering import open_rendering
from agentft.rendering.encoding import LEARN_RULES
from agentft.rendering.tokens import Tokens, tokenise
from agentft.rows.mask import MaskedRow, _texts, mask_rows
from agentft.rows.preparation import Encoder
from agentft.types import Segment
from tests.tiny import tiny_tokenizer
from tests.values import assert_immutable

TOKENIZER = tiny_tokenizer()
ENCODER = Encoder(TOKENIZER, open_rendering("hermes", TOKENIZER), LEARN_RULES["assistant"], 4096)


class Bytes:
    """Every byte is a token."""

    def __call__(self, text: list[str], *, add_special_tokens: bool, return_offsets_mapping: bool) -> Tokens:
        places = [[(at, at + 1) for at, letter in enumerate(one) for _ in letter.encode()] for one in text]
        return {"input_ids": [list(one.encode()) for one in text], "offset_mapping": places}


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("", []),
        ("ab", ["a", "b"]),
        ("é北😀a", ["", "é", "", "", "北", "", "", "", "😀", "a"]),
        ("\ufffda", ["", "", "\ufffd", "a"]),
        ("\ufffd北", ["", "", "\ufffd", "", "", "北"]),
        ("ab\ufffd", ["a", "b", "", "", "\ufffd"]),
    ],
)
def test_a_character_is_the_text_of_its_last_token(text: str, texts: list[str]) -> None:
    assert _texts([Segment(text, False, "user")], Bytes()) == texts


class Places:
    """A tokenizer that returns these places for any text."""

    def __init__(self, *places: tuple[int, int]) -> None:
        self._places = places

    def __call__(self, text: list[str], *, add_special_tokens: bool, return_offsets_mapping: bool) -> Tokens:
        return {
            "input_ids": [[*range(len(self._places))] for _ in text],
            "offset_mapping": [[*self._places]] * len(text),
        }


@pytest.mark.parametrize(
    ("places", "texts"),
    [
        ([(0, 0), (0, 1), (1, 3)], ["", "a", "bc"]),
        ([(0, 1), (1, 1), (1, 3)], ["a", "", "bc"]),
        ([(0, 1), (1, 2), (2, 2), (2, 2), (2, 3)], ["a", "b", "", "", "c"]),
        ([(0, 1), (1, 1), (1, 1), (1, 2), (2, 3), (3, 3)], ["a", "", "", "b", "c", ""]),
        ([(1, 2), (2, 3)], ["ab", "c"]),  # a decoder's space, which no token has
        ([(0, 3), (0, 3), (0, 3)], ["", "", "abc"]),
    ],
)
def test_tokens_without_text_leave_their_neighbours_whole(places: list[tuple[int, int]], texts: list[str]) -> None:
    assert _texts([Segment("abc", False, "user")], Places(*places)) == texts


def test_the_parts_of_a_mask_cannot_be_changed(file: Path) -> None:
    row = masked(file, 1)[0]
    assert_immutable(row)
    assert_immutable(row.tokens[0])


def test_only_supervised_tokens_have_a_weight(file: Path) -> None:
    (row,) = masked(file, 1)
    assert {token.weight for token in row.tokens if not token.sampled} == {0.0}
    assert {token.weight for token in row.tokens} == {0.0, 1.0}
    assert (row.line, row.left_out) == (1, 0)


@given(st.lists(st.tuples(st.text(st.sampled_from("a \n\ufffdé北😀")), st.booleans()), max_size=4))
def test_the_texts_of_the_tokens_give_the_row(pieces: list[tuple[str, bool]]) -> None:
    segments = [Segment(text, sampled, "answer" if sampled else "user") for text, sampled in pieces]
    row = "".join(text for text, _ in pieces)
    for tokenizer in (Bytes(), TOKENIZER):
        texts = _texts(segments, tokenizer)
        assert "".join(texts) == row
        assert len(texts) == sum(len(run.ids) for run in tokenise(segments, tokenizer))


def masked(path: Path, row: int | None) -> list[MaskedRow]:
    return list(mask_rows(path, ENCODER, row))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two rows that are kept, and two that are rejected."""
    rows = [
        {"id": name, "messages": [{"role": "user", "content": name}, {"role": "assistant", "content": f"{name} 北京"}]}
        for name in ("a", "b")
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [rows[0], {}, rows[1], []]))
    return path


def test_without_a_number_every_row_that_is_kept_is_shown(file: Path) -> None:
    assert [(row.id, row.line) for row in masked(file, None)] == [("a", 1), ("b", 3)]


def test_the_tokens_of_a_row_say_what_is_sampled_and_supervised(file: Path) -> None:
    (row,) = masked(file, 3)
    text = "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\nb 北京<|im_end|>\n"
    assert (row.id, row.line) == ("b", 3)
    assert "".join(token.text for token in row.tokens) == text
    assert "".join(token.text for token in row.tokens if token.weight == 1) == "b 北京<|im_end|>"
    assert all(token.sampled == (token.kind in ("answer", "end")) == (token.weight == 1) for token in row.tokens)


def test_a_row_that_is_rejected_or_not_there_is_an_error(file: Path) -> None:
    for row, message in [(2, "rows.jsonl:2: unknown-format: "), (5, "has 4 rows, so there is no row 5")]:
        with pytest.raises(InputError, match=message):
            masked(file, row)
    file.write_text(file.read_text().splitlines()[0])
    with pytest.raises(InputError, match="has 1 row, so there is no row 2; rows are counted from 1"):
        masked(file, 2)
    file.write_text((file.read_text() + "\n") * 2)
    with pytest.raises(InputError, match="has 2 rows, so there is no row 3"):
        masked(file, 3)
