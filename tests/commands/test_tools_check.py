from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentft.commands import run
from tests.evaluation.world import write_world

GOOD = str(Path(__file__).parents[1] / "toolset" / "fixture_world")


def test_good_worlds_are_a_line_each_and_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "check", "calculator", GOOD]) == 0
    assert capsys.readouterr().out.count("all passed") == 2


def test_broken_promises_are_shown_with_place_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write_world(tmp_path)  # its handler formats a name of any length into the message
    assert run(["tools", "check", "calculator", broken, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["good"] is False
    assert document["findings"]["calculator"] == []
    finding = next(row for row in document["findings"][broken] if row["promise"] == "errors")
    assert (finding["world"], finding["tool"]) == ("shop", "price")
    assert "names the argument in under 300 characters" in finding["remedy"]
    assert run(["tools", "check", broken]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "shop.price" in shown
    assert "in under 300 characters" in shown


def test_a_world_that_is_not_there_is_a_wrong_command(capsys: pytest.CaptureFixture[str]) -> None:
    """It was a finding of a world, with the remedy to correct the file in the message."""
    assert run(["tools", "check", "calculator", "./nowhere"]) == 2
    assert "no tool world './nowhere'; the shipped ones are" in capsys.readouterr().err


def test_a_world_that_cannot_be_loaded_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "check", str(tmp_path)]) == 1
    assert "no tools.py and no tools.json" in " ".join(capsys.readouterr().out.split())
