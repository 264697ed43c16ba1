"""Whether the expected calls were made: all exactly (the headline), the right tools, how much; and whether to call."""

from __future__ import annotations

from agentft.metrics.matching import Matching, case_matchings
from agentft.metrics.reading import Context, attempted, final_text
from agentft.types import Case, Score, ToolCall, Trajectory

__all__ = ["abstention", "argument_f1", "call_decision", "decisions", "exact_call", "tool_name"]

ABSTAINING = ("irrelevance", "missing_parameter")
NO_CALL = Score(None, "the case expects no call")


def exact_call(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every turn has exactly its expected calls (those that a later one mends are optional), else 0."""
    if not any(turn.calls for turn in case.turns):
        return NO_CALL
    for index, matching in enumerate(case_matchings(case, trajectory, context)):
        if not matching.exact:
            return Score(0.0, f"turn {index}: {_why(matching)}")
    return Score(1.0, "every call is exact")


def tool_name(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every turn calls exactly the expected tools, whatever the arguments, else 0."""
    if not any(turn.calls for turn in case.turns):
        return NO_CALL
    for index, matching in enumerate(case_matchings(case, trajectory, context)):
        if matching.unreadable or matching.extra:
            return Score(0.0, f"turn {index}: {_why(matching)}")
        for pair in matching.pairs:
            named = pair.call is not None and pair.call.name == pair.expected.name
            if not named and (pair.required or pair.call):
                return Score(0.0, f"turn {index}: {pair.expected.name} expected, {_shown(pair.call)} made")
    return Score(1.0, "every tool is the right one")


def argument_f1(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """F1 over all calls of the case as assigned, a call's items being its tool and its arguments.

    2 * right / (expected + made); a call of a wrong tool has nothing right. An unreadable call counts as one made item,
    so that gibberish is never better than silence.
    """
    if not any(turn.calls for turn in case.turns):
        return NO_CALL
    matchings = case_matchings(case, trajectory, context)
    right, expected, made = (sum(column) for column in zip(*map(_count, matchings), strict=True))
    return Score(2 * right / (expected + made), f"{right} right of {expected} expected and {made} made")


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


def _why(matching: Matching) -> str:
    if matching.unreadable:
        return f"a call cannot be read ({matching.unreadable[0].parse_error})"
    for pair in matching.pairs:
        if pair.call is None and pair.required:
            return f"{pair.expected.name} was not called"
        if pair.call is not None and pair.differences:
            first = pair.differences[0]
            place = f"{pair.call.name}.{first.argument}" if first.argument else "the tool"
            return f"{place}: {first.actual!r:.80} instead of {first.expected!r:.80} ({first.kind})"
    return f"{_shown(matching.extra[0])} was not expected"


def _shown(call: ToolCall | None) -> str:
    return "no call" if call is None else f"{call.name:.60}"


def _count(matching: Matching) -> tuple[int, int, int]:
    """Items that are right, expected, made; optional arguments given rightly are neither asked for nor held against."""
    right = expected = made = 0
    for pair in matching.pairs:
        want, call = pair.expected, pair.call
        wrong = {difference.argument for difference in pair.differences}
        if pair.required or pair.exact:
            expected += 1 + len(want.arguments)
            if call is not None and call.name == want.name:
                right += 1 + len(want.arguments.keys() - wrong)
        if call is not None:
            made += 1 + len(call.arguments) - len((want.optional.keys() & call.arguments.keys()) - wrong)
    made += len(matching.unreadable) + sum(1 + len(call.arguments) for call in matching.extra)
    return right, expected, made
