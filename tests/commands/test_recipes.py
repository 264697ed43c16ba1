"""`agentft recipes`: every shipped recipe can be trained with, and `copy` never overwrites unasked."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from agentft.commands import run
from agentft.content import content_root
from agentft.training.recipe import read_recipe
from tests.engine.samples import write_rows
from tests.tiny import save_tiny

FOLDER = Path(__file__).parents[2] / "agentft" / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def test_the_list_says_when_to_take_which(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "list"]) == 0
    out = capfd.readouterr().out
    assert [line for line in out.splitlines() if line in NAMES] == NAMES
    assert out.splitlines()[-1] == "to take one: agentft recipes copy NAME, then: agentft train NAME.toml --data FILE"

    assert run(["recipes", "list", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["recipes"]
    assert [row["name"] for row in rows] == NAMES
    for row in rows:
        first = (FOLDER / f"{row['name']}.toml").read_text(encoding="utf-8").partition("\n")[0]
        assert f"# {row['when']}" == first
        assert len(row["when"]) > 40
        assert row["when"].endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_copied_and_dry_run(
    name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", 8, quiet=1)
    assert run(["recipes", "copy", name]) == 0
    assert capfd.readouterr().out.strip() == f"{name}.toml"
    text = (tmp_path / f"{name}.toml").read_text(encoding="utf-8")
    assert text == (FOLDER / f"{name}.toml").read_text(encoding="utf-8")

    # The tiny model has two layers only.
    layers = ["lora_layers=1"] if "lora_layers" in tomllib.loads(text) else []
    code = run(["train", f"{name}.toml", "--model", str(tiny), "--data", "rows.jsonl", *layers, "--dry-run", "--json"])

    out, err = capfd.readouterr()
    assert code == 0, err
    assert json.loads(out)["rows"] == 9
    assert json.loads(out)["trained"] >= 8


def test_the_recipes_differ_in_what_matters() -> None:
    tables = [tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8")) for name in NAMES]
    assert {"lora", "qlora", "full"} == {table["method"] for table in tables}
    assert {"smollm2-135m"} < {table["model"] for table in tables}
    kept = [{key: value for key, value in table.items() if key != "model"} for table in tables]
    assert all(kept.count(table) == 1 for table in kept)


def test_the_quickstart_recipe_is_the_quickstarts() -> None:
    shipped = content_root() / "datasets" / "quickstart-training.toml"
    assert read_recipe(FOLDER / "quickstart.toml") == read_recipe(shipped)


def test_a_file_is_replaced_only_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("mine")
    assert run(["recipes", "copy", "chinese", "mine.toml"]) == 2
    assert "mine.toml already exists; give another file, or replace it with --force" in capfd.readouterr().err
    assert (tmp_path / "mine.toml").read_text() == "mine"
    assert run(["recipes", "copy", "chinese", "mine.toml", "--force"]) == 0
    assert "Qwen2.5-1.5B" in (tmp_path / "mine.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chines"], "there is no recipe 'chines'; did you mean 'chinese'?"),
        (["zzz"], "there is no recipe 'zzz'; known: 7b-24gb, 7b-80gb, chinese"),
        (["chinese", "."], ". is a folder; give a file, for example chinese.toml"),
    ],
)
def test_wrong_names_are_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["recipes", "copy", *arguments]) == 2
    assert message in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
