"""The output of a training run: row counts, a progress bar or plain lines, and the loss curve."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from agentft.display.safe import safe_line, safe_name, safe_text
from agentft.rows.preparation import DataReport
from agentft.strict import counted
from agentft.training.events import (
    DataReady,
    Event,
    Finished,
    Measurement,
    Note,
    Saved,
    Started,
    StepDone,
    TrainingPlan,
    Waiting,
)

__all__ = ["TrainingView", "curve_lines", "data_lines", "loss_curve", "plan_lines", "sparkline", "token_lines"]

LOG_SECONDS = 15.0
"""Without a terminal, the time between two lines about steps."""
_BESIDE = 30
"""Columns of a terminal that the step, a short bar and the time need beside the figures."""
_LEVELS = " ▁▂▃▄▅▆▇█"


class TrainingView:
    """Shows the events of a run on `console` (stderr); `quiet`: only warnings. Close it at the end."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            expand=True,
            disable=not console.is_terminal,
        )
        self._task = TaskID(0)
        self._tokens = 0
        self._seconds = 0.0
        self._total = 0
        self._measured: dict[str, str] = {}
        self._last = float("-inf")  # when a step was shown

    def close(self) -> None:
        """Remove the progress bar, if there is one."""
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Note):
            if event.warning:
                self._console.print(safe_text("warning: ", "yellow") + safe_name(event.text), soft_wrap=True)
            else:
                self.say(event.text)
        elif self._quiet:
            return
        elif isinstance(event, Waiting):
            self._wait(f"{event.text} ...")
        elif isinstance(event, DataReady):
            for line in [*data_lines(event.data), *plan_lines(event.plan, event.data)]:
                self._print(line)
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, StepDone | Measurement):
            self._step(event) if isinstance(event, StepDone) else self._keep(event)
        elif isinstance(event, Saved) and self._progress.disable:
            self._print(f"saved {event.path}")
        elif isinstance(event, Finished):
            self.close()

    def say(self, text: str) -> None:
        """Show a sentence, unless quiet."""
        if not self._quiet:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(safe_name(text), soft_wrap=True)

    def _start(self, event: Started) -> None:
        share = event.trainable / max(event.parameters, 1)
        self._print(
            f"{event.folder}: steps {event.step + 1} to {event.steps} on {event.device}, "
            f"{event.trainable / 1e6:.1f} M of {event.parameters / 1e6:.0f} M parameters trained ({share:.1%})"
        )
        self._total = event.steps
        self._task = self._progress.add_task("", total=event.steps, completed=event.step, figures="")
        self._progress.start()

    def _wait(self, text: str) -> None:
        """Show what begins; during the training, in place of the figures."""
        if self._total:
            self._progress.update(self._task, figures=text)
        else:
            self._print(text)

    def _keep(self, event: Measurement) -> None:
        """The figures that are shown with each step from now on."""
        shown = {"eval_score": "score {:.0%}", "eval_loss": "held-out {:.3f}"}
        self._measured |= {key: text.format(event.figures[key]) for key, text in shown.items() if key in event.figures}

    def _step(self, step: StepDone) -> None:
        self._tokens += step.tokens
        self._seconds += step.seconds
        parts = [
            f"loss {step.loss:.3f}",
            *self._measured.values(),
            f"{self._tokens / max(self._seconds, 1e-9):,.0f} tokens/s",
            f"{step.supervised / max(step.unshared, 1):.0%} supervised",
            f"{step.memory / 2**30:.1f} GiB",
        ]
        room = 1000 if self._progress.disable else max(self._console.width - _BESIDE, 0)
        while len("  ".join(parts)) > room and parts[1:]:
            parts.pop()
        figures = "  ".join(parts)
        self._progress.update(self._task, completed=step.step, figures=figures)
        now = time.monotonic()
        if self._progress.disable and (now - self._last > LOG_SECONDS or step.step == self._total):
            self._last = now
            self._print(f"step {step.step}/{self._total}  {figures}")


def data_lines(data: DataReport) -> list[str]:
    """How many rows were kept, why the others were rejected, and how many tokens are supervised."""
    ledger, first = data.ledger, data.ledger.first_places()
    lines = [f"rows: {ledger.rows:,} = {ledger.kept:,} kept + {ledger.rejected:,} rejected"]
    for reason, count in ledger.reasons.most_common():
        lines.append(f"  {count:,} {reason}, the first: {safe_line(first[reason])}")
    lines += [f"  note: {safe_line(note)}" for note in ledger.notes()]
    return lines + token_lines(data)


def token_lines(data: DataReport) -> list[str]:
    """How many tokens there are, how many are supervised, and how many are cut off."""
    share = data.supervised / max(data.tokens, 1)
    samples = counted(data.samples, "sample")
    lines = [f"tokens: {data.tokens:,} in {samples}, {data.supervised:,} supervised ({share:.1%})"]
    if data.trimmed:
        left = counted(data.left_out, "supervised token")
        lines.append(f"cut to max_length: {counted(data.trimmed, 'sample')}, without {left}")
    return lines


def plan_lines(plan: TrainingPlan, data: DataReport) -> list[str]:
    """How the samples are packed, and the number of steps."""
    packing, samples = plan.packing, counted(data.samples, "sample")
    saved = f"{packing.tokens:,} tokens computed per epoch instead of {packing.unshared:,}"
    return [
        f"packs: {packing.packs:,} of {samples}, {packing.fill:.0%} full; shared prefixes: {saved} "
        f"({packing.sharing:.1f}x fewer)",
        f"steps: {plan.steps:,} over {plan.epochs:.3g} epoch{'s' * (plan.epochs != 1)}",
    ]


def loss_curve(losses: Sequence[float], width: int = 60, height: int = 8) -> list[str]:
    """The losses as columns over the steps; each column is the mean over its steps.

    The axis starts at 0, so that heights are proportional to losses.
    """
    if len(losses) < 2:
        return []
    columns = _columns(losses, width)
    top = max(columns) or 1.0
    lines = []
    for row in range(height, 0, -1):
        label = f"{top:8.3f}" if row == height else " " * 8
        cells = (_LEVELS[max(0, min(8, round((value / top * height - row + 1) * 8)))] for value in columns)
        lines.append(f"{label} ┤{''.join(cells)}")
    ends = f"{'step 1':<{len(columns)}}"[: -len(str(len(losses)))] + str(len(losses)) if len(columns) > 12 else ""
    return [*lines, f"{0:8.3f} ┼{'─' * len(columns)}", *([f"{'':10}{ends}"] if ends else [])]


def sparkline(values: Sequence[float], width: int = 40, top: float = 0.0) -> str:
    """The values as one line of blocks, from 0 to `top` or the largest; each block is the mean over its part."""
    if not values:
        return ""
    columns = _columns(values, width)
    highest = max(top, *columns) or 1.0
    return "".join(_LEVELS[1 + min(7, int(value / highest * 8))] for value in columns)


def curve_lines(steps: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]]) -> list[str]:
    """The curves of a run: its losses, and a line for the learning rate, the held-out loss and the score, if any.

    Args:
        steps: what `metrics.jsonl` has of the steps.
        measured: what it has of measurements between them.
    """
    columns = shutil.get_terminal_size().columns
    lines = loss_curve([row["loss"] for row in steps], min(60, max(columns - 12, 12)))
    kinds = [
        ("learning rate", steps, "lr", max, 0.0, "{:.1e}"),
        ("held-out loss", measured, "eval_loss", min, 0.0, "{:.3f}"),
        ("score", measured, "eval_score", max, 1.0, "{:.0%}"),
    ]
    for name, rows, key, better, top, form in kinds:
        found = [(float(row[key]), int(row["step"])) for row in rows if key in row]
        if found:
            values = [value for value, _ in found]
            best, step = better(found, key=lambda one: one[0])
            first, last, most = (form.format(value) for value in (values[0], values[-1], best))
            line = sparkline(values, min(40, max(columns - 56, 6)), top)
            peak = f", best {most} at step {step}" if rows is measured else ""
            lines.append(f"{name:<13} {line} {first} to {last}{peak}")
    return lines


def _columns(losses: Sequence[float], width: int) -> list[float]:
    count = min(width, len(losses))
    edges = [index * len(losses) // count for index in range(count + 1)]
    return [sum(losses[a:b]) / (b - a) for a, b in pairwise(edges)]
