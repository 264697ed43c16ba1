"""The report of `agentft data inspect`, and a conversation with its supervised tokens marked (`data mask`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from agentft.display.safe import safe_name, safe_str, safe_text
from agentft.display.training import token_lines
from agentft.rows.inspection import Inspection
from agentft.rows.ledger import REMEDIES
from agentft.rows.mask import MaskedRow, MaskedToken

__all__ = ["mask_view", "show_inspection"]

PERCENTILES = (50, 90, 99, 100)
CONTEXT, SAMPLED = "bright_black", "yellow"
# Two shades, so that neighbouring tokens can be distinguished.
SUPERVISED = ("bold black on green3", "bold black on spring_green3")
PARTIAL = ("bold black on dark_sea_green2", "bold black on pale_green1")


def show_inspection(inspection: Inspection, path: Path) -> RenderableType:
    """Counts, rejections by reason with the first place and a remedy, and lengths."""
    rows = inspection.ledger
    head = Text.assemble(
        safe_text(str(path), style="bold"),
        f": {rows.rows:,} rows = {rows.kept:,} kept + {rows.rejected:,} rejected",
    )
    blocks: list[RenderableType] = [head, "", _counts(inspection)]
    if inspection.report:
        blocks += [safe_text(line) for line in token_lines(inspection.report)]
    if rows.kept:
        blocks += ["", _lengths(inspection)]
    if rows.rejected:
        blocks += ["", _rejections(inspection, path)]
    blocks += [safe_name(f"note: {note}", style="yellow") for note in inspection.notes]
    return Group(*blocks)


def mask_view(row: MaskedRow) -> Panel:
    """One row's tokens, with a legend and counts. Supervised ones are green in two shades, each started by `▏`."""
    body = Text(no_wrap=False, overflow="fold")
    full = max((token.weight for token in row.tokens), default=1.0)
    for index, token in enumerate(row.tokens):
        # A token that only begins a character has no text yet.
        shown = safe_str((token.text or "◌").replace("\t", "→")).replace("\n", "⏎")
        mark = "▏" if token.weight else "·" if token.sampled else ""
        body.append(mark, "black on green3" if token.weight else CONTEXT)
        body.append(shown, _style(token, index, full))
        if shown.endswith("⏎"):
            body.append("\n")
    cut = [Text(f" {row.left_out:,} supervised tokens are cut off: they do not fit into max_length", "yellow")]
    title = Text(f" {safe_str(row.id)} · line {row.line} ")
    return Panel(Group(body, Text(), _legend(row.tokens, full), *cut[: row.left_out]), title=title, title_align="left")


def _counts(inspection: Inspection) -> Table:
    table = Table("", Column(justify="right"), box=None, pad_edge=False, show_header=False)
    unreadable = f" ({inspection.unreadable_calls:,} unreadable)" if inspection.unreadable_calls else ""
    table.add_row("turns", f"{inspection.turns:,}")
    table.add_row(f"calls{unreadable}", f"{inspection.calls:,}")
    table.add_row("results", f"{inspection.results:,}")
    table.add_row("tools, by name", f"{len(inspection.tools):,}")
    table.add_row("rows with a readable call", f"{inspection.rows_with_calls:,}")
    return table


def _lengths(inspection: Inspection) -> Table:
    columns = (Column(f"{percent} %" if percent < 100 else "longest", justify="right") for percent in PERCENTILES)
    table = Table("per row", *columns, box=None, pad_edge=False, header_style="bold")
    for name, values in (("characters", inspection.characters), ("turns", inspection.row_turns)):
        ordered = sorted(values)
        table.add_row(name, *(f"{_percentile(ordered, percent):,}" for percent in PERCENTILES))
    return table


def _percentile(ordered: Sequence[int], percent: int) -> int:
    """The nearest-rank percentile: the smallest value that at least `percent` % of the values do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _rejections(inspection: Inspection, path: Path) -> Table:
    folded = (Column(heading, overflow="fold") for heading in ("first", "what to do"))
    counted = Column("rows", justify="right")
    table = Table("rejected because", counted, *folded, box=None, pad_edge=False, header_style="bold")
    rows = inspection.ledger
    for reason, count in rows.reasons.most_common():
        _, first = rows.first[reason]
        place = safe_name(f"{first.place(Path(path.name))}: {first.detail}")
        table.add_row(safe_text(reason, style="red"), f"{count:,}", place, REMEDIES.get(reason, ""))
    return table


def _style(token: MaskedToken, index: int, full: float) -> str:
    if token.weight:
        return (SUPERVISED if token.weight == full else PARTIAL)[index % 2]
    return SAMPLED if token.sampled else CONTEXT


def _legend(tokens: Sequence[MaskedToken], full: float) -> Text:
    counts: Counter[float] = Counter(token.weight for token in tokens if token.weight)
    legend = Text()
    for weight, count in sorted(counts.items(), reverse=True):
        legend.append(f" weight {weight:g} ", (SUPERVISED if weight == full else PARTIAL)[0])
        legend.append(f" {count} tokens supervised   ")
    sampled = sum(token.sampled and not token.weight for token in tokens)
    context = sum(not token.sampled for token in tokens)
    legend.append("other model tokens", SAMPLED)
    legend.append(f" {sampled}   ")
    legend.append("context", CONTEXT)
    legend.append(f" {context}   of {len(tokens)} tokens")
    legend.append(
        "\n ▏ starts a supervised token, · another model token, ⏎ is a newline, ◌ a part of a character", "dim"
    )
    return legend
