"""What went wrong: one primary class for every failing case, all secondary ones, and JSON Pointers to arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from agentft.metrics.matching import Difference, Matching, Pair, case_matchings
from agentft.metrics.outcome import answer, end_state
from agentft.metrics.reading import Context, all_calls, exchanges, final_text, looks_like_call, turn_steps, written_text
from agentft.metrics.validity import pointer, schema_problems
from agentft.types import Case, ToolCall, Trajectory

__all__ = ["ERROR_CLASSES", "Finding", "classify"]

ERROR_CLASSES = {
    "no-call": "it wrote prose where a call was due",
    "refusal": "it declined where a call was due",
    "broken-wrapper": "the call's markers or its shape are wrong",
    "invalid-json": "the call's JSON cannot be read",
    "unknown-tool": "there is no such tool",
    "unwanted-call": "it called where none was due",
    "wrong-tool": "it called another tool than the right one",
    "missing-required": "an argument is missing",
    "unknown-argument": "the tool has no such argument",
    "type": "an argument has the wrong type",
    "constraint": "an argument is outside its enum, range or format",
    "wrong-value": "an argument has the wrong value",
    "wrong-count": "right calls, but too many or too few",
    "ignored-error": "it did not mend its call after the tool's error",
    "wrong-answer": "the final answer is missing or lacks a value",
    "wrong-state": "the tools' state is not as expected",
}
"""In the order of decision: the first that applies is the primary class."""

_ORDER = list(ERROR_CLASSES)
_REFUSAL = re.compile(
    r"\bI(?:'m| am) (?:sorry|unable|not able)|\bI (?:can't|cannot|can not|don't have)|抱歉|对不起|无法|不能",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that went wrong in user turn `turn`. `pointer` leads into the call's arguments."""

    kind: str
    turn: int
    pointer: str = ""
    detail: str = ""


def classify(case: Case, trajectory: Trajectory, context: Context) -> tuple[Finding, ...]:
    """All findings, the primary one first; empty for a case in which nothing went wrong."""
    found: list[Finding] = []
    for index, matching in enumerate(case_matchings(case, trajectory, context)):
        found += _turn_findings(case, trajectory, context, index, matching)
    right_calls = not found
    if answer(case, trajectory, context).value == 0:
        found.append(Finding("wrong-answer", len(case.turns) - 1, detail=answer(case, trajectory, context).reason))
    if end_state(case, trajectory, context).value == 0 and right_calls:
        found.append(Finding("wrong-state", len(case.turns) - 1))
    return tuple(sorted(found, key=lambda finding: _ORDER.index(finding.kind)))


def _turn_findings(
    case: Case, trajectory: Trajectory, context: Context, index: int, matching: Matching
) -> Iterator[Finding]:
    for call in matching.unreadable:
        yield Finding(_unreadable_kind(call, trajectory), index, detail=str(call.parse_error))
    calls = all_calls(trajectory, index)
    text = "\n".join(written_text(step) for step in turn_steps(trajectory, index))
    if not calls and looks_like_call(text):
        yield Finding("broken-wrapper", index, detail="a call stands in the text, without its markers")
        return
    due = case.turns[index].calls
    for call in matching.extra:
        surplus = "wrong-count" if due else "unwanted-call"
        yield Finding(surplus if call.name in context.tools else "unknown-tool", index, detail=call.name)
    if not due and not calls and not final_text(trajectory, index):
        yield Finding("wrong-answer", index, detail="it said nothing")
    elif not calls and any(pair.required for pair in matching.pairs):
        yield Finding("refusal" if _REFUSAL.search(text) else "no-call", index)
    else:
        yield from _pairs_findings(trajectory, context, index, matching)


def _pairs_findings(trajectory: Trajectory, context: Context, index: int, matching: Matching) -> Iterator[Finding]:
    missing = [pair for pair in matching.pairs if pair.required and not pair.exact]
    for pair in matching.pairs:
        if pair.call is None and pair.required and not matching.unreadable:
            yield Finding("wrong-count", index, detail=f"{pair.expected.name} was not called")
        elif pair.call is not None and pair.differences:
            yield from _pair_findings(pair, pair.call, context, index)
    failed = any(exchange.is_error and exchange.sent is not None for exchange in exchanges(trajectory, index))
    if missing and failed and final_text(trajectory, index):
        yield Finding("ignored-error", index, detail=f"{missing[0].expected.name} was not mended")


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
        elif not any(f"{at}/".startswith(f"{pointer(difference.argument)}/") for at in broken):
            yield _difference_finding(difference, index)


def _difference_finding(difference: Difference, index: int) -> Finding:
    at = pointer(difference.argument)
    if difference.kind == "missing":
        return Finding("missing-required", index, at, f"{difference.expected!r:.80} expected")
    if difference.kind == "surplus":
        return Finding("wrong-value", index, at, f"{difference.actual!r:.80} was not asked for")
    return Finding("wrong-value", index, at, f"{difference.actual!r:.80} instead of {difference.expected!r:.80}")


def _unreadable_kind(call: ToolCall, trajectory: Trajectory) -> str:
    """Wrapper or JSON: if what stands between the outermost braces is JSON, the wrapper is to blame."""
    step = next(step for step in trajectory.steps if call in step.parts)
    if step.raw is None:
        return "invalid-json" if call.parse_error and call.parse_error.kind == "content" else "broken-wrapper"
    raw = step.raw[call.span.start : call.span.end]
    body = raw[raw.find("{") : raw.rfind("}") + 1]
    if "{" not in raw:
        return "broken-wrapper"
    try:
        # NaN and half surrogate pairs are not JSON either, though Python reads them.
        json.dumps(json.loads(body, strict=False), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return "invalid-json"
    return "broken-wrapper"
