"""Terminal output of an evaluation: progress, side-by-side metrics of the arms, categories and errors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from agentft.display.diagnosis import BARE, describe_calibration, describe_pairs
from agentft.display.safe import safe_name, safe_text
from agentft.evaluation.comparison import Breakdown, Comparison
from agentft.evaluation.plan import Arm
from agentft.evaluation.records import Record
from agentft.evaluation.statistics import Estimate, PairedDelta
from agentft.evaluation.summary import HEADLINES, Summary
from agentft.metrics import ERROR_CLASSES
from agentft.strict import counted, own_table

__all__ = ["EvaluationProgress", "overfit_table", "show_summary"]

LOG_SECONDS = 15.0
MAX_PROBLEMS = 3
OFFICIAL = own_table(__file__, str)
VERDICT_STYLES = {"pass": "bold green", "fail": "bold red"}


class EvaluationProgress:
    """Callbacks for `agentft.evaluation.runner.Settings`, on `console` (stderr) while the block lasts.

    Shows a bar on a terminal, a line every 15 seconds elsewhere, and nothing if the console is quiet.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        description = TextColumn("{task.description}", markup=False)
        self._bar = Progress(description, *columns, console=console, disable=console.quiet or not console.is_terminal)
        self._task = TaskID(0)
        self._last = time.monotonic()
        self._failed = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_arm(self, arm: Arm) -> None:
        """Called before the model of an arm is loaded."""
        self._failed = 0
        self._task = self._bar.add_task(safe_text(f"{arm.label}: {arm.name}").plain, total=None)
        if self._bar.disable:
            self._console.print(safe_text(f"{arm.label}: {arm.name}"))

    def on_case(self, arm: str, record: Record, done: int, total: int) -> None:
        """Called after each finished case."""
        self._failed += record.scores["success"].value != 1
        self._bar.update(self._task, completed=done, total=total)
        if self._bar.disable and (done == total or time.monotonic() - self._last > LOG_SECONDS):
            self._last = time.monotonic()
            self._console.print(safe_text(f"{arm}: {done}/{total} cases, {self._failed} not solved"))

    def on_note(self, text: str) -> None:
        """Show a sentence."""
        self._console.print(safe_name(f"note: {text}"), soft_wrap=True)


def show_summary(summary: Summary) -> RenderableType:
    """The report of an evaluation: figures, categories, error classes, gates, verdict."""
    arms = list(summary.arms)
    blocks: list[RenderableType] = [_metrics(summary.metrics, arms)]
    if summary.bfcl:
        blocks += ["", _groups("BFCL category", summary.suites, arms), "", _official(summary.bfcl["arms"], arms)]
    else:
        for title, groups in (("categories", summary.categories), ("languages", summary.languages)):
            blocks += ["", _groups(title, groups, arms)]
    if summary.overfit:
        blocks += ["", overfit_table(summary.overfit)]
    if summary.errors:
        blocks += ["", _errors(summary.errors, arms), *_failures(summary)]
    return Group(*blocks, "", *_closing(summary))


def _metrics(metrics: Mapping[str, Comparison], arms: Sequence[str]) -> Table:
    table = _table("metric", arms)
    for name, row in metrics.items():
        if any(figure.n for figure in row.arms.values()):
            table.add_row(Text(name, style="bold" if name in (*HEADLINES, "bfcl") else ""), *_cells(row, arms))
    return table


def _groups(title: str, groups: Mapping[str, Breakdown], arms: Sequence[str]) -> Table:
    """One row for each group: BFCL's check, else exact calls, or abstention where no call is expected."""
    table = _table(title, arms)
    for name, group in groups.items():
        if row := group.metrics.get(group.shown):
            table.add_row(safe_text(name), *_cells(row, arms))
    return table


def overfit_table(found: Mapping[str, Any]) -> Table:
    """How often each arm solves the cases of a suite and those derived from them. `found`: see `overfit_index`."""
    numbers = (Column(title, justify="right", no_wrap=True) for title in ("suite", "derived", "overfit index", "n"))
    table = Table(Column("success in derived suites", no_wrap=True), "", *numbers, **BARE)
    for name, by_arm in found.items():
        for arm, figures in by_arm.items():
            rates = (Text(f"{figures[key]['value'] * 100:.1f}") for key in ("original", "derived"))
            index = PairedDelta(**figures["index"])
            table.add_row(safe_text(name), safe_text(arm), *rates, _difference(index), str(index.n))
    return table


def _official(figures: Mapping[str, Any], arms: Sequence[str]) -> Table:
    """The official aggregation of BFCL."""
    columns = (Column(safe_text(arm), justify="right") for arm in arms)
    table = Table(Column("BFCL v4", no_wrap=True), *columns, **BARE)
    for key, name in OFFICIAL.items():
        values = [figures[arm]["official"].get(key) for arm in arms]
        table.add_row(name, *(Text("-", "dim") if value is None else f"{value * 100:.1f}" for value in values))
    return table


def _bfcl_notes(bfcl: Mapping[str, Any]) -> Iterator[Text]:
    yield Text("Categories show bfcl, the official checker's verdict; exact_call and abstention are stricter.", "dim")
    yield Text(f"Not run, and 0 in the overall score: {', '.join(bfcl['not_run'])}.", style="dim")
    for arm, found in bfcl["arms"].items():
        counts = found["scorers"]
        differing = f"{counts['only_bfcl']} pass only bfcl, {counts['only_strict']} only exact_call or abstention"
        apart = f"{counts['only_bfcl'] + counts['only_strict']} of {sum(counts.values())} entries"
        yield safe_text(f"{arm}: the scorers disagree in {apart}: {differing}.", style="dim")


def _table(title: str, arms: Sequence[str]) -> Table:
    headings = [*map(safe_text, arms), *(map(Text, ("difference", "p") if len(arms) == 2 else ())), Text("n")]
    columns = (Column(heading, justify="right", no_wrap=True) for heading in headings)
    return Table(Column(title, no_wrap=True), *columns, **BARE)


def _cells(row: Comparison, arms: Sequence[str]) -> list[Text]:
    cells = [_figure(row.arms[arm]) for arm in arms]
    if row.delta:
        cells += [_difference(row.delta), Text(_p_value(row.delta.p if row.delta.p_holm is None else row.delta.p_holm))]
    return [*cells, Text("/".join(dict.fromkeys(str(row.arms[arm].n) for arm in arms)))]


def _figure(found: Estimate) -> Text:
    if found.value is None or found.low is None or found.high is None:
        return Text("-", style="dim")
    interval = f" {found.low * 100:3.0f}-{found.high * 100:<3.0f}"
    return Text.assemble(f"{found.value * 100:.1f}", (interval, "dim"))


def _difference(found: PairedDelta) -> Text:
    if found.value is None or found.low is None or found.high is None:
        return Text("-", style="dim")
    style = "" if not found.shown else "green" if found.value > 0 else "red"
    interval = f" {found.low * 100:+.0f}..{found.high * 100:+.0f}"
    return Text.assemble((f"{found.value * 100:+.1f}", style), (interval, "dim"))


def _p_value(p: float | None) -> str:
    return "" if p is None else "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _errors(errors: Mapping[str, Mapping[str, int]], arms: Sequence[str]) -> Table:
    counted = (Column(safe_text(arm), justify="right") for arm in arms)
    title = Column("first error of a case", no_wrap=True)
    table = Table(title, *counted, "", **BARE)
    for kind, counts in errors.items():
        meaning = Text(ERROR_CLASSES.get(kind, ""), style="dim")
        table.add_row(safe_text(kind), *(str(counts[arm]) for arm in arms), meaning)
    return table


def _failures(summary: Summary) -> Iterator[Text]:
    for label, found in summary.failures.items():
        arm = summary.arms[label]
        shots = f", {counted(arm.shots, 'example')} in the prompt" if arm.shots else ""
        counts = f"{found['format']} because no call could be read, {found['decision']} by a wrong decision"
        yield safe_text(f"{label} ({arm.format or 'unknown format'}{shots}): cases failed: {counts}.", style="dim")


def _closing(summary: Summary) -> Iterator[Text]:
    yield Text("Percent with 95 % intervals; differences over the cases that count in both arms.", style="dim")
    if summary.bfcl:
        yield from _bfcl_notes(summary.bfcl)
    else:
        adjusted = "; p over all rows of a table adjusted by Holm's method" * (len(summary.arms) == 2)
        yield Text(f"Categories show exact_call, or abstention if no call is expected{adjusted}.", style="dim")
    document = summary.document()
    for line in (*describe_pairs(document), *describe_calibration(document)):
        yield safe_text(line)
    if summary.invalid:
        cases = counted(summary.invalid, "invalid case")
        yield Text(f"{cases}, not caused by the model, left out of every figure.", style="yellow")
        for problem, count in list(summary.problems.items())[:MAX_PROBLEMS]:
            yield safe_name(f"  {count} x {problem}", style="yellow")
    for gate in summary.gates:
        yield Text(gate.sentence, style="green" if gate.passed else "red")
    yield safe_text(summary.finding, style="bold")
    if summary.verdict == "none":
        yield Text("verdict: none, because no gate is set; set one with --fail-under METRIC=X")
    else:
        yield Text(f"verdict: {summary.verdict}", style=VERDICT_STYLES.get(summary.verdict, "bold yellow"))
