"""The report of `agentft data inspect` for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from agentft.data.inspection import Inspection
from agentft.data.reasons import REMEDIES
from agentft.display.safe import safe_text

__all__ = ["show_inspection"]

PERCENTILES = (50, 90, 99, 100)


def show_inspection(inspection: Inspection, path: Path) -> RenderableType:
    """Counts, rejections by reason with the first place and a remedy, and lengths."""
    rows = inspection.accounting
    head = Text.assemble(
        safe_text(str(path), style="bold"),
        f": {rows.rows:,} rows = {rows.parsed:,} parsed + {rows.rejected:,} rejected",
    )
    blocks: list[RenderableType] = [head, "", _counts(inspection)]
    if rows.parsed:
        blocks += ["", _lengths(inspection)]
    if rows.rejected:
        blocks += ["", _rejections(inspection, path)]
    blocks += [safe_text(f"note: {note}", style="yellow") for note in rows.notes]
    return Group(*blocks)


def _counts(inspection: Inspection) -> Table:
    table = Table("", Column(justify="right"), box=None, pad_edge=False, show_header=False)
    unreadable = f" ({inspection.unreadable_calls:,} unreadable)" if inspection.unreadable_calls else ""
    table.add_row("turns", f"{inspection.turns:,}")
    table.add_row(f"calls{unreadable}", f"{inspection.calls:,}")
    table.add_row("results", f"{inspection.results:,}")
    table.add_row("tools, by name", f"{len(inspection.tools):,}")
    table.add_row("rows with a call to learn", f"{inspection.learnt_rows:,}")
    return table


def _lengths(inspection: Inspection) -> Table:
    columns = (Column(f"{percent} %" if percent < 100 else "longest", justify="right") for percent in PERCENTILES)
    table = Table("a row's", *columns, box=None, pad_edge=False, header_style="bold")
    for name, values in (("characters", inspection.characters), ("turns", inspection.row_turns)):
        ordered = sorted(values)
        table.add_row(name, *(f"{_percentile(ordered, percent):,}" for percent in PERCENTILES))
    return table


def _percentile(ordered: Sequence[int], percent: int) -> int:
    """The nearest rank: the smallest value that at least `percent` % of the values do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _rejections(inspection: Inspection, path: Path) -> Table:
    folded = (Column(heading, overflow="fold") for heading in ("first", "what to do"))
    counted = Column("rows", justify="right")
    table = Table("rejected because", counted, *folded, box=None, pad_edge=False, header_style="bold")
    rows = inspection.accounting
    for reason, count in rows.reasons.most_common():
        first = rows.first[reason]
        place = safe_text(f"{first.place(Path(path.name))}: {first.detail}")
        table.add_row(safe_text(reason, style="red"), f"{count:,}", place, REMEDIES.get(reason, ""))
    return table
