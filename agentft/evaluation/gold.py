"""The expected calls of a suite: executed, or turned into perfect answers for `--model scripted`.

Executing them checks the suite and gives the end states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentft.agent import Job, ToolRunner
from agentft.errors import InputError
from agentft.types import CallExpectation, Case, Exchange, Part, Span, Text, ToolCall

__all__ = ["as_call", "gold_states", "oracle_answers"]

_MOST_REPLIES = 20  # of one turn; more calls are made at once
ONE_BY_ONE = ("dependent", "multi_round", "tool_error", "injection")


def gold_states(
    cases: Iterable[Case], client_of: Callable[[Case], ToolRunner], is_write: Callable[[str], bool], run: str
) -> dict[str, str | None]:
    """The digest of the tools' state after the expected calls of each case, by case id; None if no call writes.

    Raises:
        InputError: a tool refuses an expected call, or accepts one that should fail, so the suite is wrong.
    """
    states: dict[str, str | None] = {}
    for case in cases:
        # One session for each case, separate from those of the models.
        client, session = client_of(case), f"{run}-gold-{len(states)}"
        writes = False
        for turn in case.turns:
            for index, call in enumerate(turn.calls):
                fails = index < turn.failing
                _check(case, call, fails, client.call(as_call(call), session))
                writes = writes or (is_write(call.name) and not fails)
        states[case.id] = client.state_digest(session) if writes else None
    return states


def oracle_answers(jobs: Iterable[Job]) -> dict[str, tuple[Part, ...]]:
    """The perfect answers, by request key (`<case id>/<turn>/<step>`), for a scripted model.

    The calls of one turn are made in one reply; in the `ONE_BY_ONE` categories, each gets its own reply.
    """
    answers: dict[str, tuple[Part, ...]] = {}
    for job in jobs:
        endpoints = {tool.name: next(iter(tool.endpoints), None) for tool in job.tools}
        for index, turn in enumerate(job.case.turns):
            replies: list[tuple[Part, ...]] = []
            calls = tuple(as_call(call, endpoints[call.name]) for call in turn.calls)
            if job.case.category in ONE_BY_ONE and len(calls) <= _MOST_REPLIES:
                replies += [(call,) for call in calls]
            elif calls:
                replies.append(calls)
            answer = ", ".join(turn.answer) or ("Done." if calls else "Could you tell me more?")
            text = turn.reference or answer
            replies.append((Text(text, Span(0, len(text))),))
            answers |= {f"{job.case.id}/{index}/{step}": reply for step, reply in enumerate(replies)}
    return answers


def _check(case: Case, call: CallExpectation, fails: bool, exchange: Exchange) -> None:
    if exchange.is_error == fails:
        return
    arguments = ", ".join(f"{key}={value!r}" for key, value in call.arguments.items())
    expected = "fail" if fails else "succeed"
    raise InputError(
        f"suite {case.suite}, case {case.id}: {call.name}({arguments}) returned {exchange.status}: "
        f"{exchange.received:.200}; it was expected to {expected}; fix the case or the world"
    )


def as_call(expected: CallExpectation, endpoint: str | None = None) -> ToolCall:
    """The expected call, with its required arguments only."""
    return ToolCall("gold", expected.name, dict(expected.arguments), Span(0, 0), endpoint=endpoint)
