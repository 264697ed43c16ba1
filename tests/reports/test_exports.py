"""JUnit XML, Markdown and CSV: one verdict, escaped texts."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from agentft.evaluation.summary import Gate
from agentft.metrics import Finding
from agentft.reports.exports import render_csv, render_junit, render_markdown
from tests.reports.samples import HOSTILE, arms_of, make_run, summary_of


def junit(summary: dict[str, Any], arms: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(render_junit(summary, arms))  # noqa: S314 - our own text


def test_junit_has_every_case_of_the_first_arm_and_every_gate(tmp_path: Path) -> None:
    wrong = (Finding("wrong-value", 0, "/item", "expected tea"),)
    arms = arms_of({"a": 1.0, "i": None}, {"a": 0.0})
    arms["tuned"].append(make_run("b", 0, error="wrong-value", findings=wrong))
    found = junit(summary_of(arms, tmp_path, Gate("exact_call", 0.4), Gate("exact_call", 0.9)), arms)
    cases = {case.get("name"): case for case in found.iter("testcase")}
    assert cases["a"].get("classname") == "single"
    assert len(cases["a"]) == 0
    failure = cases["b"].find("failure")
    assert failure is not None
    assert (failure.get("type"), failure.get("message"), failure.text) == (
        "wrong-value",
        "wrong-value /item expected tea",
        "a reason",
    )
    assert [child.tag for child in cases["i"]] == ["error"]
    (failure,) = cases["exact_call at least 0.9"]
    assert failure.get("message") == "exact_call 50.00 % is below the required 90 %: failed"
    assert len(cases["exact_call at least 0.4"]) == 0
    first = found.find("testsuite")
    assert first is not None
    assert [first.get(name) for name in ("name", "tests", "failures", "errors")] == ["tuned", "3", "1", "1"]


@pytest.mark.parametrize(
    ("verdict", "child"),
    [("pass", []), ("fail", ["failure"]), ("invalid", ["error"]), ("interrupted", ["error"]), ("none", ["skipped"])],
)
def test_the_verdict_is_the_summarys(tmp_path: Path, verdict: str, child: list[str]) -> None:
    arms = arms_of({"a": 1.0}, {"a": 1.0})
    summary = summary_of(arms, tmp_path) | {"verdict": verdict}
    found = junit(summary, arms)
    (case,) = (case for case in found.iter("testcase") if case.get("classname") == "verdict")
    assert [part.tag for part in case] == child
    assert ("no gate" if verdict == "none" else verdict) in render_markdown(summary, arms, "").splitlines()[0]


def test_markdown_is_a_dozen_lines_with_what_was_lost(tmp_path: Path) -> None:
    arms = arms_of({"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 0.0})
    text = render_markdown(summary_of(arms, tmp_path, Gate("exact_call", 0.9)), arms, "agentft eval x")
    lines = text.splitlines()
    assert len(lines) <= 15
    assert lines[0].startswith("**agentft eval: fail.** ")
    assert "| success | 50.0 | 50.0 | +0.0 (" in text
    assert "- cases lost: 1 (a); gained: 1" in text
    assert "- gate: exact\\_call 50.00 % is below the required 90 %: failed" in text
    assert "- no-call price: 1 of 1 failures, regressions: 1, for example a" in text
    assert lines[-1] == "<sub>` agentft eval x `</sub>"


def test_markdown_says_what_its_lists_leave_out(tmp_path: Path) -> None:
    cases = {f"c{number}": 0.0 for number in range(7)}
    arms = arms_of(cases, dict.fromkeys(cases, 1.0))
    arms["tuned"] = [
        replace(run, findings=(Finding("wrong-value", 0, f"/{run.case}"),)) if run.case > "c2" else run
        for run in arms["tuned"]
    ]
    text = render_markdown(summary_of(arms, tmp_path), arms, "")
    assert "- cases lost: 7 (c0, c1, c2, c3, c4 and 2 more); gained: 0" in text
    assert "- no-call price: 3 of 7 failures, regressions: 3, for example c0" in text


def test_hostile_texts_stay_text_in_every_export(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "category": HOSTILE,
        "suite": HOSTILE,
        "findings": (Finding("no-call", 0, HOSTILE, HOSTILE),),
    }
    run = make_run(f"=1+1{HOSTILE}", 0, error=HOSTILE, text=f"=cmd|{HOSTILE}", users=("@SUM(A1)",), **fields)
    arms = {f"-{HOSTILE}": [run], "base": [make_run(run.case, 1, arm="base")]}
    summary = summary_of(arms, tmp_path)
    assert len(junit(summary, arms).findall("testsuite/testcase")) == 2
    shown = f"agentft --model '{HOSTILE}' @someone https://x.test  ``"
    markdown, _, command = render_markdown(summary, arms, shown).rpartition("<sub>")
    assert "<script" not in markdown.replace("\\<script", "")
    assert "@someone" not in render_markdown(summary | {"finding": "@someone"}, arms, "")
    assert "://x" not in render_markdown(summary | {"finding": "https://x.test"}, arms, "")
    assert command.startswith("``` agentft --model ")  # a code span: to be copied, and nothing in it is markup
    assert command.endswith(" @someone https://x.test  `` ```</sub>\n")
    assert command.count("```") == 2
    assert command.count("\n") == 1
    rows = list(csv.reader(render_csv(arms).splitlines(keepends=True)))
    assert len(rows) == 3
    assert {len(row) for row in rows} == {len(rows[0])}
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]
    for text in (markdown, render_csv(arms), render_junit(summary, arms)):
        assert text.encode()


def test_csv_has_a_row_for_each_case_and_arm_and_empty_cells_for_what_does_not_apply() -> None:
    rows = list(csv.DictReader(render_csv(arms_of({"a": 1.0}, {"a": None})).splitlines(keepends=True)))
    assert [(row["case"], row["arm"], row["success"], row["outcome"]) for row in rows] == [
        ("a", "tuned", "1.0", "done"),
        ("a", "base", "", "invalid"),
    ]
