"""The token view: what of a conversation is learnt, token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.text import Text

from agentft.data.mask import MaskedRow, MaskedToken
from agentft.display.safe import safe_str

__all__ = ["MaskView"]

GIVEN, SAID = "bright_black", "yellow"
# Two shades, so that neighbouring tokens can be told apart.
LEARNT = ("bold black on green3", "bold black on spring_green3")
PARTIAL = ("bold black on dark_sea_green2", "bold black on pale_green1")


class MaskView:
    """A rich renderable of one masked row. Learnt tokens are green in two shades, `▏` marks every token's start."""

    def __init__(self, row: MaskedRow) -> None:
        self._row = row

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The tokens, and the legend with the counts below."""
        body = Text(no_wrap=False, overflow="fold")
        full = max((token.weight for token in self._row.tokens), default=1.0)
        for index, (token, shown) in enumerate(_shown(self._row.tokens)):
            style = _style(token, index, full)
            mark = "▏" if token.weight else "·" if token.sampled else ""
            body.append(mark, "black on green3" if token.weight else GIVEN)
            body.append(shown, style)
            if shown.endswith("⏎"):
                body.append("\n")
        title = Text(f" {safe_str(self._row.id)} · line {self._row.line} ")
        yield Panel(Group(body, Text(), _legend(self._row.tokens, full)), title=title, title_align="left")


def _style(token: MaskedToken, index: int, full: float) -> str:
    if token.weight:
        return (LEARNT if token.weight == full else PARTIAL)[index % 2]
    return SAID if token.sampled else GIVEN


def _shown(tokens: Sequence[MaskedToken]) -> Iterator[tuple[MaskedToken, str]]:
    """Each token's visible text; one that only begins a character shows as `◌`."""
    for token in tokens:
        text = token.text or "◌"
        yield token, safe_str(text.replace("\t", "→")).replace("\n", "⏎")


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
