"""`agentft eval derive`: writes suites that `agentft eval` takes, and says how."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from agentft.commands import run

DERIVE = ["eval", "derive", "./shopping", "--tools", "./shop", "--transforms", "renamed, missing"]


@pytest.mark.slow
def test_the_printed_command_evaluates_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(DERIVE) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "derived/shopping-renamed: 7 cases",
        "derived/shopping-missing: 5 cases, 2 left out",
    ]
    command = shown.out.removeprefix("next: agentft ").strip()
    suites = "./shopping ./derived/shopping-renamed ./derived/shopping-missing"
    assert command.startswith(f"eval {suites} --tools ./shop,")
    arguments = [*shlex.split(command.replace("MODEL", "scripted")), "--output", "out", "--quiet"]
    assert run(arguments) == 0
    assert "success in derived suites" in capsys.readouterr().out
    assert run(["eval", "show", "out"]) == 0
    shown_again = capsys.readouterr().out
    assert "overfit index" in shown_again
    assert "renamed" not in shown_again
    assert run(["eval", "show", "out", "--all"]) == 0
    assert "renamed" in capsys.readouterr().out
    worlds = arguments[arguments.index("--tools") + 1]
    for name, shown_worlds in (("shopping-renamed", "./shop"), ("shopping-missing", worlds)):
        assert run(["eval", "--check", f"./derived/{name}", "--tools", shown_worlds]) == 0
    assert '"overfit":{"renamed"' in (place / "out" / "report.html").read_text()


def test_json_is_one_document(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*DERIVE[:-1], "renamed", "--out", str(place / "d"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["suite"] == "shopping"
    assert document["derived"][0] == {
        "transform": "renamed",
        "folder": str(place / "d" / "shopping-renamed"),
        "cases": 7,
        "left_out": 0,
        "worlds": [],
    }


def test_derived_cases_are_not_mined(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "silent.jsonl").write_text('{"key": "*", "text": "I like tea."}\n')
    assert run([*DERIVE[:-1], "renamed"]) == 0
    suites = ["./shopping", "./derived/shopping-renamed"]
    options = ["--tools", "./shop", "--model", "scripted:silent.jsonl", "--output", "out", "--quiet"]
    assert run(["eval", *suites, *options]) == 0
    capsys.readouterr()
    assert run(["eval", "mine", "out", "./shopping", "--tools", "./shop"]) == 0
    assert "model: 6 of 7 cases failed" in capsys.readouterr().out


def test_wrong_usage_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*DERIVE[:-1], "renamed"]) == 0
    capsys.readouterr()
    for arguments, message in (
        (["./derived/shopping-renamed", "--tools", "./shop"], "is derived from shopping; derive from that suite"),
        (["./shopping", "--tools", "./shop", "--transforms", "renamd"], "did you mean 'renamed'?"),
        (["./nowhere"], "there is no suite './nowhere'"),
    ):
        assert run(["eval", "derive", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
