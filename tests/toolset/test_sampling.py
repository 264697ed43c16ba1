"""Drawn values satisfy their schemas and repeat for the same seed; unsatisfiable schemas raise."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from agentft.toolset.sampling import UnsatisfiableError, draw
from agentft.toolset.schemas import Schema

SCHEMAS: list[Schema] = [
    {},
    {"type": "null"},
    {"type": "boolean"},
    {"type": "integer"},
    {"type": ["integer", "null"]},
    {"type": ["null", "number"], "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
    {"type": "integer", "minimum": -5, "maximum": -5},
    {"type": "integer", "maximum": -100},
    {"type": "integer", "exclusiveMinimum": 6, "multipleOf": 7},
    {"type": "number", "minimum": 0.001, "maximum": 0.002},
    {"type": "string", "minLength": 60, "maxLength": 61},
    {"type": "string", "maxLength": 2},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
    {"type": "string", "pattern": r"^(cat|dog)s?\d+\.[^a-z]$", "maxLength": 12},
    {"type": "string", "pattern": "arn:.*", "minLength": 40},
    {"type": "string", "pattern": "^[0-9]+$", "minLength": 12, "maxLength": 12},
    {"type": "string", "pattern": "[a-f0-9]+", "minLength": 40, "maxLength": 40},
    {"type": "string", "pattern": "^arn:aws:", "minLength": 30},
    {"type": "string", "enum": ["a", "b"]},
    {"const": {"x": [1]}},
    {"type": "array", "items": {"type": "string"}, "minItems": 4, "maxItems": 4, "uniqueItems": True},
    {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}, "additionalProperties": False},
    {"type": "object", "required": ["undeclared"]},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 3},
    {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1},
    {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}]},
    {"oneOf": [{"type": "number"}, {"type": "integer", "minimum": 5}]},
    {"type": "object", "properties": {"k": {}}, "anyOf": [{"required": ["k"]}, {"required": ["j"]}]},
    {"type": "string", "examples": ["too long", "ok"], "maxLength": 3},
    {"type": "integer", "default": "not one"},
    {
        "examples": [{"delay": 1}],
        "oneOf": [
            {"type": "object", "properties": {"type": {"enum": ["low"]}, "low": {"type": "integer"}}},
            {"type": "object", "properties": {"type": {"enum": ["high"]}, "high": {"type": "integer"}}},
        ],
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_values_satisfy_and_repeat(schema: Schema) -> None:
    values = [draw(schema, f"seed {number}") for number in range(20)]
    assert all(Draft202012Validator(schema).is_valid(value) for value in values)
    assert values == [draw(schema, f"seed {number}") for number in range(20)]


@settings(max_examples=60, deadline=None)
@given(low=st.integers(-1000, 1000), width=st.integers(0, 50), step=st.sampled_from([1, 2, 5, 0.5]))
def test_numbers_are_within_their_bounds_or_none_exists(low: int, width: int, step: float) -> None:
    schema: Schema = {"type": "number", "minimum": low, "maximum": low + width, "multipleOf": step}
    try:
        value = draw(schema, "s")
    except UnsatisfiableError:
        multiples = [number for number in range(low, low + width + 1) if number % step == 0]
        assert multiples == []
    else:
        assert Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("name", ["date", "date-time", "email", "uuid", "uri", "ipv4", "ipv6", "hostname"])
def test_values_satisfy_their_format(name: str) -> None:
    schema: Schema = {"type": "string", "format": name}
    for number in range(20):
        value = draw(schema, str(number))
        assert Draft202012Validator(schema, format_checker=FormatChecker()).is_valid(value), value
    assert name != "date-time" or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", str(value))


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {}},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"enum": []},
        {"type": "string", "pattern": "^a$", "minLength": 5},
        {"type": "string", "minLength": 10_000_000},
        {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
        {"type": "object", "minProperties": 10**9},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "array", "items": {"enum": [1]}, "minItems": 2, "uniqueItems": True},
    ],
    ids=str,
)
def test_an_unsatisfiable_schema_raises(schema: Schema) -> None:
    with pytest.raises(UnsatisfiableError):
        draw(schema, "s")


def test_the_reason_names_the_property() -> None:
    inner = {"type": "string", "pattern": "^a$", "minLength": 5}
    schema: Schema = {"type": "object", "required": ["p"], "properties": {"p": inner}}
    with pytest.raises(UnsatisfiableError, match=r"p: no text was found for the pattern"):
        draw(schema, "s")


def test_arguments_are_echoed_if_the_schema_allows_them() -> None:
    pet: Schema = {"type": "object", "properties": {"id": {"type": "integer"}, "tag": {"type": "string"}}}
    schema: Schema = {"type": "object", "properties": {"pet": pet}}
    value: Any = draw(schema, "s", {"id": 77, "tag": 5})
    assert value["pet"]["id"] == 77
    assert isinstance(value["pet"]["tag"], str)
    listed: Any = draw({"type": "array", "items": pet, "minItems": 3}, "s", {"id": 77})
    assert 77 not in {item["id"] for item in listed}


@pytest.mark.slow
def test_a_pattern_that_backtracks_forever_ends() -> None:
    schema: Schema = {"type": "string", "pattern": r"^(a+)+\Z!", "minLength": 60}
    with pytest.raises(UnsatisfiableError):
        draw(schema, "s")


def test_sparse_values_have_only_required_properties() -> None:
    schema: Schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}, "b": {"const": 1}}}
    assert set(draw(schema, "s", sparse=True)) == {"a"}  # type: ignore[arg-type]
    assert set(draw(schema, "s")) == {"a", "b"}  # type: ignore[arg-type]


@pytest.mark.parametrize("sparse", [False, True])
def test_a_listed_value_must_satisfy_its_format_only_in_arguments(sparse: bool) -> None:
    schema: Schema = {"type": "string", "format": "date", "examples": ["tomorrow"]}
    assert draw(schema, "s", sparse=sparse) == "tomorrow"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(draw(schema, "s", sparse=sparse, formats=True)))


def test_a_value_must_satisfy_the_whole_schema_too() -> None:
    """Where a cycle was cut, the expanded schema accepts anything, but the value must satisfy the original schema."""
    cut: Schema = {"type": "object", "required": ["next"], "properties": {"next": {}}}
    with pytest.raises(UnsatisfiableError):
        draw(cut, "s", whole={"properties": {"next": {"$ref": "#"}}, "type": "object", "required": ["next"]})


def test_a_sparse_value_has_optional_properties_if_the_schema_needs_them() -> None:
    arms = [{"type": "object", "properties": {"k": {"enum": [name]}}} for name in ("a", "b")]
    for number in range(20):
        assert draw({"oneOf": arms}, str(number), sparse=True) in ({"k": "a"}, {"k": "b"})
