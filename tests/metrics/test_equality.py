from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.metrics.matching import same
from agentft.types import Json

NUMBER = {"type": "number"}
INTEGER = {"type": "integer"}


@pytest.mark.parametrize(
    ("expected", "actual", "schema", "comparator", "equal"),
    [
        (1, 1, {}, "exact", True),
        (1, True, {}, "exact", False),
        (True, 1, NUMBER, "exact", False),
        (False, 0, {}, "exact", False),
        (1, 1.0, {}, "exact", False),
        (1, 1.0, INTEGER, "exact", False),
        (1, 1.0, NUMBER, "exact", True),
        (1.0, 1, {"type": ["number", "null"]}, "exact", True),
        (1.0, 1, {"anyOf": [{"type": "string"}, NUMBER]}, "exact", True),
        (0.3, 0.1 + 0.2, NUMBER, "exact", True),
        (0.3, 0.31, NUMBER, "exact", False),
        (1.0, 1.0 + 9e-10, {}, "exact", True),
        (1.0, 1.0 + 1.1e-9, {}, "exact", False),
        (1e9, 1e9 + 0.9, {}, "exact", True),
        (1e9, 1e9 + 1.1, {}, "exact", False),
        (0.0, 1e-12, {}, "exact", False),
        (10**15, 10**15 + 1, NUMBER, "exact", False),
        (3, 3.0 + 1e-10, NUMBER, "exact", True),
        (3, 3.0 + 1e-8, NUMBER, "exact", False),
        (1, 1.0, {"oneOf": [{"type": "string"}, NUMBER]}, "exact", True),
        (1, 1.0, {"anyOf": [{"type": "string"}, INTEGER]}, "exact", False),
        (1, 1.0, {"allOf": [NUMBER]}, "exact", True),
        (1, 1.0, {"$ref": "#/$defs/n", "$defs": {"n": NUMBER}}, "exact", True),
        ({"k": 3}, {"k": 3.0}, {"additionalProperties": NUMBER}, "exact", True),
        ({"k": 3}, {"k": 3.0}, {"additionalProperties": NUMBER, "properties": {"k": INTEGER}}, "exact", False),
        ({"k": 3}, {"k": 3.0}, {"patternProperties": {"^k": NUMBER}}, "exact", True),
        ([12, 15], [12.0, 15.0], {"anyOf": [{"items": NUMBER}, {"type": "null"}]}, "exact", True),
        ([1, 2], [1.0, 2.0], {"prefixItems": [NUMBER, NUMBER]}, "exact", True),
        ([1, 2], [1.0, 2.0], {"prefixItems": [NUMBER], "items": INTEGER}, "exact", False),
        ({"a": 1}, {"a": 1.0}, {"if": {}, "then": {"properties": {"a": NUMBER}}}, "exact", True),
        (1, 1.0, {"type": ["integer", "null"]}, "exact", False),
        (1, 1.0, {"type": "numbers"}, "exact", False),
        (1, "1", NUMBER, "exact", False),
        ("a b", "ab", {}, "casefold", False),
        ("a\tb\n", "ab", {}, "spaceless", True),
        ({"a": 1}, {"b": 1}, {}, "exact", False),
        ({"a": [1]}, {"a": [1.0]}, {"properties": {"a": {"items": NUMBER}}}, "exact", True),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {}, "exact", False),
        ([1, 2], [1, 3], {}, "exact", False),
        ([1], [1.0], {"items": True}, "exact", False),
        ([1, "A"], [1, "a"], {}, "casefold", True),
        ({"a": 1}, {"a": 1.0}, {"properties": None}, "exact", False),
        (10**400, 1.0, NUMBER, "exact", False),
        (10**400, 10**400, {}, "exact", True),
        ("1", 1, NUMBER, "exact", False),
        (None, None, {}, "exact", True),
        (None, False, {}, "exact", False),
        ("a", "A", {}, "exact", False),
        ("straße", "STRASSE", {}, "casefold", True),
        ("a b", "ab", {}, "spaceless", True),
        ("a b", "AB", {}, "spaceless", False),
        ("1", 1, {}, "casefold", False),
        ("a", ["a"], {}, "spaceless", False),
        ([1], [1.0], {"items": NUMBER}, "exact", True),
        ([1], [1.0], {}, "exact", False),
        ([1], [1, 1], {}, "exact", False),
        ([], {}, {}, "exact", False),
        ({"a": 1}, {"a": 1.0}, {"properties": {"a": NUMBER}}, "exact", True),
        ({"a": 1}, {"a": 1, "b": 2}, {}, "exact", False),
        ({"a": "X"}, {"a": "x"}, {}, "casefold", True),
    ],
)
def test_equality_by_type_schema_and_comparator(
    expected: Json, actual: Json, schema: dict[str, Any], comparator: str, equal: bool
) -> None:
    assert same(expected, actual, schema, comparator) is equal
    assert same(actual, expected, schema, comparator) is equal


def test_values_are_compared_exactly_by_default() -> None:
    assert not same("a", "A")
    assert not same(1, 1.0)
    assert same(1, 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_value_is_itself_under_every_comparator(value: Json) -> None:
    for comparator in ("exact", "casefold", "spaceless"):
        assert same(value, value, NUMBER, comparator)


@given(JSON, JSON)
def test_equality_is_symmetric(left: Json, right: Json) -> None:
    assert same(left, right) is same(right, left)
