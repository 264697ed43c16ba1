"""`agentft train --find-lr`: a sweep over learning rates, drawn and stored."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentft.training.events import OnEvent
    from agentft.training.recipe import Recipe
    from agentft.training.sweep import Sweep

__all__ = ["sweep_rates"]

_STORED = "lr.json"
_TALLEST = 1.5
"""Losses above this many times the first one are cut off in the curve."""


def sweep_rates(recipe: Recipe, on_event: OnEvent, should_stop: Any, *, as_json: bool) -> None:
    """Sweep, store the curve in a new folder beside the runs, and print it with the suggestion."""
    from agentft.display.terminal import say, say_json
    from agentft.files import write_text
    from agentft.runs import check_output, next_folder
    from agentft.training.curves import draw_panels
    from agentft.training.sweep import RULE, find_lr

    check_output(recipe.output)
    sweep = find_lr(recipe, on_event, should_stop)
    folder = next_folder(f"{Path(recipe.data[0]).name.split('.')[0]}-lr", recipe.output).path
    document = {"suggestion": sweep.suggestion, "rule": RULE, **asdict(sweep)}
    write_text(folder / _STORED, json.dumps(document, indent=2) + "\n")
    if sweep.losses:
        xs, tallest = [math.log10(rate) for rate in sweep.rates], _TALLEST * sweep.smoothed[0]
        curves = {"loss": sweep.losses, "smoothed": sweep.smoothed}
        lines = {name: [(x, min(y, tallest)) for x, y in zip(xs, ys, strict=True)] for name, ys in curves.items()}
        draw_panels(folder, {"loss by log10(lr)": lines}, "log10(lr)")
    if as_json:
        say_json({"folder": str(folder), **document})
        return
    say(*_curve(sweep), f"lr={sweep.suggestion:g}: {RULE}", str(folder / _STORED))


def _curve(sweep: Sweep) -> list[str]:
    """The smoothed losses over the rates, whose axis is logarithmic."""
    from agentft.display.training import loss_curve

    if len(sweep.smoothed) < 2:
        return []
    lines = loss_curve([min(loss, _TALLEST * sweep.smoothed[0]) for loss in sweep.smoothed])
    axis = next(number for number, line in enumerate(lines) if "┼" in line)
    low, high = f"{sweep.rates[0]:.0e}", f"{sweep.rates[-1]:.0e}"
    width = len(lines[axis]) - len(low)
    return [*lines[: axis + 1], f"{'':10}{low}{high:>{max(width - 10, len(high) + 1)}}"]
