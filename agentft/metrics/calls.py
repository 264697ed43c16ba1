"""Metrics of calls: exact calls (the headline), tool names, argument F1, the decision to call, abstention."""

from __future__ import annotations

from agentft.metrics.matching import Matching, case_matchings
from agentft.metrics.reading import Context, attempted, final_text
from agentft.types import Case, Score, Trajectory

__all__ = ["ABSTAINING", "abstention", "argument_f1", "call_decision", "decisions", "exact_call", "tool_name"]

ABSTAINING = ("irrelevance", "missing_parameter", "missing_tool")
NO_CALL = Score(None, "the case expects no call")


def exact_call(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every turn makes exactly its expected calls, else 0.

    A failing call that a later call corrects is optional.
    """
    if not any(turn.calls for turn in case.turns):
        return NO_CALL
    for index, matching in enumerate(case_matchings(case, trajectory, context)):
        if not matching.exact:
            return Score(0.0, f"turn {index}: {_explain(matching)}")
    return Score(1.0, "every call is exact")


def tool_name(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every turn calls exactly the expected tools, with any arguments, else 0."""
    if not any(turn.calls for turn in case.turns):
        return NO_CALL
    for index, matching in enumerate(case_matchings(case, trajectory, context)):
        if matching.unreadable or matching.extra:
            return Score(0.0, f"turn {index}: {_explain(matching)}")
        for pair in matching.pairs:
            right = pair.call is not None and pair.call.name == pair.expected.name
            if not right and (pair.required or pair.call):
                got = f"{pair.call.name:.60}" if pair.call else "no call"
                return Score(0.0, f"turn {index}: expected {pair.expected.name}, got {got}")
    return Score(1.0, "every call names the expected tool")


def argument_f1(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """F1 over the items of all calls in the case, after assignment. A call's items are its tool and its arguments.

    2 * correct / (expected + made). A call of the wrong tool has no correct item. An unreadable call counts as one item
    made, so that it never scores better than no call.
    """
    if not any(turn.calls for turn in case.turns):
        return NO_CALL
    matchings = case_matchings(case, trajectory, context)
    correct, expected, made = (sum(column) for column in zip(*map(_count, matchings), strict=True))
    return Score(2 * correct / (expected + made), f"{correct} correct of {expected} expected and {made} made")


def decisions(case: Case, trajectory: Trajectory) -> list[tuple[bool, bool]]:
    """For each user turn: (a call is expected, a call was made or attempted). For call precision and recall."""
    return [(bool(turn.calls), attempted(trajectory, index)) for index, turn in enumerate(case.turns)]


def call_decision(case: Case, trajectory: Trajectory, _context: Context) -> Score:
    """The share of user turns in which the decision to call, or not to call, was correct."""
    turns = decisions(case, trajectory)
    wrong = [index for index, (expected, made) in enumerate(turns) if expected != made]
    if not wrong:
        return Score(1.0, "called in every turn that expects a call, and in no other")
    problem = "no call was made" if turns[wrong[0]][0] else "no call was expected"
    return Score(1 - len(wrong) / len(turns), f"turn {wrong[0]}: {problem}")


def abstention(case: Case, trajectory: Trajectory, _context: Context) -> Score:
    """1 if every turn that expects no call is answered in text without a call, else 0.

    Applies to cases that must be declined or that lack a parameter. An unreadable call counts as a call.
    """
    if case.category not in ABSTAINING:
        return Score(None, "applies only to irrelevance, missing_parameter and missing_tool")
    for index, turn in enumerate(case.turns):
        if turn.calls:
            continue
        if attempted(trajectory, index):
            return Score(0.0, f"turn {index}: a call was made or attempted")
        if not final_text(trajectory, index):
            return Score(0.0, f"turn {index}: there is no answer")
    return Score(1.0, "answered without a call")


def _explain(matching: Matching) -> str:
    if matching.unreadable:
        return f"unreadable call ({matching.unreadable[0].parse_error})"
    for pair in matching.pairs:
        if pair.call is None and pair.required:
            return f"{pair.expected.name} was not called"
        if pair.call is not None and pair.differences:
            first = pair.differences[0]
            place = f"{pair.call.name}.{first.argument}" if first.argument else "tool"
            return f"{place}: {first.actual!r:.80} instead of {first.expected!r:.80} ({first.kind})"
    return f"{matching.extra[0].name:.60} was not expected"


def _count(matching: Matching) -> tuple[int, int, int]:
    """Items that are correct, expected and made. A correct optional argument counts as neither expected nor made."""
    correct = expected = made = 0
    for pair in matching.pairs:
        want, call = pair.expected, pair.call
        wrong = {difference.argument for difference in pair.differences}
        if pair.required or pair.exact:
            expected += 1 + len(want.arguments)
            if call is not None and call.name == want.name:
                correct += 1 + len(want.arguments.keys() - wrong)
        if call is not None:
            made += 1 + len(call.arguments) - len((want.optional.keys() & call.arguments.keys()) - wrong)
    made += len(matching.unreadable) + sum(1 + len(call.arguments) for call in matching.extra)
    return correct, expected, made
