"""The perfect answers to a suite in a call format: they show that its cases can be solved, and serve as examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agentft.agent import Job
from agentft.evaluation.gold import as_call
from agentft.formats import CallFormat
from agentft.types import CaseTurn, Part, ToolDefinition

__all__ = ["oracle_answers"]

ONE_BY_ONE = ("multi_round", "tool_error")


def oracle_answers(jobs: Iterable[Job], fmt: CallFormat) -> dict[str, str]:
    """Answers by request key (`<case id>/<turn>/<step>`) for the scripted backend.

    Calls of one turn are made at once, except where the category says that they follow one another.
    """
    answers: dict[str, str] = {}
    for job in jobs:
        tools = {tool.name: tool for tool in job.tools}
        for index, turn in enumerate(job.case.turns):
            texts = [*_call_texts(turn, tools, fmt, one_by_one=job.case.category in ONE_BY_ONE), _final(turn)]
            answers |= {f"{job.case.id}/{index}/{step}": text for step, text in enumerate(texts)}
    return answers


def _call_texts(turn: CaseTurn, tools: Mapping[str, ToolDefinition], fmt: CallFormat, *, one_by_one: bool) -> list[str]:
    calls: list[Part] = []
    for call in turn.calls:
        endpoints = tools[call.name].endpoints if call.name in tools else ()
        calls.append(as_call(call, next(iter(endpoints), None)))
    steps = [[call] for call in calls] if one_by_one else [calls] if calls else []
    return [fmt.write_parts(step) for step in steps]


def _final(turn: CaseTurn) -> str:
    if turn.reference:
        return turn.reference
    return ", ".join(turn.answer) if turn.answer else "Done." if turn.calls else "Could you tell me more?"
