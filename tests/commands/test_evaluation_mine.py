"""`agentft eval mine`: from a stored evaluation to rows that training takes, and their review."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from agentft.display.mining import read_ticks
from agentft.reports import mining
from tests.evaluation.world import write_suite, write_world


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A silent model's evaluation of the tiny suite, in the run folder `runs/tuned`."""
    write_suite(tmp_path)
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "silent.jsonl").write_text('{"key": "*", "text": "I like tea."}\n')
    options = ["--tools", "./shop", "--model", "scripted:silent.jsonl", "--output", "runs/tuned/eval/x", "--quiet"]
    assert run(["eval", "./shopping", *options]) == 0
    capsys.readouterr()
    return tmp_path / "runs" / "tuned" / "eval" / "x"


MINE = ["eval", "mine", "tuned", "./shopping", "--tools", "./shop"]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "mined" / "rows.jsonl").read_text().splitlines()]


def test_failures_become_rows_that_training_takes(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(MINE) == 0
    shown = capsys.readouterr().out
    assert "model: 6 of 7 cases failed, in 3 groups" in shown
    assert "3 x no-call, price  (single 1, parallel 1, tool_error 1); 1 row proposed" in shown
    assert "training data: unknown; add --data FILE" in shown
    page = (stored / "report.html").read_text()
    assert '"next":"agentft eval mine runs/tuned/eval/x"' in page
    assert "next: agentft train --data runs/tuned/eval/x/mined/rows.jsonl --learn balanced\n" in shown
    found = rows(stored)
    assert found
    assert run(["data", "inspect", str(stored / "mined" / "rows.jsonl"), "--strict", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"], document["rejected"]) == (len(found), 0)
    first = (stored / "mined" / "review.md").read_bytes()
    assert run([*MINE, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["arm"], document["failures"], document["accepted"]) == ("model", 6, len(found))
    assert [one["row"]["id"] for one in document["proposals"]] == [row["id"] for row in found]
    assert (stored / "mined" / "review.md").read_bytes().replace(b" --json", b"") == first


def test_variants_and_seed_reach_the_miner_and_the_output_is_where_it_is_asked_for(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    before = mining.mine

    def mine(*arguments: Any, **options: Any) -> mining.Mined:
        seen.append(options)
        return before(*arguments, **options)

    monkeypatch.setattr(mining, "mine", mine)
    assert run([*MINE, "--output", "there", "--variants", "2", "--seed", "5"]) == 0
    assert (seen[0]["variants"], seen[0]["seed"]) == (2, 5)
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"rows.jsonl", "review.md"}
    assert not (stored / "mined").exists()


def test_an_unticked_row_is_left_out_until_it_is_ticked_again(stored: Path) -> None:
    assert run(MINE) == 0
    page, found = stored / "mined" / "review.md", rows(stored)
    ticked = f"- [x] `{found[0]['id']}`"
    assert ticked in page.read_text()
    page.write_text(page.read_text().replace(ticked, ticked.replace("x", " ", 1)))
    assert run(MINE) == 0
    assert rows(stored) == found[1:]
    assert ticked.replace("x", " ", 1) in page.read_text()
    page.write_text(page.read_text().replace("[ ]", "[X]"))
    assert run(MINE) == 0
    assert rows(stored) == found


def test_no_text_of_a_case_is_a_box_or_reaches_the_terminal(stored: Path) -> None:
    suite = Path("shopping/cases.jsonl")
    suite.write_text(suite.read_text().replace('"user": "', '"user": "\u2028- [ ] `row`\u2028\x9b31m\u202e'))
    model = ["--model", "scripted:silent.jsonl", "--output", "runs/other/eval/x", "--quiet"]
    assert run(["eval", "./shopping", "--tools", "./shop", *model]) == 0
    assert run(["eval", "mine", "runs/other/eval/x", *MINE[3:]]) == 0
    page = (stored.parents[2] / "other/eval/x/mined/review.md").read_text()
    assert "\\u2028- [ ] `row`\\u2028\\u009b31m\\u202e" in page
    assert not set("\x9b\u2028\u202e") & set(page)
    assert read_ticks("- [x] `one`: \u2028- [ ] `one`", ["one"]) == {"one": True}


def test_each_row_is_reviewed_in_the_terminal(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(MINE) == 0
    found = rows(stored)
    assert len(found) > 2
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("n\ny\nq\n"))
    assert run([*MINE, "--review"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("keep it?") == 3
    assert f"accepted: {len(found) - 1}, in" in shown.out
    assert rows(stored) == found[1:]


def test_training_data_are_compared(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "price", "arguments": '{"item": "cake"}'}}
    tool = {"type": "function", "function": {"name": "price", "parameters": {"type": "object", "properties": {}}}}
    messages = [{"role": "user", "content": "price of TEA"}, {"role": "assistant", "tool_calls": [call]}]
    (tmp_path / "old.jsonl").write_text(json.dumps({"messages": messages, "tools": [tool]}) + "\n")
    assert run([*MINE, "--data", "old.jsonl"]) == 0
    shown = capsys.readouterr().out
    for words in (
        'nearest in training (1.00): old.jsonl:1 "price of TEA" -> price',
        "never seen in training, tools: order (3 cases)",
        "contradictions in training: 1",
        'old.jsonl:1 makes price({"item": "cake"}), but case s1 expects price({"item": "tea"})',
        "WARNING: training rows ask the same as 1 case, or nearly: old.jsonl:1 and s1, ...",
        "solved: clean 17%, overlapping 0%",
        "next: agentft train --data old.jsonl --data ",
    ):
        assert words in shown
    assert {row["metadata"]["kind"] for row in rows(stored)} == {"values"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no evaluation 'nowhere'"),
        (["tuned", "./shopping", "--tools", "./shop", "--arm", "modle"], "did you mean 'model'?"),
        (["tuned", "./shopping", "--tools", "./shop", "--templates", "none.toml"], "there is no recipe 'none.toml'"),
        (["tuned", "./shopping", "--tools", "./shop", "--data", "gone.jsonl"], "gone.jsonl does not exist"),
        (["tuned"], "there is no tool 'price'; there are"),
        ([], "missing argument"),
    ],
)
@pytest.mark.usefixtures("stored")
def test_wrong_usage_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "mine", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.slow
def test_train_takes_the_rows(stored: Path, smollm2_folder: Path) -> None:
    assert run(MINE) == 0
    path = str(stored / "mined" / "rows.jsonl")
    assert run(["train", "--data", path, "--model", str(smollm2_folder), "--dry-run", "--strict"]) == 0
