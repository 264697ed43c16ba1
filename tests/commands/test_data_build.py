"""`agentft data build` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from agentft.commands.data import build_command
from agentft.errors import InputError

app = typer.Typer()
app.command()(build_command)


def test_the_shipped_recipe_is_built_by_name_into_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, ["quickstart"])
    assert run.exit_code == 0
    rows = (tmp_path / "quickstart.jsonl").read_text(encoding="utf-8").splitlines()
    assert run.stdout.startswith(f"quickstart.jsonl: {len(rows)} rows, ")
    assert "tool calls: calculate " in run.stdout


def test_json_is_one_document_and_output_and_seed_are_taken(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "rows.jsonl"
    run = CliRunner().invoke(app, ["quickstart", "--output", str(out), "--seed", "12", "--json"])
    report = json.loads(run.stdout)
    assert report["seed"] == 12
    assert report["output"] == str(out)
    assert report["rows"] == len(out.read_text(encoding="utf-8").splitlines())


def test_an_unknown_recipe_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, ["quickstrat"])
    assert isinstance(run.exception, InputError)
    assert "there is no recipe 'quickstrat'" in str(run.exception)
