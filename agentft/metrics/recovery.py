"""After a tool's error: mended, reported to the user, or avoided from the start."""

from __future__ import annotations

from agentft.metrics.context import Context
from agentft.metrics.matching import case_matchings
from agentft.metrics.reading import exchanges, final_text
from agentft.types import Case, Score, Trajectory

__all__ = ["recovery"]


def recovery(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if, in the turns that hold an error, all required calls were made in the end and an answer was given, else 0.

    Further calls on the way are not held against it (`exact_call` does that).
    """
    if not any(turn.failing for turn in case.turns):
        return Score(None, "no error is expected")
    met = False
    for index, (turn, matching) in enumerate(zip(case.turns, case_matchings(case, trajectory, context), strict=True)):
        if not turn.failing:
            continue
        met = met or any(exchange.is_error for exchange in exchanges(trajectory, index))
        if not all(pair.exact for pair in matching.pairs if pair.required):
            return Score(0.0, f"turn {index}: the right call was not made{' after the error' if met else ''}")
        if not final_text(trajectory, index):
            return Score(0.0, f"turn {index}: it never came to an answer")
    return Score(1.0, "answered after the error" if met else "avoided the error")
