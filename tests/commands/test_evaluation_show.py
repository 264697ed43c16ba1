"""`agentft eval show`: stored evaluations, found by their folder, their run, or as the last one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentft.commands import run
from tests.evaluation.world import write_suite, write_world


def test_a_stored_run_and_its_cases_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_suite(tmp_path)
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "silent.jsonl").write_text('{"key": "*", "text": "I like tea."}\n')
    shop = ["eval", "./shopping", "--tools", "./shop", "--quiet", "--json"]
    assert run([*shop, "--model", "scripted:silent.jsonl", "--output", "runs/tuned/eval/x"]) == 0
    assert run([*shop, "--model", "scripted", "--baseline", "runs/tuned/eval/x/cases.jsonl"]) == 0
    capsys.readouterr()
    for name in ("runs/tuned/eval/x", "runs/tuned/eval/x/cases.jsonl", "tuned"):
        assert run(["eval", "show", name]) == 0
        shown = capsys.readouterr().out
        assert "x no-call price" in shown
        assert f"Next: agentft eval mine {name} proposes" in shown.splitlines()[-1]
    assert run(["eval", "show", "last", "s1"]) == 0
    assert "I like tea." in capsys.readouterr().out, "the stored baseline's answer"
    for file in tmp_path.glob("runs/eval-*/baseline.jsonl"):
        file.unlink()  # as in evaluations of older versions
    assert run(["eval", "show", "last", "--all"]) == 0
    shown = capsys.readouterr().out
    assert "are in a stored run" in shown
    assert "Next:" not in shown  # the scripted model solves every case
    assert "p1" in shown
    assert run(["eval", "show", "tuned", "s1"]) == 0
    assert "user: Price of tea?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no evaluation 'nowhere'"),
        (["e", "ss1"], "it has no case 'ss1'; the nearest are s1"),
        (["e", "other"], "it has no case 'other'; --all lists its cases"),
        (["e"], "give the same `agentft eval` command again to finish the run"),
        ([], "missing argument"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    golden = Path(__file__).parents[1] / "evaluation" / "golden" / "cases.jsonl"
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "cases.jsonl").write_bytes(golden.read_bytes())
    assert run(["eval", "show", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_figure_that_is_no_share_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "./shopping", "--tools", "./shop", "--model", "scripted", "--output", "out", "-q"]) == 0
    path = place / "out" / "summary.json"
    summary = json.loads(path.read_text())
    summary["metrics"]["success"]["model"]["value"] = 10**400
    path.write_text(json.dumps(summary))
    capsys.readouterr()
    assert run(["eval", "show", "out"]) == 2
    assert "summary.json cannot be shown (OverflowError" in capsys.readouterr().err


def test_a_damaged_summary_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    golden = Path(__file__).parents[1] / "evaluation" / "golden" / "cases.jsonl"
    (tmp_path / "cases.jsonl").write_bytes(golden.read_bytes())
    wrong = '{"verdict": 1, "finding": [], "arms": {}, "metrics": {"success": 1e999}}'
    for text, message in (
        ("{", "it is not JSON"),
        ("[]", "it is not the summary of an evaluation"),
        (wrong, "summary.json cannot be shown"),
    ):
        (tmp_path / "summary.json").write_text(text)
        assert run(["eval", "show", "."]) == 2
        assert message in capsys.readouterr().err
