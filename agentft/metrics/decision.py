"""To call or not to call: the decision for each user turn, and abstention where no call was due."""

from __future__ import annotations

from agentft.metrics.reading import Context, attempted, final_text
from agentft.types import Case, Score, Trajectory

__all__ = ["abstention", "call_decision", "decisions"]

ABSTAINING = ("irrelevance", "missing_parameter")


def decisions(case: Case, trajectory: Trajectory) -> list[tuple[bool, bool]]:
    """For each user turn: (should it call, did it call or try to). Precision and recall are counted over these."""
    return [(bool(turn.calls), attempted(trajectory, index)) for index, turn in enumerate(case.turns)]


def call_decision(case: Case, trajectory: Trajectory, _context: Context) -> Score:
    """The share of user turns in which calling or not calling was right."""
    made = decisions(case, trajectory)
    wrong = [index for index, (should, did) in enumerate(made) if should != did]
    if not wrong:
        return Score(1.0, "called exactly where a call was due")
    should = made[wrong[0]][0]
    return Score(1 - len(wrong) / len(made), f"turn {wrong[0]}: {'no call' if should else 'a call that was not due'}")


def abstention(case: Case, trajectory: Trajectory, _context: Context) -> Score:
    """Cases that must ask or decline: no call, no attempt at one (an unreadable call is one), and something said."""
    if case.category not in ABSTAINING:
        return Score(None, "only for irrelevance and missing_parameter")
    for index, turn in enumerate(case.turns):
        if turn.calls:
            continue
        if attempted(trajectory, index):
            return Score(0.0, f"turn {index}: it called, or tried to")
        if not final_text(trajectory, index):
            return Score(0.0, f"turn {index}: it said nothing")
    return Score(1.0, "it spoke instead of calling")
