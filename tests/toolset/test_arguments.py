"""Arguments are checked types before values, with messages that name the argument, the problem and what is allowed."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.errors import InputError, ToolError
from agentft.metrics.validity import schema_problems
from agentft.toolset import did_you_mean
from agentft.toolset.arguments import ArgumentCheck, validator_of
from agentft.toolset.patterns import matches_pattern
from agentft.toolset.sampling import UnsatisfiableError, draw
from agentft.types import Json, Span, ToolCall, ToolDefinition

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


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        (
            {"enum": ["a", "b"]},
            {"r": {"c": 1}},
            'the name "c" is not allowed in argument \'r\'; names there must be one of "a", "b"',
        ),
        (
            {"anyOf": [{"const": "a"}, {"pattern": "^x"}]},
            {"r": {"c": 1}},
            "the name \"c\" is not allowed in argument 'r'",
        ),
        ({"maxLength": 1}, {"r": {"a": "long"}}, ""),
    ],
)
def test_a_refused_name_is_told_from_a_refused_value(names: Json, arguments: dict[str, Json], message: str) -> None:
    """A schema may name a property `propertyNames`, too."""
    inner: Json = {"type": "object", "propertyNames": names}
    properties: Json = {"r": inner, "propertyNames": {"type": "integer"}}
    check = ArgumentCheck(ToolDefinition("f", "", {"type": "object", "properties": properties}))
    if message:
        with pytest.raises(ToolError) as caught:
            check(arguments)
        assert (str(caught.value), caught.value.status) == (message, 422)
    else:
        check(arguments)
    with pytest.raises(ToolError, match="argument 'propertyNames' must be an integer"):
        check({"propertyNames": "x"})


def test_an_enum_is_named_when_it_is_missing() -> None:
    schema: dict[str, Json] = {"type": "object", "properties": {"u": {"type": "string", "enum": ["a", "b"]}}}
    with pytest.raises(ToolError, match="""missing argument 'u' \\(one of "a", "b"\\)"""):
        ArgumentCheck(ToolDefinition("t", "", {**schema, "required": ["u"]}))({})


CAT: dict[str, Any] = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"$ref": "#/$defs/count"}}}
DOG: dict[str, Any] = {"type": "object", "properties": {"kind": {"const": "dog"}, "bark": {"type": "boolean"}}}
NESTED: dict[str, Any] = {
    "type": "object",
    "$defs": {"count": {"type": "integer"}, "cat": {**CAT, "required": ["kind", "lives"]}},
    "properties": {
        "line": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}}
        | {"additionalProperties": False},
        "pet": {"oneOf": [{"$ref": "#/$defs/cat"}, {**DOG, "required": ["kind", "bark"]}]},
        "both": {"oneOf": [{"type": "integer"}, {"minimum": 3}]},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "tags": {"type": "array", "minItems": 2, "uniqueItems": True},
        "never": False,
        "day": {"type": "string", "format": "date"},
        "map": {"patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False},
        "card": {"type": "object", "dependentRequired": {"number": ["cvc"]}},
        "counts": {"type": "array", "items": {"$ref": "#/$defs/count"}},
    },
}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ({"line": {}}, 400, "missing argument 'line/sku' (string)"),
        ({"line": {"sku": "a", "x": 1}}, 400, "unknown argument 'line/x'; 'line' takes sku"),
        (
            {"pet": {"kind": "cat", "bark": True}},
            422,
            "argument 'pet' fits none of 2 alternatives (object with kind, lives or object with kind, bark); "
            "the closest: missing argument 'pet/lives' (integer)",
        ),
        (
            {"pet": {"kind": "dog", "bark": "loud"}},
            422,
            "argument 'pet' fits none of 2 alternatives (object with kind, lives or object with kind, bark); "
            "the closest: argument 'pet/bark' must be true or false, not \"loud\"",
        ),
        (
            {"both": 5},
            422,
            "argument 'both' fits more than one of 2 alternatives (integer or any value), and must fit exactly one",
        ),
        ({"maybe": {}}, 400, "argument 'maybe' must be an integer or null, not an object"),
        ({"tags": [1]}, 422, "argument 'tags' must have at least 2 items"),
        ({"tags": [{"a": 1}, {"a": 1.0}]}, 422, "argument 'tags' must have no equal items"),
        ({"never": 1}, 422, "argument 'never' is not allowed"),
        ({"day": "01.03.2025"}, 422, "argument 'day' must be a valid date, not \"01.03.2025\""),
        ({"map": {"x_a": "1"}}, 400, "argument 'map/x_a' must be an integer, not \"1\""),
        ({"map": {"x_a": 1, "y": 1}}, 400, "unknown argument 'map/y'; 'map' takes no properties"),
        ({"card": {"number": "1"}}, 400, "missing argument 'card/cvc' (any value)"),
    ],
)
def test_a_refusal_inside_an_argument_says_what_is_missing(
    arguments: dict[str, Json], status: int, message: str
) -> None:
    with pytest.raises(ToolError) as caught:
        ArgumentCheck(ToolDefinition("go", "", NESTED))(arguments)
    assert (caught.value.status, str(caught.value)) == (status, message)


A: dict[str, Any] = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
B: dict[str, Any] = {"properties": {"b": {"type": "integer"}}, "required": ["b"]}
BASE: dict[str, Any] = {"$defs": {"base": {"properties": {"x": {"type": "integer"}}}}}
REST: dict[str, Any] = {"$ref": "#/$defs/base", "unevaluatedProperties": False}


@pytest.mark.parametrize(
    ("schema", "arguments", "message"),
    [
        ({"anyOf": [A, B]}, {"a": 1}, ""),
        ({"anyOf": [A, B]}, {"a": 1, "b": 2}, ""),
        (
            {"anyOf": [A, B]},
            {"a": 1, "b": "x"},
            "422 argument 'b' is wrong, or not allowed with the other arguments",
        ),
        ({"anyOf": [A, B]}, {"a": 1, "c": 2}, "400 unknown argument 'c'; t takes a, b"),
        ({"oneOf": [A, B]}, {"a": "x"}, "422 the arguments together fits none of 2 alternatives"),
        ({"allOf": [A, True]}, {"a": 1}, ""),
        ({"allOf": [A]}, {"a": 1, "c": 2}, "400 unknown argument 'c'; t takes a"),
        (BASE | REST, {"x": 1}, ""),
        (BASE | REST, {"x": 1, "y": 2}, "400 unknown argument 'y'; t takes x"),
        (
            BASE | {"properties": {"o": REST}},
            {"o": {"x": 1, "bogus": 2}},
            "400 unknown argument 'o/bogus'; 'o' takes x",
        ),
        ({"if": A, "then": B, "else": {"properties": {"c": {}}}}, {"a": 1, "b": 2}, ""),
        ({"if": A, "then": B, "else": {"properties": {"c": {}}}}, {"c": 1}, ""),
        ({"if": A, "then": B, "else": {"properties": {"c": {}}}}, {"a": 1, "b": 2, "c": 1}, "not allowed with"),
        ({"dependentSchemas": {"a": B}, "properties": {"a": {}}}, {"a": 1, "b": 2}, ""),
        ({"dependentSchemas": {"a": B}, "properties": {"a": {}}}, {"b": 2}, "not allowed with"),
        ({"patternProperties": {"^x_": {}}}, {"x_1": 1}, ""),
        ({"patternProperties": {"^x_": {}}}, {"y": 1}, "400 unknown argument 'y'; t takes no arguments"),
        ({"allOf": [{"additionalProperties": {"type": "integer"}}]}, {"y": 1}, ""),
        ({"unevaluatedProperties": {"type": "integer"}}, {"y": 1}, ""),
        ({"unevaluatedProperties": {"type": "integer"}}, {"y": "x"}, "400 argument 'y' must be an integer, not \"x\""),
    ],
)
def test_unevaluated_properties_are_found_and_named(
    schema: dict[str, Any], arguments: dict[str, Json], message: str
) -> None:
    tool = ToolDefinition("t", "", {"type": "object", "unevaluatedProperties": False, **schema})
    if "o" in arguments:
        tool = ToolDefinition("t", "", {"type": "object", **schema})
    try:
        ArgumentCheck(tool)(arguments)
        found = ""
    except ToolError as error:
        found = f"{error.status} {error}"
    assert (message in found) if message else not found
    assert bool(schema_problems(tool, ToolCall("c", "t", arguments, Span(0, 0)))) == bool(message)


def test_integers_arrive_as_integers_wherever_their_schema_is() -> None:
    made = ArgumentCheck(ToolDefinition("go", "", NESTED))({"counts": [1.0, 2], "pet": {"kind": "cat", "lives": 7.0}})
    assert json.dumps(made) == '{"counts": [1, 2], "pet": {"kind": "cat", "lives": 7}}'


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("date", ["2025-02-28"], ["2025-02-30", "20250228", "2025-2-28", ""]),
        ("date-time", ["2025-02-28T23:59:60Z", "2025-02-28T10:00:00.5+01:00"], ["2025-02-28", "2025-02-28T10:00:00"]),
        ("time", ["10:00:00Z"], ["10:00", "25:00:00Z"]),
        ("email", ["a.b@c.test"], ["not mail", "@", "a@b c"]),
        ("uuid", ["123E4567-e89b-12d3-a456-426614174000"], ["xyz", "123e4567e89b12d3a456426614174000"]),
        ("uri", ["https://a.test/x?y", "mailto:a@b.test"], ["a.test/x", "https://a b"]),
        ("hostname", ["a-b.test"], ["a_b", "-a", "a..b"]),
        ("ipv4", ["192.0.2.1"], ["192.0.2", "192.0.2.256"]),
        ("ipv6", ["::1"], ["1"]),
        ("password", ["", "anything"], []),
    ],
)
def test_formats_are_checked(name: str, right: list[str], wrong: list[str]) -> None:
    validator = validator_of({"format": name}, formats=True)
    assert [text for text in (*right, *wrong) if validator.is_valid(text)] == right
    assert validator.is_valid(7)


def test_hostile_patterns_and_lists_take_no_time() -> None:
    slow: dict[str, Json] = {"patternProperties": {"^(a+)+$": {}}, "properties": {"list": {"uniqueItems": True}}}
    start = time.thread_time()
    ArgumentCheck(ToolDefinition("go", "", {**slow, "additionalProperties": True}))({"a" * 40 + "b": 1})
    with pytest.raises(ToolError, match="unknown argument"):
        ArgumentCheck(ToolDefinition("go", "", {**slow, "unevaluatedProperties": False}))({"a" * 40 + "b": 1})
    ArgumentCheck(ToolDefinition("go", "", slow))({"list": [{"a": number} for number in range(20_000)]})
    recursive: dict[str, Json] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"child": {"$ref": "#"}},
    }
    nested: dict[str, Json] = {"child": {"a" * 40 + "b": 1}}
    with pytest.raises(ToolError, match="unknown argument 'child/a"):
        ArgumentCheck(ToolDefinition("go", "", {**slow, **recursive, "additionalProperties": False}))(nested)
    assert time.thread_time() - start < 3


@pytest.mark.parametrize(
    "part",
    [
        {"properties": {"x": {"pattern": "^(a+)+$"}}},
        {"propertyNames": {"pattern": "^(a+)+$"}},
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False},
        {"properties": {"x": {"contains": {"pattern": "^(a+)+$"}}}},
        {"properties": {"x": {"prefixItems": [{"pattern": "^(a+)+$"}], "unevaluatedItems": False}}},
        {"dependentSchemas": {"x": {"propertyNames": {"pattern": "^(a+)+$"}}}},
        {"if": {"properties": {"x": {"pattern": "^(a+)+$"}}}, "else": False},
    ],
)
@pytest.mark.parametrize(
    "dialect", ["http://json-schema.org/draft-07/schema#", "http://json-schema.org/draft-04/schema#"]
)
def test_every_pattern_of_a_schema_has_a_time_limit(part: dict[str, Any], dialect: str) -> None:
    schema: dict[str, Json] = {
        "type": "object",
        "$ref": "#/$defs/part",
        "$defs": {"part": {**part, "$schema": dialect}},
    }
    text = "a" * 40 + "b"
    value: Json = [text] if "contains" in str(part) or "prefixItems" in str(part) else text
    start = time.thread_time()
    with pytest.raises(ToolError):
        ArgumentCheck(ToolDefinition("go", "", schema))({"x": value, text: 1})
    with contextlib.suppress(UnsatisfiableError):
        draw(schema, "0")
    assert time.thread_time() - start < 4


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


@pytest.mark.parametrize(("pattern", "text"), [("^ab$", "ab\n"), (r"^\d+$|x", "3\n"), (r"[\]$]b$", "$b\n")])
def test_an_end_of_a_pattern_is_the_end_of_the_text(pattern: str, text: str) -> None:
    assert not matches_pattern(pattern, text)
    assert matches_pattern(pattern, text.strip())


@pytest.mark.parametrize("pattern", ["[" * 200_000, "[\\" * 100_000, "$" * 100_000])
def test_a_hostile_pattern_is_read_in_one_pass(pattern: str) -> None:
    start = time.process_time()
    matches_pattern(pattern, "a")
    assert time.process_time() - start < 10
