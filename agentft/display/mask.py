"""The token view: what of a conversation is learnt, token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from agentft.data.mask import MaskedRow, MaskedToken
from agentft.display.safe import safe_str

__all__ = ["mask_view"]

GIVEN, SAID = "bright_black", "yellow"
# Two shades, so that neighbouring tokens can be told apart.
LEARNT = ("bold black on green3", "bold black on spring_green3")
PARTIAL = ("bold black on dark_sea_green2", "bold black on pale_green1")


def mask_view(row: MaskedRow) -> Panel:
    """One row's tokens, with the legend and the counts. Learnt ones are green in two shades, `▏` marks their starts."""
    body = Text(no_wrap=False, overflow="fold")
    full = max((token.weight for token in row.tokens), default=1.0)
    for index, token in enumerate(row.tokens):
        # A token that only begins a character has no text yet.
        shown = safe_str((token.text or "◌").replace("\t", "→")).replace("\n", "⏎")
        mark = "▏" if token.weight else "·" if token.sampled else ""
        body.append(mark, "black on green3" if token.weight else GIVEN)
        body.append(shown, _style(token, index, full))
        if shown.endswith("⏎"):
            body.append("\n")
    title = Text(f" {safe_str(row.id)} · line {row.line} ")
    return Panel(Group(body, Text(), _legend(row.tokens, full)), title=title, title_align="left")


def _style(token: MaskedToken, index: int, full: float) -> str:
    if token.weight:
        return (LEARNT if token.weight == full else PARTIAL)[index % 2]
    return SAID if token.sampled else GIVEN


def _legend(tokens: Sequence[MaskedToken], full: float) -> Text:
    counts: Counter[float] = Counter(token.weight for token in tokens if token.weight)
    legend = Text()
    for weight, count in sorted(counts.items(), reverse=True):
        legend.append(f" weight {weight:g} ", (LEARNT if weight == full else PARTIAL)[0])
        legend.append(f" {count} tokens learnt   ")
    said = sum(token.sampled and not token.weight for token in tokens)
    given = sum(not token.sampled for token in tokens)
    legend.append("the model's own, not learnt", SAID)
    legend.append(f" {said}   ")
    legend.append("given to it", GIVEN)
    legend.append(f" {given}   of {len(tokens)} tokens")
    legend.append(
        "\n ▏ starts a learnt token, · one of the model's others, ⏎ a newline, ◌ the beginning of a character", "dim"
    )
    return legend
