"""`agentft data build` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from agentft.commands.data import build_command
from agentft.content import content_root
from agentft.errors import InputError
from tests.commands.test_evaluate import write_own

app = typer.Typer()
app.command()(build_command)


@pytest.mark.slow
def test_the_shipped_recipe_is_built_by_name_into_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, ["quickstart"])
    assert run.exit_code == 0
    rows = (tmp_path / "quickstart.jsonl").read_text(encoding="utf-8").splitlines()
    assert run.stdout.startswith(f"quickstart.jsonl: {len(rows)} rows, ")
    assert "tool calls: calculate " in run.stdout


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_file_is_replaced_only_if_the_user_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "quickstart.jsonl"
    mine.write_text("mine")
    run = CliRunner().invoke(app, ["quickstart"])
    assert "quickstart.jsonl already exists; to replace it, add --output quickstart.jsonl" in str(run.exception)
    assert mine.read_text() == "mine"
    assert CliRunner().invoke(app, ["quickstart", "--output", "quickstart.jsonl"]).exit_code == 0
    recipe = tmp_path / "recipe.toml"
    recipe.write_bytes((content_root() / "datasets" / "quickstart.toml").read_bytes())
    for output, what in (("recipe.toml", "the recipe"), (".", "a folder")):
        run = CliRunner().invoke(app, ["./recipe.toml", "--output", output])
        assert f"--output {output}: this is {what}; name a file" in str(run.exception)


def test_a_recipe_never_runs_the_code_of_a_world_that_the_user_did_not_name(tmp_path: Path) -> None:
    write_own(tmp_path, "mine", code=True)
    recipe, out = tmp_path / "recipe.toml", tmp_path / "rows.jsonl"
    recipe.write_text(
        'worlds = ["./mine"]\nform = "cases"\n[[intents]]\nid = "go"\nsay = ["Go."]\ncalls = [{ tool = "go" }]\n'
    )
    run = CliRunner().invoke(app, [str(recipe), "--output", str(out)])
    assert f"add --tools {tmp_path}/mine" in str(run.exception)
    assert not (tmp_path / "mine" / "RAN").exists()
    run = CliRunner().invoke(app, [str(recipe), "--output", str(out), "--tools", f"{tmp_path}/mine"])
    assert "add --tools" not in str(run.exception)
    assert (tmp_path / "mine" / "RAN").exists()
