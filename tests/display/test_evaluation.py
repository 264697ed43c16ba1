from __future__ import annotations

import dataclasses
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from agentft.display.evaluation import EvaluationProgress, show_summary
from agentft.evaluation.comparison import Breakdown, Comparison
from agentft.evaluation.plan import Arm
from agentft.evaluation.records import Record
from agentft.evaluation.statistics import estimate, paired_delta
from agentft.evaluation.summary import ArmSummary, GateResult, Summary
from agentft.models.scripted import ScriptedModel
from agentft.types import Score


def shown(summary: Summary, width: int = 80) -> list[str]:
    stream = StringIO()
    Console(file=stream, width=width).print(show_summary(summary))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def row(tuned: list[float], base: list[float] | None = None) -> Comparison:
    if base is None:
        return Comparison({"tuned": estimate(tuned)})
    delta = paired_delta(tuned, base) if base else paired_delta([], [])
    return Comparison({"tuned": estimate(tuned), "base": estimate(base)}, delta)


ARM = ArmSummary("m", None, None, None, None, 0, 0)


def summary(**changes: Any) -> Summary:
    tuned, base = [1.0] * 9 + [0.0], [0.0] * 10
    fields: dict[str, Any] = {field.name: {} for field in dataclasses.fields(Summary)}
    fields |= {
        "arms": {"tuned": ARM, "base": ARM},
        "metrics": {"exact_call": row(tuned, base), "url": row([], []), "known_tool": row(tuned, [])},
        "categories": {
            "single": Breakdown(10, {"exact_call": row(tuned, base), "abstention": row(base, tuned)}),
            "irrelevance": Breakdown(10, {"abstention": row(base, tuned)}),
        },
        "languages": {"en": Breakdown(10, {"exact_call": row(tuned, base)}), "zh": Breakdown(10, {})},
        "errors": {"no-call": {"tuned": 1, "base": 10}},
        "gates": [],
        "invalid": 0,
        "finding": "tuned is better.",
        "verdict": "pass",
    }
    return Summary(**fields | changes)


def record(success: float) -> Record:
    scores = {"success": Score(success, "")}
    return Record(
        arm="tuned", case="c", trial=0, outcome="done", steps=(), case_digest="", fingerprint="", scores=scores
    )


def test_tuned_and_base_are_shown_side_by_side() -> None:
    lines = shown(summary())
    assert lines[0].split() == ["metric", "tuned", "base", "difference", "p", "n"]
    assert lines[1].split() == ["exact_call", "90.0", "60-98", "0.0", "0-28", "+90.0", "+49..+98", ".004", "10"]
    assert lines[2].split() == ["known_tool", "90.0", "60-98", "-", "-", "10/0"]
    assert not any(line.startswith("url") for line in lines)
    assert [line.split()[0] for line in lines[4:7]] == ["categories", "single", "irrelevance"]
    assert "-90.0" in lines[6]
    assert any(line.split()[:3] == ["no-call", "1", "10"] for line in lines)
    assert lines[-2:] == ["tuned is better.", "verdict: pass"]


def test_nothing_is_cut_on_a_narrow_terminal() -> None:
    assert not any("…" in line for line in shown(summary()))


def test_one_arm_has_no_difference() -> None:
    alone = {"exact_call": row([1.0])}
    lines = shown(summary(arms={"tuned": ARM}, metrics=alone, categories={}, languages={}, errors={}))
    assert lines[0].split() == ["metric", "tuned", "n"]
    assert lines[1].split() == ["exact_call", "100.0", "21-100", "1"]


def test_gates_and_invalid_cases_are_shown() -> None:
    gates = [
        GateResult("exact_call", 0.8, 0.9, passed=True),
        GateResult("url", 0.5, None, passed=False),
        GateResult("success", None, -0.012, passed=True, margin=0.05, p=0.0312),
        GateResult("answer", None, None, passed=False, margin=0.05, p=1.0),
    ]
    lines = shown(summary(gates=gates, invalid=2, problems={"OSError: \x1bgone": 2}, verdict="fail"))
    assert "exact_call 90.00 % is at least the required 80 %: passed" in lines
    assert "url applies to no case: failed" in lines
    passed = (
        "success is -1.2 points from the baseline, shown to be less than 5 points worse with 95 % confidence: passed"
    )
    assert passed in " ".join(lines)
    assert gates[3].sentence == "answer applies to no case: failed"
    worse = GateResult("answer", None, -0.08, passed=False, margin=0.05, p=0.4).sentence
    assert worse == (
        "answer is -8.0 points from the baseline, not shown to be less than 5 points worse with 95 % confidence: "
        "failed (p = 0.4)"
    )
    assert "2 invalid cases, not caused by the model, left out of every figure." in lines
    assert "  2 x OSError: ␛gone" in lines
    assert lines[-1] == "verdict: fail"


def test_names_are_never_markup_or_control_sequences() -> None:
    odd = {"[red]x[/red]\x1b[2J": Breakdown(1, {"exact_call": row([1.0], [1.0])})}
    text = "\n".join(shown(summary(categories=odd), 120))
    assert "[red]x[/red]␛[2J" in text
    assert "\x1b" not in text


def test_bfcl_has_its_categories_and_official_figures() -> None:
    official = {"non_live_python": 0.5, "live": None, "irrelevance": 0.25, "overall": 0.125}
    arm = {"official": official, "scorers": {"both": 1, "neither": 2, "only_bfcl": 3, "only_strict": 4}}
    found = {"arms": {"tuned": arm, "base": arm}, "not_run": ["live_simple", "multi_turn"]}
    suites = {"parallel": Breakdown(10, {"bfcl": row([1.0], [0.0]), "exact_call": row([0.0], [0.0])})}
    lines = shown(summary(bfcl=found, suites=suites), 120)
    assert next(line for line in lines if line.startswith("parallel")).split()[1] == "100.0"
    figures = {line.rsplit(maxsplit=2)[0]: line.split()[-2:] for line in lines if line}
    assert figures["non-live AST, Python only"] == ["50.0", "50.0"]
    assert figures["live AST"] == ["-", "-"]
    assert figures["multi-turn"] == ["-", "-"], "as in a summary of a version that had none"
    assert figures["overall"] == ["12.5", "12.5"]
    assert "Not run, and 0 in the overall score: live_simple, multi_turn." in lines
    differing = "the scorers disagree in 7 of 10 entries: 3 pass only bfcl, 4 only exact_call or abstention."
    assert f"base: {differing}" in lines
    assert not any(line.startswith("languages") for line in lines)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(terminal: bool) -> None:
    stream = StringIO()
    console = Console(file=stream, force_terminal=terminal, width=80)
    arm = Arm("tuned", "my[bold]model", "", lambda: ScriptedModel({}))
    with EvaluationProgress(console) as progress:
        progress.on_arm(arm)
        for done, value in ((1, 1.0), (2, 0.0)):
            progress.on_case("tuned", record(value), done, 2)
    text = stream.getvalue()
    assert "my[bold]model" in text
    assert ("tuned: 2/2 cases, 1 not solved" in text) is not terminal
    assert ("2/2" in text) is True


def test_quiet_progress_shows_nothing() -> None:
    stream = StringIO()
    arm = Arm("tuned", "m", "", lambda: ScriptedModel({}))
    with EvaluationProgress(Console(file=stream, force_terminal=True, quiet=True)) as progress:
        progress.on_arm(arm)
        progress.on_case("tuned", record(1.0), 1, 1)
    assert stream.getvalue() == ""


def test_one_invalid_case_is_singular_and_at_most_three_problems_are_listed() -> None:
    lines = shown(summary(invalid=1, problems={"a": 1, "b": 1, "c": 1, "d": 1}, verdict="invalid"))
    assert "1 invalid case, not caused by the model, left out of every figure." in lines
    assert [line for line in lines if " x " in line] == ["  1 x a", "  1 x b", "  1 x c"]
    assert lines[-1] == "verdict: invalid"
