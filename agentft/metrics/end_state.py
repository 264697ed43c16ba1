"""The end state of the tool worlds, not the path to it."""

from __future__ import annotations

from agentft.metrics.context import Context
from agentft.types import Case, Score, Trajectory

__all__ = ["end_state"]


def end_state(_case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if the state is what the expected calls lead to, else 0; does not apply where none of them writes."""
    if context.gold_state is None:
        return Score(None, "no expected call writes")
    if trajectory.state == context.gold_state:
        return Score(1.0, "the state is as expected")
    return Score(0.0, "the state differs from the one after the expected calls")
