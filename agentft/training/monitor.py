"""Measurements during training, and the monitor that decides which step is the best one and when to stop early.

To measure something else, write a `Measure` and give it to the loop. To let it decide, add a line to WATCHED and its
key to `best` in the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from agentft.training.recipe import Recipe

__all__ = ["WATCHED", "Measure", "Monitor"]

WATCHED: dict[str, tuple[str, Literal["lowest", "highest"]]] = {
    "loss": ("eval_loss", "lowest"),
    "score": ("eval_score", "highest"),
}
"""`best` in the recipe -> the figure it stands for, and which of its values is the best."""


class Measure(Protocol):
    """Something that is measured with the weights of the moment, between two steps."""

    def due(self, step: int, steps: int) -> bool:
        """Whether to measure after `step` of `steps`."""

    def __call__(self, loop: Any, step: int) -> Mapping[str, float]:
        """The figures by name; each name starts with `eval_`.

        Every process of the run calls this and must return the same figures. Random generators, the gradients and the
        training mode of `loop.model` must be left as they were.
        """


class Monitor:
    """Remembers the best value of one figure. Checkpoints hold its state, so that a resumed run decides alike.

    `keep`: whether the best step's weights are to be the result. `best_step`: 0 until there is one.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.keep = recipe.best != "off"
        self.name, self._best = WATCHED[recipe.best if self.keep else "loss"]
        self._patience = recipe.patience
        self.best_step = 0
        self.best_value = math.nan
        self._since = 0

    def __call__(self, name: str, value: float, step: int) -> bool:
        """Take a figure that was measured after `step`; True if it is the best one so far. Others are ignored."""
        if name != self.name:
            return False
        better = value < self.best_value if self._best == "lowest" else value > self.best_value
        if better or (not self.best_step and not math.isnan(value)):
            self.best_step, self.best_value, self._since = step, value, 0
            return True
        self._since += 1
        return False

    @property
    def stop(self) -> bool:
        """Whether the last `patience` measurements were no better than the best one; never with `patience` = 0."""
        return 0 < self._patience <= self._since

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"step": self.best_step, "value": self.best_value, "since": self._since}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore what `state_dict` gave."""
        self.best_step, self.best_value, self._since = int(state["step"]), state["value"], int(state["since"])
