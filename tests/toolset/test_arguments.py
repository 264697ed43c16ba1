"""Arguments are checked types before values, with messages that name the argument, the problem and what is allowed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.errors import InputError, ToolError
from agentft.toolset import did_you_mean
from agentft.toolset.arguments import ArgumentCheck
from agentft.types import Json, ToolDefinition

SCHEMA: dict[str, Json] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "ratio": {"type": "number", "minimum": 0},
        "share": {"type": "number", "maximum": 1},
        "exact": {"type": "boolean"},
        "tags": {"type": ["array", "null"], "items": {"type": "string"}},
        "code": {"type": "string", "pattern": "^[A-Z]+$"},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
CHECK = ArgumentCheck(ToolDefinition("forecast", "", SCHEMA))
MIXED: list[Json] = ["a", 1]
GOOD: dict[str, Json] = {"city": "Rome", "days": 2}

json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def refusal(arguments: dict[str, Json]) -> ToolError:
    with pytest.raises(ToolError) as caught:
        CHECK(arguments)
    return caught.value


def test_good_arguments_pass_unchanged() -> None:
    arguments: dict[str, Json] = {**GOOD, "unit": "celsius", "ratio": 0.5, "exact": True, "tags": None}
    assert CHECK(arguments) == arguments


def test_a_whole_float_is_an_integer_and_arrives_as_one() -> None:
    days = CHECK({"city": "Rome", "days": 3.0})["days"]
    assert days == 3
    assert isinstance(days, int)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ({}, 400, "missing arguments 'city' (string), 'days' (integer)"),
        ({"city": "Rome"}, 400, "missing argument 'days' (integer)"),
        ({"town": "Rome", "days": 2}, 400, "missing argument 'city' (string)"),
        (
            {**GOOD, "x": 1},
            400,
            "unknown argument 'x'; forecast takes city, days, unit, ratio, share, exact, tags, code",
        ),
        ({**GOOD, "days": "two"}, 400, "argument 'days' must be an integer, not \"two\""),
        ({**GOOD, "days": True}, 400, "argument 'days' must be an integer, not true"),
        ({**GOOD, "days": 2.5}, 400, "argument 'days' must be an integer, not 2.5"),
        ({**GOOD, "days": None}, 400, "argument 'days' must be an integer, not null"),
        ({**GOOD, "days": 9}, 422, "argument 'days' must be from 1 to 7, not 9"),
        ({**GOOD, "ratio": -1}, 422, "argument 'ratio' must be at least 0, not -1"),
        ({**GOOD, "share": 2}, 422, "argument 'share' must be at most 1, not 2"),
        ({**GOOD, "ratio": False}, 400, "argument 'ratio' must be a number, not false"),
        ({**GOOD, "ratio": float("inf")}, 400, "argument 'ratio' must be a number, not Infinity"),
        ({**GOOD, "ratio": 10**400}, 400, "argument 'ratio' must be a number, not a number so large"),
        ({**GOOD, "unit": "kelvin"}, 422, 'argument \'unit\' must be one of "celsius", "fahrenheit", not "kelvin"'),
        ({**GOOD, "exact": 1}, 400, "argument 'exact' must be true or false, not 1"),
        ({**GOOD, "tags": "a"}, 400, "argument 'tags' must be a list or null, not \"a\""),
        ({**GOOD, "tags": MIXED}, 400, "argument 'tags/1' must be a string, not 1"),
        ({**GOOD, "city": {"name": "Rome"}}, 400, "argument 'city' must be a string, not an object"),
        ({**GOOD, "city": ["Rome"]}, 400, "argument 'city' must be a string, not a list"),
        ({**GOOD, "code": "x"}, 422, "argument 'code' must be valid (pattern ^[A-Z]+$), not \"x\""),
    ],
)
def test_a_refusal_says_how_to_correct_the_call(arguments: dict[str, Json], status: int, message: str) -> None:
    error = refusal(arguments)
    assert (error.status, str(error)) == (status, message)
    assert "argument" in error.details


def test_a_type_error_comes_before_a_value_error() -> None:
    assert refusal({"city": 1, "days": 9}).status == 400


def test_messages_stay_short_whatever_the_model_wrote() -> None:
    assert len(str(refusal({**GOOD, "days": "9" * 100_000}))) < 150
    assert len(str(refusal({**GOOD, "k" * 100_000: 1}))) < 200


def test_deep_nesting_is_refused_without_a_crash() -> None:
    deep: Json = "x"
    for _ in range(100_000):
        deep = [deep]
    assert refusal({"city": deep, "days": 1}).status == 400


def test_a_tool_without_arguments_says_so() -> None:
    check = ArgumentCheck(
        ToolDefinition("ping", "", {"type": "object", "properties": {}, "additionalProperties": False})
    )
    assert check({}) == {}
    with pytest.raises(ToolError, match="unknown argument 'x'; ping takes no arguments"):
        check({"x": 1})


def test_an_enum_is_named_when_it_is_missing() -> None:
    schema: dict[str, Json] = {"type": "object", "properties": {"u": {"type": "string", "enum": ["a", "b"]}}}
    with pytest.raises(ToolError, match="""missing argument 'u' \\(one of "a", "b"\\)"""):
        ArgumentCheck(ToolDefinition("t", "", {**schema, "required": ["u"]}))({})


def test_an_invalid_schema_is_refused_at_load() -> None:
    with pytest.raises(InputError, match="tool t: its schema is not valid"):
        ArgumentCheck(ToolDefinition("t", "", {"type": "strange"}))


@given(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "other"]) | st.text(), json_values))  # type: ignore[misc]
def test_any_arguments_pass_or_are_refused(arguments: dict[str, Json]) -> None:
    statuses = []
    try:
        CHECK(arguments)
    except ToolError as error:
        statuses.append(error.status)
        json.dumps(str(error))
    assert set(statuses) <= {400, 422}


def test_the_hint_for_a_misspelled_name() -> None:
    assert did_you_mean("currentweather", ["current_weather", "open_page"]) == "; did you mean 'current_weather'?"
    assert did_you_mean("zzz", ["current_weather"]) == ""
