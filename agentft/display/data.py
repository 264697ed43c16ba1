"""The report of `agentft data inspect`, and a conversation with its supervised tokens marked (`data mask`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from agentft.display.safe import safe_line, safe_name, safe_str, safe_text
from agentft.display.training import token_lines
from agentft.rows.inspection import Inspection
from agentft.rows.ledger import REMEDIES
from agentft.rows.mask import MaskedRow, MaskedToken
from agentft.strict import counted

__all__ = ["mask_view", "show_inspection"]

PERCENTILES = (50, 90, 99, 100)
SUPERVISED, PARTIAL, SAMPLED, CONTEXT = "green", "cyan", "yellow", "dim"
MARKS = {SUPERVISED: ("[[", "]]"), PARTIAL: ("[[", "]]"), SAMPLED: ("{{", "}}"), CONTEXT: ("", "")}
"""Without colours, these surround the text."""


def show_inspection(inspection: Inspection, path: Path) -> RenderableType:
    """Counts, rejections by reason with the first place and a remedy, and lengths."""
    rows = inspection.ledger
    head = Text.assemble(
        safe_text(str(path), style="bold"),
        f": {counted(rows.rows, 'row')} = {rows.kept:,} kept + {rows.rejected:,} rejected",
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


def mask_view(row: MaskedRow, *, boundaries: bool = False, plain: bool = False) -> Panel:
    """One row's text with its supervised parts in green, and a legend with counts.

    Args:
        boundaries: also show where each token starts.
        plain: mark the parts with brackets instead of colours.
    """
    body = Text(overflow="fold")
    for (weight, sampled), tokens in groupby(row.tokens, lambda token: (token.weight, token.sampled)):
        style = _style(weight, sampled)
        opened, closed = MARKS[style] if plain else ("", "")
        body.append(opened)
        if weight not in (0, 1):
            body.append(f"×{weight:g} ", "" if plain else CONTEXT)
        for token in tokens:
            body.append("▏" if boundaries else "", CONTEXT)
            body.append(_shown(token, boundaries), "" if plain else style)
        body.append(closed)
    if body.plain.endswith("\n"):
        body.right_crop(1)
    title = Text(f" {safe_line(row.id)} · line {row.line} ")
    legend = _legend(row.tokens, boundaries, plain)
    if row.left_out:
        legend.append(f"\n{row.left_out:,} supervised tokens are cut off: they do not fit into max_length", "yellow")
    return Panel(Group(body, Text(), legend), title=title, title_align="left")


def _shown(token: MaskedToken, boundaries: bool) -> str:
    """The token's text; a newline that the model writes gets a mark, as does a token without text of its own."""
    text = safe_str(token.text or "◌" * boundaries).replace("\t", "→" if token.sampled else "    ")
    return text.replace("\n", "⏎\n") if token.sampled or boundaries else text


def _counts(inspection: Inspection) -> Table:
    table = Table("", Column(justify="right"), box=None, pad_edge=False, show_header=False)
    unreadable = f" ({inspection.unreadable_calls:,} unreadable)" if inspection.unreadable_calls else ""
    table.add_row("turns", f"{sum(inspection.row_turns):,}")
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


def _style(weight: float, sampled: bool) -> str:
    if weight:
        return SUPERVISED if weight == 1 else PARTIAL
    return SAMPLED if sampled else CONTEXT


def _legend(tokens: Sequence[MaskedToken], boundaries: bool, plain: bool) -> Text:
    weights = Counter(token.weight for token in tokens if token.weight) or Counter({1.0: 0})
    kinds = []
    for weight, count in sorted(weights.items(), reverse=True):
        text = f"{counted(count, 'token')} supervised" + (f" with weight {weight:g}" if weight != 1 else "")
        kinds.append((text, _style(weight, True)))
    if others := sum(token.sampled and not token.weight for token in tokens):
        kinds.append((f"{counted(others, 'other model token')}", SAMPLED))
    kinds.append((f"{sum(not token.sampled for token in tokens)} context", CONTEXT))
    legend = Text()
    for text, style in kinds:
        opened, closed = MARKS[style] if plain else ("", "")
        legend.append(f"{opened}{text}{closed}", "" if plain else style).append(" · ")
    legend.append(f"of {counted(len(tokens), 'token')} · ⏎ newline")
    return legend.append(" · ▏ start of a token · ◌ part of a character" if boundaries else "")
