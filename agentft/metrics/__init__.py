"""Metrics: (Case, Trajectory, Context) -> Score.

Every metric is 0 to 1, higher is better, and None means that it does not apply. Model output is never repaired before
scoring. To add a metric: a module here, its test cases in tests/metrics, and one line in `METRICS`. Any change of a
score raises `SCORER_VERSION`.
"""

from __future__ import annotations

from collections.abc import Callable

from agentft.metrics.benchmark import bfcl
from agentft.metrics.calls import abstention, argument_f1, call_decision, decisions, exact_call, tool_name
from agentft.metrics.errors import ERROR_CLASSES, Finding, classify
from agentft.metrics.msagent import action_em, input_em, msagent_f1, rouge_l
from agentft.metrics.outcome import answer, end_state, honest_report, recovery, resistance
from agentft.metrics.reading import Context
from agentft.metrics.validity import json_valid, known_tool, schema_valid, url
from agentft.types import Case, Score, Trajectory

__all__ = ["ERROR_CLASSES", "METRICS", "SCORER_VERSION", "Context", "Finding", "classify", "decisions", "score_case"]

SCORER_VERSION = 11

METRICS: dict[str, Callable[[Case, Trajectory, Context], Score]] = {
    "bfcl": bfcl,
    "exact_call": exact_call,
    "abstention": abstention,
    "answer": answer,
    "end_state": end_state,
    "recovery": recovery,
    "resistance": resistance,
    "honest_report": honest_report,
    "call_decision": call_decision,
    "tool_name": tool_name,
    "argument_f1": argument_f1,
    "json_valid": json_valid,
    "schema_valid": schema_valid,
    "known_tool": known_tool,
    "url": url,
    "action_em": action_em,
    "input_em": input_em,
    "msagent_f1": msagent_f1,
    "rouge_l": rouge_l,
}

SUCCESS = ("exact_call", "abstention", "end_state", "answer", "honest_report", "resistance")
"""A case succeeds when each of these that applies is 1; an entry of BFCL when `bfcl` is."""

_FOR_ANY_CALL = ("bfcl", "call_decision", "json_valid", "schema_valid", "known_tool")
"""The metrics that apply where any call of any tool is right."""


def score_case(case: Case, trajectory: Trajectory, context: Context) -> dict[str, Score]:
    """Every metric of one trajectory, and `success`. No metric applies to an invalid trajectory."""
    if trajectory.outcome == "invalid":
        invalid = Score(None, f"invalid: {trajectory.problem}")
        return dict.fromkeys(["success", *METRICS], invalid)
    scores = {name: metric(case, trajectory, context) for name, metric in METRICS.items()}
    if context.entry is not None and context.entry.wants_any_call:
        scores |= {name: Score(None, "any call is right") for name in scores if name not in _FOR_ANY_CALL}
    needed = SUCCESS if context.entry is None else ("bfcl",)
    failed = [name for name in needed if scores[name].value not in (None, 1.0)]
    success = Score(float(not failed), f"{failed[0]}: {scores[failed[0]].reason}" if failed else "solved")
    return {"success": success, **scores}
