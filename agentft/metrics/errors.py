"""Error classes: one primary class for every failed case, all secondary ones, and JSON Pointers into the arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agentft.json_text import json_pointer
from agentft.metrics.benchmark import bfcl_verdict
from agentft.metrics.matching import Difference, Matching, Pair, case_matchings
from agentft.metrics.outcome import end_state, turn_answer, turn_report
from agentft.metrics.reading import (
    Context,
    all_calls,
    exchanges,
    final_text,
    looks_like_call,
    met_fault,
    turn_steps,
    written_text,
)
from agentft.metrics.validity import schema_problems
from agentft.strict import own_table
from agentft.types import Case, ToolCall, Trajectory

__all__ = ["ANSWER_ERRORS", "ERROR_CLASSES", "FORMAT_ERRORS", "Finding", "classify"]

ERROR_CLASSES = own_table(__file__, str)
"""In order of precedence: the first class that applies is the primary one."""

FORMAT_ERRORS = frozenset({"broken-wrapper", "invalid-json"})
"""Classes of calls that cannot be read; all others are wrong decisions."""

ANSWER_ERRORS = frozenset({"wrong-answer", "invented-result", "reported-fault"})
"""Classes of the final answer, which fails in the same way whatever the tools."""

_ORDER = list(ERROR_CLASSES)
_REFUSAL = re.compile(
    r"\bI(?:['’ʼ]m| am) (?:sorry|unable|not able)|\bI (?:can['’ʼ]t|cannot|can not|don['’ʼ]t have)"
    r"|抱歉|对不起|无法|不能",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One error in user turn `turn`. `pointer` is a JSON Pointer into the arguments of the call.

    For an entry of BFCL, `kind` is the official error type, and `pointer` starts at the list `[{name: arguments}]`.
    """

    kind: str
    turn: int
    pointer: str = ""
    detail: str = ""


def classify(case: Case, trajectory: Trajectory, context: Context) -> tuple[Finding, ...]:
    """All errors of a trajectory, the primary one first; empty if there are none."""
    if context.entry is not None:
        verdict = bfcl_verdict(trajectory, context.entry)
        return () if verdict.valid else (Finding(verdict.error, 0, verdict.pointer, verdict.detail),)
    found: list[Finding] = []
    for index, matching in enumerate(case_matchings(case, trajectory, context)):
        found += _turn_findings(case, trajectory, context, index, matching)
    found += _outcome_findings(case, trajectory, context, calls_are_right=not found)
    return tuple(sorted(found, key=lambda finding: _ORDER.index(finding.kind)))


def _outcome_findings(case: Case, trajectory: Trajectory, context: Context, calls_are_right: bool) -> Iterator[Finding]:
    wrong_state = calls_are_right and end_state(case, trajectory, context).value == 0
    turns = range(len(case.turns))
    reports = [turn_report(case, trajectory, context, turn) for turn in turns]
    for turn, report in enumerate(reports):
        answered = turn_answer(case, trajectory, context, turn)
        if report.value == 0:
            yield Finding(
                "invented-result" if final_text(trajectory, turn) else "wrong-answer", turn, "", report.reason
            )
            wrong_state = False  # it follows from the fault
        elif report.value == 1 and (answered.value == 0 or wrong_state):
            yield Finding("reported-fault", turn, detail=report.reason)
        elif answered.value == 0:
            yield Finding("wrong-answer", turn, detail=answered.reason)
    if wrong_state and all(report.value is None for report in reports):
        yield Finding("wrong-state", turns[-1])


def _turn_findings(
    case: Case, trajectory: Trajectory, context: Context, index: int, matching: Matching
) -> Iterator[Finding]:
    for call in matching.unreadable:
        content = call.parse_error is not None and call.parse_error.kind == "content"
        yield Finding("invalid-json" if content else "broken-wrapper", index, detail=str(call.parse_error))
    calls, steps = all_calls(trajectory, index), turn_steps(trajectory, index)
    text = "\n".join(map(written_text, steps))
    filtered = "a filter of the server withheld or cut it" if steps and steps[-1].finish == "filtered" else ""
    if not calls and looks_like_call(text):
        yield Finding("broken-wrapper", index, detail="a call without its markers")
        return
    expected = case.turns[index].calls
    for call in matching.extra:
        kind = "wrong-count" if expected else "unwanted-call"
        yield Finding(kind if call.name in context.tools else "unknown-tool", index, detail=call.name)
    if not expected and not calls and not final_text(trajectory, index):
        yield Finding("wrong-answer", index, detail=filtered or "there is no answer")
    elif not calls and any(pair.required for pair in matching.pairs):
        yield Finding("refusal" if filtered or _REFUSAL.search(text) else "no-call", index, detail=filtered)
    else:
        yield from _argument_findings(trajectory, context, index, matching)


def _argument_findings(trajectory: Trajectory, context: Context, index: int, matching: Matching) -> Iterator[Finding]:
    missing = [pair for pair in matching.pairs if pair.required and not pair.exact]
    refused = (one for one in exchanges(trajectory, index) if one.is_error and one.sent is not None)
    ignored = bool(final_text(trajectory, index)) and not all(map(met_fault, refused))
    for pair in matching.pairs:
        if pair.call is None and pair.required and not matching.unreadable:
            # After a tool's error, the call that is missing is its correction.
            kind = "ignored-error" if ignored else "wrong-count"
            yield Finding(kind, index, detail=f"{pair.expected.name} was not called")
        elif pair.call is not None and pair.differences:
            yield from _pair_findings(pair, pair.call, context, index)
    if ignored and missing and missing[0].call is not None:
        yield Finding("ignored-error", index, detail=f"{missing[0].expected.name} was not corrected")


def _pair_findings(pair: Pair, call: ToolCall, context: Context, index: int) -> Iterator[Finding]:
    tool = context.tools.get(call.name)
    if tool is None:
        yield Finding("unknown-tool", index, detail=call.name)
        return
    broken = {problem.pointer: problem for problem in schema_problems(tool, call)}
    for problem in broken.values():
        yield Finding(problem.kind, index, problem.pointer, problem.message)
    for difference in pair.differences:
        if difference.kind == "tool":
            yield Finding("wrong-tool", index, detail=f"{call.name} instead of {pair.expected.name}")
        elif not any(f"{at}/".startswith(f"{json_pointer(difference.argument)}/") for at in broken):
            yield _difference_finding(difference, index)


def _difference_finding(difference: Difference, index: int) -> Finding:
    at = json_pointer(difference.argument)
    if difference.kind == "missing":
        return Finding("missing-required", index, at, f"{difference.expected!r:.80} expected")
    if difference.kind == "surplus":
        return Finding("wrong-value", index, at, f"{difference.actual!r:.80} was not expected")
    return Finding("wrong-value", index, at, f"{difference.actual!r:.80} instead of {difference.expected!r:.80}")
