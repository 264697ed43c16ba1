"""Schemas without the nulls that Arrow adds to structs, for the keys that other rows have."""

from __future__ import annotations

from agentft.types import Json

__all__ = ["without_nulls"]

_VALUES = frozenset({"default", "const", "enum", "example", "examples"})
"""Keywords of JSON Schema whose value is data: null is legal in them."""


def without_nulls(schema: Json, *, data: bool = False) -> Json:
    """The schema without keys that are null, which is no JSON Schema.

    A `default` or `const` of null is legal. It is left out only with `data`: if Arrow has added others.
    """
    if isinstance(schema, list):
        return [without_nulls(item, data=data) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Json] = {}
    for key, value in schema.items():
        if key in _VALUES and not (value is None and (data or key == "enum")):
            kept[key] = value
        elif value is not None:
            kept[key] = without_nulls(value, data=data)
    return kept if data or len(kept) == len(schema) else without_nulls(kept, data=True)
