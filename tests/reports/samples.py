"""Records of a small evaluation in two arms, with texts that try to leave the place where they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentft.evaluation.plan import Arm
from agentft.evaluation.records import Record
from agentft.evaluation.summary import Gate, summarise
from agentft.metrics import METRICS, Finding
from agentft.types import Exchange, ParseFailure, Score, Span, Step, Text, ToolCall
from tests.evaluation.world import small_plan

__all__ = ["HOSTILE", "arms_of", "make_call", "make_run", "summary_of"]

HOSTILE = (
    "</script><script>document.title='x'</script><img src=x onerror=\"document.title='x'\">"
    " \u2028\u202e\x1b[2J\x00]]>&lt;`|\ud800"
)
"""Ends a script, an element, a CDATA section and a table cell; reorders text; controls a terminal."""


def make_call(name: str, /, error: str = "", **arguments: Any) -> ToolCall:
    """A parsed call, or an unreadable one."""
    return ToolCall("1", name, arguments, Span(0, 0), ParseFailure("content", error) if error else None)


def make_run(case: str, value: float | None, /, *calls: ToolCall, **fields: Any) -> Record:
    """A record of one user turn whose every metric is `value`; None: invalid."""
    text = fields.pop("text", "done")
    exchanges = tuple(
        Exchange(call, "POST", "http://shop.test/price", dict(call.arguments), 200, text, False) for call in calls
    )
    steps = (Step(0, (*calls, Text(text, Span(0, 0))), text, "end", exchanges, 3, 5),)
    scores = {name: Score(value, "a reason") for name in ("success", *METRICS)}
    if value not in (None, 1):
        fields = {"error": "no-call", "findings": (Finding("no-call", 0),), **fields}
    if value is None:
        fields = {"problem": "tool price answered 500", **fields}
    defaults: dict[str, Any] = {
        "arm": "tuned",
        "trial": 0,
        "outcome": "invalid" if value is None else "done",
        "steps": steps,
        "case_digest": "d",
        "fingerprint": "f",
        "suite": "shopping",
        "category": "single",
        "lang": "en",
        "scores": scores,
        "users": ("Price of tea?",),
        "expected": ({"calls": [{"name": "price", "arguments": {"item": "tea"}}], "answer": ["2.5"], "failing": 0},),
        "prompt": "the tools",
    }
    return Record(case=case, **{**defaults, **fields})


def arms_of(tuned: Mapping[str, float | None], base: Mapping[str, float | None]) -> dict[str, list[Record]]:
    """Two arms, with a record for each case id and value."""
    return {
        "tuned": [make_run(case, value) for case, value in tuned.items()],
        "base": [make_run(case, value, arm="base") for case, value in base.items()],
    }


def summary_of(arms: Mapping[str, list[Record]], folder: Path, *gates: Gate) -> dict[str, Any]:
    """The content of summary.json."""

    def no_model() -> Any:
        raise AssertionError("no model is loaded")

    ran = {label: (Arm(label, f"model {label}", "id", no_model), "f") for label in arms}
    options: dict[str, Any] = {"sampling": {"seed": 0}, "seconds": 1.0, "interrupted": False, "kept": 0}
    return summarise(small_plan(folder), arms, gates, ran=ran, **options).document()
