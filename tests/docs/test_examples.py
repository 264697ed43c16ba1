"""The example files of the documentation: valid, and every command of theirs is one that the command line accepts."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT
from tests.docs.test_pages import accept

ACTION = ROOT / "docs" / "examples" / "evaluate.yml"


def steps() -> list[dict[str, Any]]:
    document = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as true.
    assert set(document) == {"name", True, "permissions", "jobs"}
    (job,) = document["jobs"].values()
    assert job["runs-on"]
    found: list[dict[str, Any]] = job["steps"]
    return found


def test_each_step_runs_or_uses_something() -> None:
    for step in steps():
        assert ("run" in step) != ("uses" in step), step
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])


def test_the_command_line_accepts_its_commands() -> None:
    lines = [line for step in steps() for line in step.get("run", "").splitlines()]
    commands = [line.split("agentft ", 1)[1] for line in lines if line.startswith("agentft ")]
    assert len(commands) == 2
    for command in commands:
        accept(shlex.split(re.sub(r"\$\{\{.*?\}\}", "http://localhost:1/v1", command)))


@pytest.mark.parametrize("made", ["summary.md", "report.html", "junit.xml", "result"])
def test_what_it_uses_was_made_before(made: str) -> None:
    names = [step.get("name") for step in steps()]
    evaluation, *later = steps()[names.index("Evaluate") :]
    assert made in shlex.split(evaluation["run"])
    assert any(made in str(step) for step in later)
