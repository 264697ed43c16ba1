"""`--check`: each planted flaw is found at its place, and a suite without flaws has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from agentft.evaluation.checking import Flaw, check_cases
from tests.evaluation.world import CASES, call, small_plan, write_suite, write_world

TEA = call("price", item="tea")
NAMED = {case["id"]: case for case in CASES}


def check(root: Path, *cases: dict[str, Any]) -> list[Flaw]:
    return check_cases(small_plan(root, list(cases), strict=False))


def one(*calls: dict[str, Any], category: str = "single", **turn: Any) -> dict[str, Any]:
    return {"id": "x", "category": category, "turns": [{"user": "Please.", "calls": list(calls), **turn}]}


def test_a_sound_suite_has_no_flaws(tmp_path: Path) -> None:
    assert check(tmp_path, *CASES) == []


@pytest.mark.parametrize(
    ("case", "place", "problem", "remedy"),
    [
        (one(call("prise", item="tea")), ": turns[0].calls[0]", "no tool 'prise' is offered", "did you mean 'price'"),
        (one(TEA, call("price", item="tee")), ": turns[0].calls[1]", "price(item='tee') returned 404", "correct the"),
        (one(call("order", item="tea", count="2")), ": turns[0].calls[0]", "returned 400", "correct the call"),
        (one(TEA, failing=1), ": turns[0].calls[0]", "returned 200", "lower `failing`"),
        (one(TEA, answer=["9.99"]), ": turns[0].answer", "no result contains the answer '9.99'", "value of a result"),
        (
            one({**TEA, "alternatives": {"item": ["tee"]}}),
            ": turns[0].calls[0]",
            '`item` = "tee" is accepted, but price returned 404',
            "remove the value",
        ),
        (
            one({**TEA, "alternatives": {"item": ["cake"]}}, answer=["2.5"]),
            ": turns[0].calls[0]",
            '`item` = "cake" is accepted, but no result contains the answer',
            "remove the value",
        ),
        (
            one({**call("order", item="tea", count=2), "alternatives": {"count": [3]}}),
            ": turns[0].calls[0]",
            "`count` = 3 is accepted, but the end state is another",
            "remove the value",
        ),
        (
            one(call("order", item="tea", count=2), call("order", item="cake", count=1), category="parallel"),
            ": turns[0]",
            "in the opposite order the end state is another",
            "any order is scored as right",
        ),
        (
            {**one(TEA, category="injection", answer=["2.5"]), "forbidden": [TEA]},
            "",
            "not a success: ",
            "`--model scripted` solves it",
        ),
    ],
)
def test_a_flaw_is_found_at_its_place(
    tmp_path: Path, case: dict[str, Any], place: str, problem: str, remedy: str
) -> None:
    (flaw,) = check(tmp_path, NAMED["i1"], case)
    assert (flaw.suite, flaw.case) == ("shopping", "x")
    assert flaw.place == f"{tmp_path / 'shopping' / 'cases.jsonl'}:2{place}"
    assert problem in flaw.problem
    assert remedy in flaw.remedy


def test_a_crash_of_a_tool_is_a_flaw(tmp_path: Path) -> None:
    (flaw,) = check(tmp_path, one(call("price", item="bomb")))
    assert "returned 500" in flaw.problem


def test_cases_that_ask_the_same_are_flaws(tmp_path: Path) -> None:
    other = {**NAMED["s1"], "id": "other", "category": "irrelevance", "turns": [{"user": "Price of tea?", "calls": []}]}
    flaws = check(tmp_path, NAMED["s1"], {**NAMED["s1"], "id": "again"}, other)
    assert [(flaw.case, flaw.problem) for flaw in flaws] == [
        ("again", "it is the same as case 's1'"),
        ("other", "it asks the same as case 's1', and expects something else"),
    ]


def test_the_command_lists_flaws_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["eval", "--check", write_suite(tmp_path), "--tools", write_world(tmp_path)]
    assert run(command) == 0
    assert capsys.readouterr().out == "7 cases of shopping: none with flaws\n"
    write_suite(tmp_path, [one(TEA, answer=["3"]), NAMED["s1"]])
    assert run(command) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2 cases of shopping: 1 with flaws"
    assert "cases.jsonl:1: turns[0].answer: x: no result contains the answer '3'; " in lines[0]
    assert run([*command, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["suites"], document["cases"]) == (["shopping"], 2)
    assert document["flaws"][0].keys() == {"suite", "case", "place", "problem", "remedy"}
    assert not (tmp_path / "runs").exists()


def test_check_runs_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--check", "basics", "--model", "x", "--limit", "3"]) == 2
    assert "omit --model, --limit" in capsys.readouterr().err
