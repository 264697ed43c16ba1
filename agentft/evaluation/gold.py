"""Running the expected calls for real: it shows that a suite fits its worlds, and gives the end states to compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentft.agent import ToolRunner
from agentft.errors import InputError
from agentft.types import CallExpectation, Case, Exchange, Span, ToolCall

__all__ = ["as_call", "gold_states"]


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
                _check(case, call, fails, client.call(as_call(call), session))
                writes = writes or (is_write(call.name) and not fails)
        states[case.id] = client.state_digest(session) if writes else None
    return states


def as_call(expected: CallExpectation, endpoint: str | None = None) -> ToolCall:
    """The call that fulfils an expectation, with the required arguments only."""
    return ToolCall("gold", expected.name, dict(expected.arguments), Span(0, 0), endpoint=endpoint)


def _check(case: Case, call: CallExpectation, fails: bool, exchange: Exchange) -> None:
    if exchange.is_error == fails:
        return
    arguments = ", ".join(f"{key}={value!r}" for key, value in call.arguments.items())
    told = f"answers {exchange.status}: {exchange.received:.200}"
    wanted = "it is expected to fail" if fails else "it is expected to succeed"
    raise InputError(
        f"suite {case.suite}, case {case.id}: {call.name}({arguments}) {told}; {wanted}, so mend the case or the world"
    )
