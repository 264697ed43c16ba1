"""The world of docs/tools.md and the settings of docs/settings.md, taken from the pages themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentft.training.recipe import describe_settings
from tests.commands.run import run_process
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "tools.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the page, written as a reader would."""
    for block in blocks(PAGE):
        if block.mark.startswith("file: "):
            path = tmp_path / block.mark.removeprefix("file: ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    return tmp_path


def test_the_world_of_the_page_keeps_every_promise(folder: Path) -> None:
    done = run_process(["tools", "check", "./library", "--json"], cwd=folder)
    assert done.returncode == 0, done.stdout


def test_a_call_on_the_world_of_the_page(folder: Path) -> None:
    borrowed = '{"title": "dune", "reader": {"name": "Grace"}}'
    done = run_process(["tools", "call", "./library.borrow_book", borrowed], cwd=folder)
    assert json.loads(done.stdout) == {"loan": "L2", "title": "Dune"}
    refused = run_process(["tools", "call", "./library.find_book", '{"title": "Ulysses"}'], cwd=folder)
    assert (refused.returncode, json.loads(refused.stdout)["error"][:18]) == (1, "there is no book '")


def test_the_page_of_settings_is_what_the_command_prints() -> None:
    page = ROOT / "docs" / "settings.md"
    assert [block.text for block in blocks(page) if block.language == "toml"] == [describe_settings()]
    assert run_process(["train", "--settings"]).stdout == describe_settings()
