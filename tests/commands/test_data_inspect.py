from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import typer
from rich.console import Console

from agentft.commands import run
from agentft.commands.data import inspect_command
from agentft.display.data import show_inspection
from agentft.errors import InputError
from agentft.rows.inspection import inspect_file
from tests.records.rows import HERE, PUBLIC
from tests.tiny import save_tiny

MSAGENT = HERE / "msagent.jsonl"
GOOD = '{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]}'


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.jsonl"
    path.write_text(f'{GOOD}\noops\n{{"prompt[red]\\u001b": 1}}\n', encoding="utf-8")
    return path


def shown(path: Path, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(show_inspection(inspect_file(path), path))
    return capture.get()


def test_json_is_one_document_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    inspect_command(MSAGENT, as_json=True)
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.count("\n") == 1
    assert json.loads(output.out) == {
        "rows": 37,
        "parsed": 37,
        "rejected": 0,
        "reasons": {},
        "turns": 111,
        "calls": 32,
        "unreadable_calls": 3,
        "rows_with_unreadable_calls": 3,
        "rows_with_unfitting_arguments": 2,
        "results": 24,
        "tools": 3,
        "learnt_rows": 26,
    }


def test_json_counts_reasons(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_command(mixed, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"], document["parsed"], document["rejected"]) == (3, 1, 2)
    assert document["reasons"] == {"invalid-json": 1, "unknown-format": 1}


def test_public_rows_are_all_read(capsys: pytest.CaptureFixture[str]) -> None:
    inspect_command(PUBLIC, strict=True, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == document["parsed"] == len(PUBLIC.read_text(encoding="utf-8").splitlines())
    assert document["unreadable_calls"] == 0


def test_strict_exits_with_1_only_when_rows_were_rejected(mixed: Path, tmp_path: Path) -> None:
    inspect_command(mixed, as_json=True)
    inspect_command(MSAGENT, strict=True, as_json=True)
    quarantine = tmp_path / "bad.jsonl"
    with pytest.raises(typer.Exit) as caught:
        inspect_command(mixed, quarantine=quarantine, strict=True)
    assert caught.value.exit_code == 1
    assert [json.loads(line)["reason"] for line in quarantine.read_text().splitlines()] == [
        "invalid-json",
        "unknown-format",
    ]


def test_the_report_on_a_terminal(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_command(mixed)
    plain = " ".join(capsys.readouterr().out.split())
    assert "3 rows = 1 kept + 2 rejected" in plain
    assert "invalid-json" in plain
    assert "turns 2 calls 0 results 0" in plain


def test_data_reaches_the_terminal_as_text_only(mixed: Path) -> None:
    text = shown(mixed)
    assert "prompt[red]␛" in text
    assert "mixed.jsonl:3" in text
    assert "\x1b[31mprompt" not in text


def test_lengths_are_nearest_rank_percentiles(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"messages": [{"role": "assistant", "content": "x" * length}], "id": "same"} for length in range(1, 101)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    lines = [line.split() for line in shown(path).splitlines()]
    assert ["characters", "50", "90", "99", "100"] in lines
    assert ["turns", "1", "1", "1", "1"] in lines
    assert "99 rows have the id of an earlier row" in shown(path)


def test_unreadable_calls_are_named(tmp_path: Path) -> None:
    assert "calls (3 unreadable)" in shown(MSAGENT)


def test_bad_files_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        inspect_command(tmp_path / "none.jsonl")


def test_settings_about_the_training_alone_are_not_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe from another machine may name a tracker, held-out rows and modules that are not here."""
    file, model = tmp_path / "rows.jsonl", save_tiny(tmp_path / "model")
    file.write_text(GOOD)
    elsewhere = ["report_to=trackio", "eval_data=none.jsonl", "modules_to_save=other"]
    assert run(["data", "inspect", str(file), "--model", str(model), "--learn", "assistant", *elsewhere]) == 0
    assert "1 kept" in capsys.readouterr().out
