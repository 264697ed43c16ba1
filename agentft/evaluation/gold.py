"""The expected calls of a suite: run for real (so it fits its worlds, with these end states), or as perfect answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentft.agent import Job, ToolRunner
from agentft.calls import CallFormat
from agentft.errors import InputError
from agentft.types import CallExpectation, Case, Exchange, Part, Span, ToolCall

__all__ = ["gold_states", "oracle_answers"]

ONE_BY_ONE = ("multi_round", "tool_error")


def gold_states(
    cases: Iterable[Case], client: ToolRunner, is_write: Callable[[str], bool], run: str
) -> dict[str, str | None]:
    """For each case id, the state's digest after its expected calls; None if none of them writes.

    Raises:
        InputError: an expected call is refused by its tool (or one that should fail is not): the suite is wrong.
    """
    states: dict[str, str | None] = {}
    for case in cases:
        # One session a case, apart from those of the models.
        session = f"{run}-gold-{len(states)}"
        writes = False
        for turn in case.turns:
            for index, call in enumerate(turn.calls):
                fails = index < turn.failing
                _check(case, call, fails, client.call(_as_call(call), session))
                writes = writes or (is_write(call.name) and not fails)
        states[case.id] = client.state_digest(session) if writes else None
    return states


def oracle_answers(jobs: Iterable[Job], fmt: CallFormat) -> dict[str, str]:
    """Answers by request key (`<case id>/<turn>/<step>`) for the scripted backend.

    Calls of one turn are made at once, except where the category says that they follow one another.
    """
    answers: dict[str, str] = {}
    for job in jobs:
        endpoints = {tool.name: next(iter(tool.endpoints), None) for tool in job.tools}
        for index, turn in enumerate(job.case.turns):
            calls: list[Part] = [_as_call(call, endpoints[call.name]) for call in turn.calls]
            blocks = [[call] for call in calls] if job.case.category in ONE_BY_ONE else [calls] if calls else []
            said = ", ".join(turn.answer) or ("Done." if calls else "Could you tell me more?")
            texts = [*map(fmt.write_parts, blocks), turn.reference or said]
            answers |= {f"{job.case.id}/{index}/{step}": text for step, text in enumerate(texts)}
    return answers


def _check(case: Case, call: CallExpectation, fails: bool, exchange: Exchange) -> None:
    if exchange.is_error == fails:
        return
    arguments = ", ".join(f"{key}={value!r}" for key, value in call.arguments.items())
    told = f"answers {exchange.status}: {exchange.received:.200}"
    wanted = "it is expected to fail" if fails else "it is expected to succeed"
    raise InputError(
        f"suite {case.suite}, case {case.id}: {call.name}({arguments}) {told}; {wanted}, so mend the case or the world"
    )


def _as_call(expected: CallExpectation, endpoint: str | None = None) -> ToolCall:
    """The call that fulfils an expectation, with the required arguments only."""
    return ToolCall("gold", expected.name, dict(expected.arguments), Span(0, 0), endpoint=endpoint)
