"""How much of the expected calls is right: F1 over their items, a call's items being its tool and its arguments."""

from __future__ import annotations

from agentft.metrics.context import Context
from agentft.metrics.matching import Matching, Pair, case_matchings
from agentft.metrics.reading import expects_calls
from agentft.types import Case, Score, Trajectory

__all__ = ["argument_f1"]


def argument_f1(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """2 * right / (expected + made), over all calls of the case as assigned; a call of a wrong tool has nothing right.

    An unreadable call counts as one made item, so that gibberish is never better than silence.
    """
    if not expects_calls(case):
        return Score(None, "the case expects no call")
    matchings = case_matchings(case, trajectory, context)
    right, expected, made = (sum(column) for column in zip(*map(_count, matchings), strict=True))
    return Score(2 * right / (expected + made), f"{right} right of {expected} expected and {made} made")


def _count(matching: Matching) -> tuple[int, int, int]:
    right = expected = made = 0
    for pair in matching.pairs:
        if pair.required or pair.exact:
            expected += 1 + len(pair.expected.arguments)
            right += _right(pair)
        if pair.call is not None:
            made += 1 + len(pair.call.arguments) - _granted(pair)
    made += len(matching.unreadable) + sum(1 + len(call.arguments) for call in matching.extra)
    return right, expected, made


def _right(pair: Pair) -> int:
    if pair.call is None or pair.call.name != pair.expected.name:
        return 0
    wrong = sum(difference.argument in pair.expected.arguments for difference in pair.differences)
    return 1 + len(pair.expected.arguments) - wrong


def _granted(pair: Pair) -> int:
    """Optional arguments that were given rightly: neither asked for nor held against the model."""
    if pair.call is None:
        return 0
    wrong = {difference.argument for difference in pair.differences}
    return sum(key in pair.call.arguments and key not in wrong for key in pair.expected.optional)
