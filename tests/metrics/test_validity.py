"""Problems with a call's schema: their kinds, and where they are."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.metrics.validity import SchemaProblem, schema_problems
from agentft.types import Json, Span, ToolCall, ToolDefinition
from tests.values import assert_immutable


def problems(schema: dict[str, Any], **arguments: Json) -> list[tuple[str, str]]:
    tool = ToolDefinition("book", "", {"type": "object", **schema})
    return [
        (found.kind, found.pointer) for found in schema_problems(tool, ToolCall("c", "book", arguments, Span(0, 0)))
    ]


ANY = {
    "anyOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "integer"}}, "required": ["b"]}]
}
INNER = {"type": "object", "required": ["city", "day"], "properties": {"city": {}, "day": {}}}
CLOSED = {"properties": {"a": {}}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "arguments", "expected"),
    [
        ({"required": ["b", "a"]}, {}, [("missing-required", "/a"), ("missing-required", "/b")]),
        ({"properties": {"to": INNER}}, {"to": {"day": 1}}, [("missing-required", "/to/city")]),
        ({"properties": {"to": {"items": INNER}}}, {"to": [{"city": 1}]}, [("missing-required", "/to/0/day")]),
        (CLOSED, {"c": 1, "a": 1, "b": 1}, [("unknown-argument", "/b"), ("unknown-argument", "/c")]),
        ({"additionalProperties": False}, {"a": 1}, [("unknown-argument", "/a")]),
        ({"properties": {"to": CLOSED}}, {"to": {"b": 1}}, [("unknown-argument", "/to/b")]),
        ({"properties": {"a": {}}, "unevaluatedProperties": False}, {"b": 1}, [("unknown-argument", "/b")]),
        ({**ANY, "unevaluatedProperties": False}, {"a": 1, "b": "x"}, [("unknown-argument", "/b")]),
        ({**ANY, "unevaluatedProperties": False}, {"a": "x"}, [("constraint", "")]),
        ({"properties": {"a": {"type": "string"}}}, {"a": 1}, [("type", "/a")]),
        ({"properties": {"a": {"minimum": 1}}}, {"a": 0}, [("constraint", "/a")]),
        ({"properties": {"a": {"enum": [1]}}}, {"a": 2}, [("constraint", "/a")]),
        ({"properties": {"a": {"items": {"maxLength": 1}}}}, {"a": ["x", "xy"]}, [("constraint", "/a/1")]),
        ({"minProperties": 1, "properties": {"a": {}}}, {}, [("constraint", "")]),
        ({"maxProperties": 1, "properties": {"a": {}}}, {"a": 1, "b": 1}, [("constraint", "")]),
        ({"required": ["a"], "properties": {"a": {"type": "integer"}}}, {"a": 1}, []),
    ],
)
def test_the_kind_and_place_of_schema_problems(
    schema: dict[str, Any], arguments: dict[str, Json], expected: list[tuple[str, str]]
) -> None:
    assert problems(schema, **arguments) == expected


def test_schema_problems_are_immutable() -> None:
    assert_immutable(SchemaProblem("type", "", ""))
