"""Null arguments: Arrow adds nulls to structs, for the keys that other rows have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat

from agentft.errors import RowError
from agentft.records.keys import argument_key
from agentft.records.tools import written_calls
from agentft.types import Json, ToolCall, ToolDefinition, Turn

__all__ = ["check_null_arguments"]

_SUBSCHEMAS = ("anyOf", "oneOf", "allOf")


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
    inserted = len(turns) - len(items)  # 1 if the row's own `system` became the first turn
    for index, turn in enumerate(turns):
        null = "null" in turn.raw or "None" in turn.raw  # JSON's, or Python's
        calls = [part for part in turn.parts if null and isinstance(part, ToolCall)]
        for call, struct in zip(calls, _are_structs(items[index - inserted]) if calls else (), strict=False):
            name = _find(call.arguments, schemas.get(call.name), "", struct=struct)
            if name:
                why = f"the argument {name} is null, which its tool does not allow (Arrow adds nulls for missing keys)"
                raise RowError("null-arguments", f"{why}; store arguments as JSON text", turn=index - inserted)


def _are_structs(item: Json) -> Iterator[bool]:
    """For each call of a turn, whether its arguments are an object; no call in MS-Agent's text is one."""
    if isinstance(item, dict):
        for call in written_calls(item):
            function = (call.get("function") or call) if isinstance(call, dict) else None
            yield isinstance(function, dict) and isinstance(function.get(argument_key(function)), dict)
    yield from repeat(False)


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
    kinds, enum = schema.get("type"), schema.get("enum")
    listed = "null" in (kinds if isinstance(kinds, list) else [kinds]) or (isinstance(enum, list) and None in enum)
    within = any(isinstance(some := schema.get(key), list) and any(map(_allows_null, some)) for key in _SUBSCHEMAS)
    silent = not (kinds or enum or schema.keys() & _SUBSCHEMAS)
    return listed or within or silent or schema.get("nullable") is True
