"""A stored evaluation in the terminal: a dozen lines of what matters first, all of its cases, or one case."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from agentft.display.diagnosis import (
    BARE,
    describe_calibration,
    describe_pairs,
    show_diagnosis,
    show_share,
    worst_places,
)
from agentft.display.evaluation import overfit_table
from agentft.display.safe import safe_name, safe_text
from agentft.evaluation.records import Record
from agentft.evaluation.summary import HEADLINES
from agentft.reports.differences import call_differences
from agentft.reports.pairing import OUTCOMES, PairedCase, called_tools, largest_failures, worst_run
from agentft.types import Step, ToolCall

__all__ = ["show_case", "show_stored"]

NAMED = 8


def show_stored(summary: Mapping[str, Any], cases: Sequence[PairedCase], *, everything: bool) -> RenderableType:
    """The verdict, the headline figures, what to fix first and what was lost; with `everything`, all figures and cases.

    `summary` is the content of summary.json.
    """
    arms = list(summary["arms"])
    counts = ", ".join(f"{name} {count}" for name in OUTCOMES if (count := sum(case.outcome == name for case in cases)))
    blocks: list[RenderableType] = [
        safe_text(summary["finding"], style="bold"),
        Text("no gate" if summary["verdict"] == "none" else f"verdict: {summary['verdict']}"),
        *(Text(gate.get("sentence", ""), ("red", "green")[gate["passed"]]) for gate in summary["gates"]),
        _figures(summary, arms, tuple(summary["metrics"]) if everything else HEADLINES),
        *map(safe_name, (*describe_pairs(summary), *describe_calibration(summary))),
        Text(f"cases: {counts}"),
    ]
    for group in largest_failures(cases)[:4]:
        what = " ".join(filter(None, (group.error, group.tools, group.pointer)))
        blocks.append(safe_name(f"  {len(group.cases)} x {what}{group.regressed} (for example {group.cases[0]})"))
    diagnosis = summary.get("diagnosis")
    if diagnosis:
        blocks += show_diagnosis(diagnosis, arms) if everything else worst_places(diagnosis, arms[0])
    if summary.get("overfit"):
        shown = summary["overfit"] if everything else {"all": summary["overfit"]["all"]}
        blocks += ["", overfit_table(shown)]
    if lost := [case.id for case in cases if case.outcome == "lost"]:
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        blocks.append(safe_name(f"lost: {', '.join(lost[:NAMED])}{more}", style="red"))
    if everything:
        blocks += ["", _list(cases)]
    return Group(*blocks)


def show_case(case: PairedCase, labels: Sequence[str]) -> RenderableType:
    """One case: the calls side by side, then for each arm its errors, its replies, and what the tools answered."""
    first = case.first
    facts = (OUTCOMES[case.outcome], first.suite, first.category, first.lang)
    blocks: list[RenderableType] = [safe_name(case.id, style="bold"), safe_name(" · ".join(filter(None, facts)))]
    if case.outcome == "only":
        there = [label for label, records in zip(labels, case.runs, strict=True) if records]
        blocks.append(safe_name(f"only in {', '.join(there)}", style="yellow"))
    blocks += ["", _calls(case, labels)]
    for label, records in zip(labels, case.runs, strict=True):
        for record in records:
            blocks += ["", *_run(label, record, len(records))]
    return Group(*blocks)


def _figures(summary: Mapping[str, Any], arms: Sequence[str], names: Sequence[str]) -> Table:
    compared = ["difference"] if len(arms) == 2 else []
    columns = (Column(safe_name(title), justify="right") for title in (*arms, *compared, "n"))
    table = Table(Column("metric", no_wrap=True), *columns, **BARE)
    for name in names:
        found = summary["metrics"][name]
        if any(found[arm]["n"] for arm in arms):
            cells = [show_share(found[arm]) for arm in arms]
            cells += [show_share(found["delta"], "+")] if compared else []
            table.add_row(name, *cells, "/".join(dict.fromkeys(str(found[arm]["n"]) for arm in arms)))
    return table


def _list(cases: Sequence[PairedCase]) -> Table:
    table = Table("", Column("case", overflow="fold"), "category", "tools", "error", **BARE)
    for case in cases:
        errors = (run.error for records in case.runs if (run := worst_run(records)) and run.error)
        texts = (case.id, case.first.category, ", ".join(called_tools(case)), next(errors, ""))
        table.add_row(case.outcome, *map(safe_name, texts))
    return table


def _calls(case: PairedCase, labels: Sequence[str]) -> RenderableType:
    found = call_differences(case.first.expected, [worst_run(records) for records in case.runs])
    if not found:
        return Text("No call was expected, and none was made.", style="dim")
    table = Table("", *(Column(safe_name(title)) for title in ("expected", *labels)), **BARE)
    for call in found:
        for row in call.rows:
            cells = zip(row.arms, row.wrong, strict=True)
            marked = (safe_name("-" if text is None else text, style="red" if wrong else "") for text, wrong in cells)
            place = row.pointer or f"turn {call.turn}"
            table.add_row(safe_name(place), safe_name(row.expected or "-"), *marked)
    return table


def _run(label: str, record: Record, trials: int) -> Iterator[RenderableType]:
    trial = f", trial {record.trial}" if trials > 1 else ""
    yield safe_name(f"{label}{trial}: {record.error or record.problem or 'solved'}", style="bold")
    for finding in record.findings:
        yield safe_name(f"  {finding.kind} in turn {finding.turn} {finding.pointer} {finding.detail}", style="red")
    for turn, user in enumerate(record.users):
        yield safe_text(f"user: {user}", style="cyan")
        for step in record.steps:
            if step.turn == turn:
                yield from _step(step)


def _step(step: Step) -> Iterator[RenderableType]:
    calls = [part for part in step.parts if isinstance(part, ToolCall)]
    texts = [part.text for part in step.parts if not isinstance(part, ToolCall) and hasattr(part, "text")]
    yield safe_text(f"model: {step.raw if step.raw is not None else ' '.join(texts)}")
    for call in calls:
        read = f"unreadable: {call.parse_error}" if call.parse_error else f"{call.name} {_json(call.arguments)}"
        yield safe_text(f"  call: {read}", style="dim")
    for exchange in step.exchanges:
        sent = f"{exchange.method} {exchange.url} {_json(exchange.sent)}" if exchange.url else "not sent"
        fault = f" (injected fault: {exchange.fault})" if exchange.fault else ""
        status = exchange.status or "no response"
        yield safe_text(f"  {sent}\n  {status}{fault}: {exchange.received}", style="dim")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)
