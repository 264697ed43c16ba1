"""`data inspect`, `data mask`, `plan` and `train --dry-run` show one preparation: their counts of a file agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from tests.engine.samples import msagent_row
from tests.tiny import save_tiny


def openai_row(name: str, **more: object) -> dict[str, object]:
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": '{"city": "Rome"}'}}
    tool = {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    turns = [
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call], **more},
    ]
    return {"messages": turns, "tools": [tool]}


def long_row(calls: int) -> dict[str, Any]:
    turns: list[object] = []
    for number in range(calls):
        more = msagent_row("Rome", number)["conversations"]
        assert isinstance(more, list)
        turns += more[1:] if number else more
    return {"id": "long", "conversations": turns}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    unreadable: Any = msagent_row("Lima", 5)
    unreadable["conversations"][2]["value"] = "<|startofthink|>```JSON\n{oops\n```<|endofthink|>"
    rows = [msagent_row("Oslo", 1), msagent_row("Oslo", 1), long_row(6), unreadable]
    rows += [msagent_row("none", 3, call=False), openai_row("kept"), openai_row("excluded", weight=0)]
    rows += [openai_row("heavy", weight=3), {"messages": []}, long_row(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "oops\n")
    return path


@pytest.mark.parametrize(
    "learn",
    [
        "calls",
        pytest.param("balanced", marks=pytest.mark.slow),
        pytest.param("assistant", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "limit", [pytest.param(4096, marks=pytest.mark.slow), pytest.param(600, marks=pytest.mark.slow), 400]
)
def test_the_commands_agree(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], learn: str, limit: int
) -> None:
    model = str(save_tiny(tmp_path / "model"))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'learn = "{learn}"\nmodel = "model"\n')

    def document(*arguments: str) -> Any:
        assert run([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])  # libraries may print at their import

    settings = [f"max_length={limit}", "weights.terminator=0.5"]
    trained = document("train", str(recipe), *settings, "--data", str(file), "--dry-run")
    planned = document("plan", str(recipe), *settings, "--data", str(file))
    inspected = document("data", "inspect", str(file), str(recipe), *settings)
    masked = document("data", "mask", str(file), *settings, "--model", model, "--learn", learn)["rows"]

    apart = "rows_without_supervised_tokens"
    left = trained.get(apart, 0)
    for key in ("rows", "rejected", "reasons", "samples", "tokens", "supervised", "trimmed", "left_out"):
        assert trained[key] == planned[key] == inspected[key], key
    assert trained["rows"] == trained["trained"] + left + trained["rejected"] == 11
    assert trained["trained"] == planned["trained"] == trained["samples"] == inspected["parsed"] - left
    assert (
        left == planned.get("rows_without_supervised_tokens", 0) == inspected.get("rows_without_supervised_tokens", 0)
    )
    assert len(masked) == inspected["parsed"], "a row that is kept, and one sample of it"
    assert sum(any(token["weight"] for token in row["tokens"]) for row in masked) == trained["trained"]
    assert trained["supervised"] == sum(token["weight"] > 0 for row in masked for token in row["tokens"])
    assert trained["weight"] == sum(token["weight"] for row in masked for token in row["tokens"])
    assert trained["left_out"] == sum(row["left_out"] for row in masked)
    assert (trained["left_out"] > 0) == (trained["trimmed"] > 0) == (limit < 4096)
    assert "heavy" not in trained["tools"], "a rejected row adds no tools"
    assert "excluded" not in trained["tools"], "nor does one without a supervised token"


def test_without_settings_only_parsing_rejects(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "inspect", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["parsed"], "supervised" in found) == (11, 8, False)
    assert found["learnt_rows"] == 6


def test_the_report_says_what_is_cut(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", str(save_tiny(tmp_path / "model")), "max_length=600"]
    assert run(["data", "inspect", str(file), *model]) == 0
    shown = capsys.readouterr().out
    assert "cut to max_length: 1 sample, without" in shown
    assert run(["plan", *model, "--data", str(file)]) == 0
    assert "cut to max_length: 1 sample, without" in capsys.readouterr().out
    assert run(["data", "mask", str(file), *model, "--row", "3"]) == 0
    assert "supervised tokens are cut off" in capsys.readouterr().out
