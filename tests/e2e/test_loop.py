"""End to end with the small real model: data, two training steps, and an evaluation against base over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentft.commands import run


@pytest.mark.slow
def test_data_training_and_evaluation_fit_together(
    tmp_path: Path, smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["data", "build", "quickstart", "--output", "rows.jsonl"]) == 0
    rows = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    (tmp_path / "few.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    train = ["train", "--data", "few.jsonl", "--learn", "balanced", "pack_tokens=768", "max_steps=2"]
    assert run([*train, "--model", str(smollm2_folder), "--method", "lora", "--output", "run", "--quiet"]) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"adapter", "checkpoints", "data.json"}

    capsys.readouterr()
    evaluate = ["eval", "weather", "--tools", "weather", "--adapter", "run", "--baseline", "base", "--limit", "3"]
    assert run([*evaluate, "--max-new-tokens", "24", "--json", "--quiet", "--output", "evaluation"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["cases"], summary["invalid"]) == (3, 0)
    figures = summary["metrics"]["call_decision"]
    assert figures["tuned"]["n"] == figures["base"]["n"] == 3
    assert figures["delta"]["value"] is not None
    lines = [json.loads(line) for line in (tmp_path / "evaluation" / "cases.jsonl").read_text().splitlines()]
    assert {line["arm"] for line in lines} == {"tuned", "base"}
    assert all(line["outcome"] == "done" or line["outcome"] == "step-limit" for line in lines)
