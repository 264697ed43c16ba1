"""`agentft eval --rescore` on damaged folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from tests.commands.test_evaluate import SHOP, as_json, place

__all__ = ["place"]


@pytest.mark.parametrize("broken", [{"sampling": 1}, {"arms": {"model": 1}}, {"faults": {"a": 1}}, {"arms": [1]}])
def test_a_damaged_summary_is_named_when_it_is_graded_again(
    place: Path, capsys: pytest.CaptureFixture[str], broken: Any
) -> None:
    assert run([*SHOP, "--model", "scripted", "--output", "out", "--json"]) == 0
    before = as_json(capsys)
    (place / "out" / "summary.json").write_text(json.dumps({**before, **broken}))
    assert run(["eval", "./shopping", "--tools", "./shop", "--rescore", "out"]) == 2
    assert "summary.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("trial", ["1" + "0" * 400, "-1"])
def test_trials_that_no_run_has_are_counted(trial: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The number of trials was one more than the last."""
    assert run([*SHOP, "--model", "scripted", "--output", "out", "--json"]) == 0
    path = place / "out" / "cases.jsonl"
    path.write_text(path.read_text().replace('"trial": 0', f'"trial": {trial}', 1))
    capsys.readouterr()
    assert run(["eval", "./shopping", "--tools", "./shop", "--rescore", "out", "--json"]) == 0
    assert as_json(capsys)["trials"] == 2


def test_half_a_surrogate_pair_in_a_record_reaches_the_summary(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SHOP, "--model", "scripted", "--output", "out", "--json"]) == 0
    path = place / "out" / "cases.jsonl"
    path.write_text(path.read_text().replace('"arm": "model"', r'"arm": "\ud800"'))
    capsys.readouterr()
    assert run(["eval", "./shopping", "--tools", "./shop", "--rescore", "out", "-q"]) == 0
    assert "\ud800" in json.loads((place / "out" / "summary.json").read_bytes())["arms"]
