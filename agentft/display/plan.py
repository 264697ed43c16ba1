"""The table of `agentft plan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table

from agentft.display.safe import safe_text

if TYPE_CHECKING:
    from agentft.training.planner import Choice

__all__ = ["plan_table"]


def plan_table(
    model: str, method: str, samples: int, longest: int, cards: Sequence[tuple[str, int, Choice | None]]
) -> Group:
    """What fits on each card, with which settings, how fast."""
    table = Table(box=box.SIMPLE)
    for name in ("card", "GiB"):
        table.add_column(name)
    for name in ("peak GiB", "samples/s", "an epoch", "pack"):
        table.add_column(name, justify="right")
    table.add_column("settings")
    for name, gib, choice in cards:
        if choice is None:
            table.add_row(name, str(gib), "-", "-", "-", "-", "does not fit")
            continue
        table.add_row(
            name, str(gib), f"{choice.estimate.memory / 2**30:.1f}", f"{choice.samples_per_second:.3g}",
            _duration(choice.seconds), f"{choice.levers.pack:,}", _settings(choice),
        )  # fmt: skip
    return Group(
        safe_text(f"{model}, {method}: {samples:,} rows, the longest of {longest:,} tokens"),
        table,
        safe_text("Predicted. Speeds are for one card with nothing else on it, and Liger installed."),
    )


def _settings(choice: Choice) -> str:
    levers = choice.levers
    which = {1: "each", 2: "each 2nd", 3: "each 3rd"}.get(levers.every, f"each {levers.every}th")
    recomputed = f"recomputes {which} layer" if levers.every else "keeps activations"
    return ", ".join(
        [recomputed, *(["weights unpacked"] if levers.unpack else []), *(["embeddings on host"] if levers.host else [])]
    )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min" if minutes else "< 1 min"
