"""When two JSON values are the same argument: the type is compared before the value.

`True`, `1` and `1.0` are three values. Where the schema says `number`, 1 and 1.0 are one number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from agentft.types import Json

__all__ = ["same"]


def same(expected: Json, actual: Json, schema: Mapping[str, Any] | None = None, comparator: str = "exact") -> bool:
    """Whether `actual` is `expected` under the argument's JSON Schema and comparator.

    `comparator`, for strings: `exact`, `casefold` (case does not count) or `spaceless` (whitespace does not count).
    """
    schema = schema or {}
    if isinstance(expected, str) and isinstance(actual, str):
        return _normal(expected, comparator) == _normal(actual, comparator)
    if isinstance(expected, dict) and isinstance(actual, dict):
        properties = schema.get("properties") or {}
        return expected.keys() == actual.keys() and all(
            same(value, actual[key], properties.get(key), comparator) for key, value in expected.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        items = schema.get("items")
        inner = items if isinstance(items, dict) else None
        return len(expected) == len(actual) and all(
            same(left, right, inner, comparator) for left, right in zip(expected, actual, strict=True)
        )
    if _number(expected) and _number(actual):
        return _same_number(expected, actual, schema)
    return type(expected) is type(actual) and expected == actual


def _normal(text: str, comparator: str) -> str:
    if comparator == "casefold":
        return text.casefold()
    return "".join(text.split()) if comparator == "spaceless" else text


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same_number(expected: Any, actual: Any, schema: Mapping[str, Any]) -> bool:
    if type(expected) is not type(actual) and not _allows_number(schema):
        return False
    if isinstance(expected, int) and isinstance(actual, int):
        return expected == actual
    try:
        return math.isclose(expected, actual, rel_tol=1e-9)
    except OverflowError:
        return False


def _allows_number(schema: Mapping[str, Any]) -> bool:
    kinds = schema.get("type", [])
    if "number" in (kinds if isinstance(kinds, list) else [kinds]):
        return True
    return any(_allows_number(option) for key in ("anyOf", "oneOf") for option in schema.get(key, []))
