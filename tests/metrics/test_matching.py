from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.metrics import Context
from agentft.metrics.matching import Difference, Matching, Pair, find_differences, match
from agentft.types import CallExpectation, Json, ParseFailure, Span, ToolCall
from tests.metrics.tables import TOOLS
from tests.values import assert_immutable

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
    """Whether some assignment makes all calls exact and meets all required expectations, by trying every one."""
    slots: list[ToolCall | None] = [*made, *([None] * max(0, len(expected) - len(made)))]
    if len(slots) > len(expected):
        return False
    return any(
        all(
            index < failing if call is None else not find_differences(want, call, CONTEXT, {})
            for index, (want, call) in enumerate(zip(expected, order, strict=True))
        )
        for order in permutations(slots)
    )


@given(st.lists(expectations(), max_size=4), st.integers(0, 4), st.lists(calls(), max_size=4))
def test_a_matching_is_exact_if_and_only_if_some_assignment_is(
    expected: list[CallExpectation], failing: int, made: list[ToolCall]
) -> None:
    failing = min(failing, len(expected))
    matching = match(expected, failing, made, CONTEXT, {})
    assert matching.exact is exists(expected, failing, made)


@given(st.lists(expectations(), max_size=4), st.lists(calls(), max_size=4))
def test_the_order_of_calls_does_not_matter(expected: list[CallExpectation], made: list[ToolCall]) -> None:
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


def want(name: str = "weather", **arguments: Json) -> CallExpectation:
    return CallExpectation(name, arguments)


def made(call_name: str = "weather", /, **arguments: Json) -> ToolCall:
    return ToolCall("c", call_name, arguments, Span(0, 0))


def assigned(expected: list[CallExpectation], skippable: int, calls: list[ToolCall]) -> list[ToolCall | None]:
    return [pair.call for pair in match(expected, skippable, calls, CONTEXT, {}).pairs]


def test_a_required_expectation_is_assigned_before_an_optional_one() -> None:
    for call in (made(city="Paris"), made(city="Rome"), made("ping")):  # exact, wrong value, wrong tool
        assert assigned([want(city="Paris"), want(city="Paris")], 1, [call]) == [None, call]
        assert assigned([want(city="Paris"), want(city="Paris")], 2, [call]) == [call, None]


def test_an_exact_call_outweighs_two_that_are_nearly_exact() -> None:
    # Assigned in order, both calls have the right tool and half of the arguments; crosswise one is exact, one is wrong.
    exact, other = made("alert", city="Paris"), made(city="Paris", days=1)
    expected = [want(city="Paris", days=2), want("alert", city="Paris")]
    assert assigned(expected, 0, [exact, other]) == [other, exact]
    first, second = made(city="Oslo", days=2), made(city="Paris", days=1)
    expected = [want(city="Paris", days=1), want(city="Paris", days=3)]
    assert assigned(expected, 0, [first, second]) == [second, first]


def test_the_right_tool_outweighs_a_required_expectation() -> None:
    call = made(city="Rome")
    assert assigned([want(city="Paris"), want("alert", city="Rome")], 1, [call]) == [call, None]
    wrong = made("weather", **dict.fromkeys("abcdefghijkl", 1))
    assert assigned([want("weather", **dict.fromkeys("abcdefghijkl", 2)), want("alert")], 1, [wrong]) == [wrong, None]


def test_a_required_expectation_outweighs_right_arguments() -> None:
    names = "abcdefghi"
    call = made("weather", **dict.fromkeys(names, 1))
    nearly = want("weather", **{**dict.fromkeys(names, 1), "a": 2})
    wrong = want("weather", **dict.fromkeys(names, 2))
    assert assigned([nearly, wrong], 1, [call]) == [None, call]
    assert assigned([nearly, wrong], 0, [call]) == [call, None]
    assert assigned([wrong, nearly], 0, [call]) == [None, call]


def test_the_share_of_wrong_arguments_counts_the_tool_as_one_more() -> None:
    # 1 of 1 + 1 items wrong is worse than 3 of 6 + 1, though it would be better than 3 of 6 + 2 against 1 of 1 + 2.
    call = made("weather", a=1, b=1, c=1, d=1, e=1, f=1)
    six = want("weather", a=1, b=1, c=1, d=2, e=2, f=2)
    assert assigned([want("weather", a=2), six], 0, [call]) == [None, call]


def test_arguments_that_were_not_expected_do_not_lower_a_pair() -> None:
    call = made(city="Paris", x=1, y=2)
    assert assigned([want(city="Rome", x=1, y=2), want(city="Paris")], 0, [call]) == [None, call]


def test_differences_name_their_kind_argument_and_values() -> None:
    expected = CallExpectation("weather", {"city": "Paris", "days": 3}, optional={"unit": "celsius"})
    call = made(city="Rome", unit="kelvin", extra=None)
    assert find_differences(expected, call, CONTEXT, {}) == (
        Difference("value", "city", "Paris", "Rome"),
        Difference("missing", "days", 3, None),
        Difference("value", "unit", "celsius", "kelvin"),
        Difference("surplus", "extra", None, None),
    )
    assert find_differences(expected, made("ping"), CONTEXT, {}) == (Difference("tool", "", "weather", "ping"),)


def test_optional_arguments_may_have_alternatives_and_comparators() -> None:
    expected = CallExpectation("weather", {}, {"unit": ("fahrenheit",)}, {"unit": "celsius"})
    assert not find_differences(expected, made(unit="fahrenheit"), CONTEXT, {})
    assert find_differences(expected, made(unit="CELSIUS"), CONTEXT, {})
    assert not find_differences(expected, made(unit="CELSIUS"), CONTEXT, {"weather.unit": "casefold"})


def test_a_tool_that_is_not_offered_has_no_schema() -> None:
    expected = want("nosuch", value=1)
    assert find_differences(expected, made("nosuch", value=1.0), CONTEXT, {})
    assert not find_differences(want("convert", value=1), made("convert", value=1.0), CONTEXT, {})


def test_only_the_leading_expectations_of_a_turn_are_optional() -> None:
    pairs = match([want(city="A"), want(city="B"), want(city="C")], 2, [], CONTEXT, {}).pairs
    assert [pair.required for pair in pairs] == [False, False, True]
    assert [pair.exact for pair in pairs] == [False, False, False]


def test_calls_without_an_expectation_are_extra_and_unreadable_ones_apart() -> None:
    broken = ToolCall("c", "weather", {}, Span(0, 0), ParseFailure("structure", "cut off"))
    matching = match([want(city="A")], 0, [made(city="B"), broken, made(city="A")], CONTEXT, {})
    assert matching.pairs[0].exact
    assert matching.extra == (made(city="B"),)
    assert matching.unreadable == (broken,)
    assert not matching.exact
    assert match([], 0, [], CONTEXT, {}).exact


@pytest.mark.parametrize(
    "value",
    [Difference("tool"), Pair(want(), True, None), Matching((), (), ())],
    ids=lambda value: type(value).__name__,
)
def test_matchings_are_immutable(value: object) -> None:
    assert_immutable(value)
