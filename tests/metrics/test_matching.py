from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from agentft.metrics import Context
from agentft.metrics.matching import compare, match
from agentft.types import CallExpectation, Json, Span, ToolCall
from tests.metrics.tables import TOOLS

CONTEXT = Context(TOOLS)
CITIES = st.sampled_from(["Paris", "Rome", "Oslo"])


@st.composite
def expectations(draw: st.DrawFn) -> CallExpectation:
    others: tuple[Json, ...] = tuple(draw(st.lists(CITIES, max_size=2)))
    return CallExpectation(draw(st.sampled_from(["weather", "alert"])), {"city": draw(CITIES)}, {"city": others})


@st.composite
def calls(draw: st.DrawFn) -> ToolCall:
    return ToolCall("c", draw(st.sampled_from(["weather", "alert"])), {"city": draw(CITIES)}, Span(0, 0))


def exists(expected: list[CallExpectation], failing: int, made: list[ToolCall]) -> bool:
    """By trying every assignment: are all calls exact, and all required expectations met?"""
    slots: list[ToolCall | None] = [*made, *([None] * max(0, len(expected) - len(made)))]
    if len(slots) > len(expected):
        return False
    return any(
        all(
            index < failing if call is None else not compare(want, call, CONTEXT, {})
            for index, (want, call) in enumerate(zip(expected, order, strict=True))
        )
        for order in permutations(slots)
    )


@given(st.lists(expectations(), max_size=4), st.integers(0, 4), st.lists(calls(), max_size=4))
def test_a_matching_is_exact_just_when_some_assignment_is(
    expected: list[CallExpectation], failing: int, made: list[ToolCall]
) -> None:
    failing = min(failing, len(expected))
    matching = match(expected, failing, made, CONTEXT, {})
    assert matching.exact is exists(expected, failing, made)


@given(st.lists(expectations(), max_size=4), st.lists(calls(), max_size=4))
def test_the_order_of_calls_plays_no_part(expected: list[CallExpectation], made: list[ToolCall]) -> None:
    shuffled = list(reversed(made))
    first, second = match(expected, 0, made, CONTEXT, {}), match(expected, 0, shuffled, CONTEXT, {})
    assert first.exact is second.exact
    assert sum(pair.exact for pair in first.pairs) == sum(pair.exact for pair in second.pairs)


@given(st.lists(expectations(), max_size=4), st.lists(calls(), max_size=5))
def test_every_call_and_every_expectation_is_accounted_for(
    expected: list[CallExpectation], made: list[ToolCall]
) -> None:
    matching = match(expected, 0, made, CONTEXT, {})
    assert [pair.expected for pair in matching.pairs] == expected
    assigned = [pair.call for pair in matching.pairs if pair.call is not None]
    assert len(assigned) + len(matching.extra) == len(made)
