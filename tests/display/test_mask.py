"""The token view: every token is shown, supervised ones are marked, and the counts are right."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from agentft.commands import run
from agentft.display.data import mask_view
from agentft.errors import InputError
from agentft.rendering import open_rendering
from agentft.rendering.encoding import LEARN_RULES
from agentft.rows.mask import MaskedRow, MaskedToken, mask_rows
from agentft.rows.preparation import Encoder
from tests.tiny import save_tiny, tiny_tokenizer

ENCODER = Encoder(tiny_tokenizer(), open_rendering("msagent", tiny_tokenizer()), LEARN_RULES["calls"], 4096)
CALL = '<|startofthink|>```JSON\n{"api_name": "w", "parameters": {"city": "北京"}}\n```<|endofthink|>'
TURNS = [{"from": "user", "value": "[red]hi\u001b[31m"}, {"from": "assistant", "value": CALL}]
ROWS = [{"id": "one", "conversations": TURNS}, {"id": "none", "conversations": []}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_the_supervised_tokens_joined_are_the_call(file: Path) -> None:
    (row,) = mask_rows(file, ENCODER)
    assert "".join(token.text for token in row.tokens if token.weight) == CALL
    assert "北京" in "".join(token.text for token in row.tokens)


def test_the_view_on_a_terminal(file: Path) -> None:
    (row,) = mask_rows(file, ENCODER, 1)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(mask_view(row))
    console.file.close()
    shown = console.export_text()
    supervised = sum(token.weight > 0 for token in row.tokens)
    assert f"{supervised} tokens supervised" in shown
    assert f"of {len(row.tokens)} tokens" in shown
    assert "[red]hi␛[31m" in shown
    assert "▏" not in shown
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(mask_view(row, boundaries=True))
    shown = console.export_text()
    assert shown.count("▏") == len(row.tokens) + 1, "one for each token, and one in the legend"


def token(text: str, weight: float, sampled: bool = True) -> MaskedToken:
    return MaskedToken(0, text, weight, "call", sampled)


def plain_view(*tokens: MaskedToken, width: int = 60) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(mask_view(MaskedRow("one", 1, tokens, 0), plain=True))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert {cell_len(line) for line in lines} == {width}
    return [line.strip("│ ") for line in lines]


def test_without_colours_marks_surround_the_supervised_text_and_words_stay_whole() -> None:
    lines = plain_view(
        token("a ques", 0, False), token("tion\n", 0, False), token("wea", 1), token("ther\n", 1), token("so", 0.25)
    )
    assert lines[1:4] == ["a question", "[[weather⏎", "]][[×0.25 so]]"]
    assert "[[2 tokens supervised]] · [[1 token supervised with" in lines[5]
    lines = plain_view(token("text", 0), token("北京" * 40, 1))
    assert lines[1].startswith("{{text}}[[北京")
    assert "".join(lines[1:5]).count("北京") == 40


def test_weights_other_than_one_have_a_colour_and_are_told() -> None:
    console = Console(width=60, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(mask_view(MaskedRow("one", 1, (token("half", 0.5), token("whole", 1)), 0)))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "×0.5" in shown
    assert "\x1b[36mhalf\x1b[0m\x1b[32mwhole\x1b[0m" in shown


def test_the_document_of_the_command(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(save_tiny(tmp_path / "model"))
    assert run(["data", "mask", str(file), "--model", model, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["id"] == "one"
    assert {"id", "text", "weight", "kind"} <= set(row["tokens"][0])
    assert run(["data", "mask", str(file), "--model", model]) == 0
    assert "tokens supervised" in capsys.readouterr().out


@pytest.mark.parametrize(("row", "problem"), [(2, "no-turns"), (3, "has 2 rows")])
def test_a_row_that_cannot_be_shown_is_named(file: Path, row: int, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        list(mask_rows(file, ENCODER, row))
