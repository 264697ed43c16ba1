"""A tuned SmolLM2, exported: the merged weights make the run's calls, and `eval --model` gives the run's scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from tests.engine.samples import write_rows


@pytest.mark.slow
def test_an_export_answers_and_scores_as_the_run_does(
    tmp_path: Path, smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "few.jsonl", 2)
    train = [
        "train",
        "--data",
        "few.jsonl",
        "--learn",
        "balanced",
        "pack_tokens=512",
        "max_steps=1",
        "lr=1e-3",
        "warmup=0",
    ]
    train += ["--model", str(smollm2_folder), "--method", "lora", "lora_layers=2", "--output", "run", "--quiet"]
    assert run(train) == 0
    capsys.readouterr()
    assert run(["export", "run", "--to", "merged", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert "rows are rendered exactly as in training" in notes[0]
    assert float(notes[-1].partition("differ by ")[2].partition(" ")[0]) < 1e-2, notes[-1]

    def evaluate(output: str, *model: str) -> tuple[list[Any], Any]:
        limits = ["--limit", "1", "--max-new-tokens", "12", "--json", "--quiet", "--output", output]
        assert run(["eval", "calculator", *model, *limits]) == 0
        scores = json.loads(capsys.readouterr().out)["metrics"]
        lines = [json.loads(line) for line in (tmp_path / output / "cases.jsonl").read_text().splitlines()]
        return [(one["case"], [step["completion"] for step in one["steps"]]) for one in lines], scores

    calls, scores = evaluate("of-run", "--adapter", "run")
    exported, found = evaluate("of-export", "--model", "run/export/merged", "--format", "msagent")
    assert exported == calls
    assert {name: arm["model"] for name, arm in found.items()} == {name: arm["tuned"] for name, arm in scores.items()}
