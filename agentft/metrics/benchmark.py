"""The metric `bfcl`: the verdict of BFCL's official checker on the calls of a trajectory."""

from __future__ import annotations

from agentft.metrics.bfcl import BfclEntry, Verdict, check_calls
from agentft.metrics.bfcl_text import decode_text
from agentft.metrics.reading import Context, all_calls, final_text
from agentft.types import Case, Score, Trajectory

__all__ = ["bfcl", "bfcl_verdict"]


def bfcl(_case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if the official checker accepts the calls, else 0. Applies to BFCL's entries."""
    if context.entry is None:
        return Score(None, "the case is not an entry of BFCL")
    verdict = bfcl_verdict(trajectory, context.entry)
    return Score(1.0, "valid") if verdict.valid else Score(0.0, f"{verdict.error}: {verdict.detail}")


def bfcl_verdict(trajectory: Trajectory, entry: BfclEntry) -> Verdict:
    """The verdict on the reply's calls; on a reply without calls, on its text in BFCL's prompt style.

    With an unreadable call, the reply cannot be decoded. As in BFCL, that is abstention where no call is expected.
    Of several turns, unreadable calls are left out.
    """
    if entry.check is not None:
        turns = [all_calls(trajectory, turn) for turn in range(trajectory.steps[-1].turn + 1)]
        return entry.check(
            [[(call.name, dict(call.arguments)) for call in calls if call.parse_error is None] for calls in turns]
        )
    calls = all_calls(trajectory, 0)
    if any(call.parse_error is not None for call in calls):
        return check_calls(entry, None)
    if calls:
        return check_calls(entry, [{call.name: dict(call.arguments)} for call in calls])
    return check_calls(entry, decode_text(final_text(trajectory, 0)))
