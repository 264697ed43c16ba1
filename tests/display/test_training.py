"""The output of a training run, with and without a terminal."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from agentft.display.training import TrainingView, curve_lines, data_lines, loss_curve, sparkline
from agentft.engine.packing import PackingReport
from agentft.rows.ledger import Ledger, Rejection
from agentft.rows.preparation import DataReport
from agentft.training.events import (
    DataReady,
    Event,
    Finished,
    Measurement,
    Note,
    RunResult,
    Saved,
    Started,
    StepDone,
    TrainingPlan,
    Waiting,
)

REJECTION = Rejection(3, "template", "\x1b[31mx", None, None, "")
DATA = DataReport(
    Ledger(12, 10, Counter({"template": 2}), {"template": (Path("rows.jsonl"), REJECTION)}),
    samples=10,
    tokens=2000,
    supervised=500,
    weight=500.0,
    quiet=0,
    quiet_learnt=False,
    trimmed=0,
    left_out=0,
    longest=((1, "a", 300),),
    fingerprint="f",
)
PLAN = TrainingPlan(3, 1, PackingReport(10, 3, 1000, 1990, 0.9, 1.99))
RESULT = RunResult(Path("runs/x-1"), Path("runs/x-1/adapter"), 3, 0.5, False, DATA, 1.0)


def step(number: int) -> StepDone:
    return StepDone(number, number / 3, 1.0 / number, 1e-3, 0.5, 3, 300, 400, 60, 60.0, 0.5, 2**30)


EVENTS: list[Event] = [
    Waiting("reading rows.jsonl"),
    DataReady(DATA, PLAN),
    Note("mind the gap", warning=True),
    Started(Path("runs/x-1"), 0, 3, 5_000_000, 135_000_000, "cpu"),
    *(step(number) for number in (1, 2, 3)),
    Saved(Path("runs/x-1/checkpoints/checkpoint-3"), 3),
    Finished(RESULT, (1.0, 0.5, 0.33)),
]


def shown(*, terminal: bool = False, quiet: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, color_system=None)
    view = TrainingView(console, quiet=quiet)
    for event in EVENTS:
        view(event)
    view.close()
    return stream.getvalue()


def test_plain_lines_without_a_terminal() -> None:
    text = shown()

    assert "rows: 12 = 10 kept + 2 rejected" in text
    assert "tokens: 2,000 in 10 samples, 500 supervised (25.0%)" in text
    assert "1,000 tokens computed per epoch instead of 1,990" in text
    assert "warning: mind the gap" in text
    assert "5.0 M of 135 M parameters trained (3.7%)" in text
    assert "step 1/3  loss 1.000  600 tokens/s  15% supervised  1.0 GiB" in text
    assert "step 2/3" not in text, "a line every 15 seconds, and for the first and the last step"
    assert "reading rows.jsonl ..." in text
    assert "step 3/3" in text
    assert "saved runs/x-1/checkpoints/checkpoint-3" in text


def test_a_bar_on_a_terminal() -> None:
    text = shown(terminal=True)

    assert "step 3/3" in text
    assert "loss 0.333" in text


def test_quiet_shows_warnings_only() -> None:
    assert shown(quiet=True) == "warning: mind the gap\n"


def test_texts_from_data_cannot_control_the_terminal() -> None:
    assert "\x1b" not in "".join(data_lines(DATA))


def test_the_curve_falls_with_the_loss() -> None:
    lines = loss_curve([2.0, 1.0, 0.5, 0.0], height=4)

    assert lines == ["   2.000 ┤█   ", "         ┤█   ", "         ┤██  ", "         ┤███ ", "   0.000 ┼────"]


def test_the_curve_of_many_steps_fits_and_labels_its_ends() -> None:
    lines = loss_curve([10.0 / (1 + number) for number in range(500)], width=40)

    assert max(map(len, lines)) == 50
    assert lines[-1].split() == ["step", "1", "500"]
    assert loss_curve([1.0]) == []
    assert len(loss_curve([0.0, 0.0])) == 9


def test_what_was_measured_is_shown_with_each_step_as_far_as_the_terminal_is_wide() -> None:
    shown_at = {}
    for width in (60, 80, 140):
        stream = io.StringIO()
        view = TrainingView(Console(file=stream, force_terminal=True, width=width, color_system=None))
        for event in EVENTS[3:5]:
            view(event)
        view(Waiting("scoring after step 1"))
        view._progress.refresh()
        view(Measurement(1, {"eval_score": 0.45, "eval_cases": 20.0}, 1.0))
        view(Measurement(1, {"eval_loss": 1.2345}, 1.0))
        view(step(2))
        view.close()
        shown_at[width] = stream.getvalue()
    assert "scoring after step 1 ..." in shown_at[60]
    assert not [line for line in shown_at[60].splitlines() if line.startswith("scoring")], "it is in the bar"
    assert "step 2/3" in shown_at[60]
    assert "loss 0.500  score 45%" in shown_at[60]
    assert "held-out" not in shown_at[60]
    assert "loss 0.500  score 45%  held-out 1.234 " in shown_at[80]
    assert "tokens/s  15% supervised  1.0 GiB" in shown_at[140]


def test_without_a_terminal_all_figures_are_shown() -> None:
    stream = io.StringIO()
    view = TrainingView(Console(file=stream, width=40, color_system=None))
    for event in (EVENTS[3], Measurement(1, {"eval_score": 0.45}, 1.0), step(1)):
        view(event)
    assert "step 1/3  loss 1.000  score 45%  600 tokens/s  15% supervised  1.0 GiB" in stream.getvalue()


def test_a_sparkline_has_a_block_for_each_part() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([0.25, 0.5], top=1.0) == "▃▅"
    assert sparkline([1.0, 3.0, 2.0, 2.0], width=2) == "██"


def test_the_curves_of_a_run_fit_into_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [{"step": number, "loss": 2.0 / number, "lr": number / 1000} for number in range(1, 101)]
    measured = [{"step": 10, "eval_score": 0.5}, {"step": 20, "eval_score": 0.25, "eval_loss": 3.0}]
    measured += [{"step": 30, "eval_loss": 4.0}]
    for columns in (60, 140):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = curve_lines(steps, measured)
        assert max(map(len, lines)) <= min(columns, 80)
        assert lines[-3].startswith("learning rate ▁")
        assert lines[-3].endswith(" 1.0e-03 to 1.0e-01")
        assert lines[-2] == "held-out loss ▇█ 3.000 to 4.000, best 3.000 at step 20"
        assert lines[-1] == "score         ▅▃ 50% to 25%, best 50% at step 10"
    assert curve_lines([], []) == []
