"""Nulls that Arrow adds to structs, for the keys that other rows have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agentft.errors import RowError
from agentft.types import Json, ToolCall, ToolDefinition, Turn

__all__ = ["check_null_arguments", "without_nulls"]

_VALUES = frozenset({"default", "const", "enum", "example", "examples"})
"""Keywords of JSON Schema whose value is data: null is legal in them."""

_SUBSCHEMAS = ("anyOf", "oneOf", "allOf")


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


def check_null_arguments(items: Sequence[Json], turns: Sequence[Turn], tools: Sequence[ToolDefinition]) -> None:
    """Reject calls with a null argument that their tool has no parameter for, or whose parameter does not allow null.

    The latter only in structs, where a null may stand for a missing key; in JSON text somebody wrote it.

    Args:
        items: the turns as the row has them.
        turns: the same, parsed.
        tools: the row's tools.

    Raises:
        RowError: `null-arguments`, with the turn.
    """
    schemas = {tool.name: tool.parameters for tool in tools}
    structs = _are_structs(items)
    for index, turn in enumerate(turns):
        for part in turn.parts:
            if not isinstance(part, ToolCall):
                continue
            struct = next(structs, False)
            name = _find(part.arguments, schemas.get(part.name), "", struct=struct)
            if name:
                why = f"the argument {name} is null, which its tool does not allow (Arrow adds nulls for missing keys)"
                raise RowError("null-arguments", f"{why}; store arguments as JSON text", turn=index)


def _are_structs(items: Sequence[Json]) -> Iterator[bool]:
    """For each call of OpenAI turns, whether its arguments are an object."""
    for item in items:
        calls = item.get("tool_calls") if isinstance(item, dict) and item.get("role") == "assistant" else None
        legacy = item.get("function_call") if isinstance(item, dict) else None
        for call in [*(calls if isinstance(calls, list) else ()), *([legacy] if isinstance(legacy, dict) else ())]:
            function = call.get("function", call) if isinstance(call, dict) else None
            yield isinstance(function, dict) and isinstance(function.get("arguments"), dict)


def _find(value: Json | Mapping[str, Json], schema: Json | Mapping[str, Json], at: str, *, struct: bool) -> str:
    """The path of the first null that the schema does not allow; empty if there is none."""
    if not isinstance(schema, Mapping):
        return ""
    if isinstance(value, list):
        return next((found for item in value if (found := _find(item, schema.get("items"), at, struct=struct))), "")
    properties = schema.get("properties")
    if not isinstance(value, Mapping) or not isinstance(properties, Mapping) or not properties:
        return ""  # without properties, a schema does not say what is allowed
    for name, item in value.items():
        path = f"{at}.{name}" if at else name
        if item is None:
            if name not in properties or (struct and not _allows_null(properties[name])):
                return path
        elif found := _find(item, properties.get(name), path, struct=struct):
            return found
    return ""


def _allows_null(schema: Json) -> bool:
    if not isinstance(schema, Mapping):
        return schema is True
    kinds = schema.get("type")
    named = kinds == "null" or (isinstance(kinds, list) and "null" in kinds) or schema.get("nullable") is True
    enum = schema.get("enum")
    within = any(isinstance(some := schema.get(key), list) and any(map(_allows_null, some)) for key in _SUBSCHEMAS)
    return (
        named
        or within
        or (isinstance(enum, list) and None in enum)
        or not (kinds or enum or schema.keys() & _SUBSCHEMAS)
    )
