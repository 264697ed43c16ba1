"""Readers that all parsers share: lists, roles, and tools, whose parameters become JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from agentft.errors import RowError
from agentft.json_text import UnreadableError, read_value, repeated_keys
from agentft.records.keys import as_text, is_blank
from agentft.types import Json, Role, ToolDefinition

__all__ = [
    "has_calls",
    "make_tool",
    "older_calls",
    "read_list",
    "read_parameters",
    "read_role",
    "read_tools",
    "tools_key",
    "written_calls",
]

_MAX_CACHED_LENGTH = 5_000  # characters of a tool; longer ones are not cached, so that the cache stays small
_TYPES = {name: name for name in ("string", "number", "integer", "boolean", "array", "object", "null")}
_TYPES |= {"str": "string", "text": "string", "int": "integer", "long": "integer", "float": "number"}
_TYPES |= {"double": "number", "bool": "boolean", "list": "array", "tuple": "array", "dict": "object", "map": "object"}
_SCHEMA_KEYS = frozenset({"$ref", "$defs", "anyOf", "oneOf", "allOf"})
_VALUES = frozenset({"default", "const", "enum", "example", "examples"})  # keywords whose value is data, even null
_YES = frozenset({"true", "required", "yes", "1"})


def read_list(value: Json, key: str, reason: str) -> list[Json] | None:
    """A list, or the JSON text of a list (how Arrow files store nested values). Raises RowError(reason).

    The list's objects may be JSON text, too.

    Blank text and an empty object are None: files with a column of lists have them in rows that need none.
    """
    if is_blank(value):
        return None
    try:
        value = read_value(value) if isinstance(value, str) else value
        if isinstance(value, list):
            return [read_value(item) if isinstance(item, str) and item.strip()[:1] == "{" else item for item in value]
    except UnreadableError as error:
        raise RowError(reason, f"the text of `{key}` is {error}") from None
    raise RowError(reason, f"`{key}` must be a list, not {value!r:.60}")


def has_calls(turn: Json) -> bool:
    """Whether the turn has OpenAI's `tool_calls` (or `function_call`), which other formats would ignore."""
    return isinstance(turn, dict) and not (is_blank(turn.get("tool_calls")) and is_blank(turn.get("function_call")))


def written_calls(message: Mapping[str, Json]) -> list[Json]:
    """The calls of an OpenAI message as written: `tool_calls`, and the older `function_call`.

    Raises:
        RowError: `call-not-object`: `tool_calls` is not a list.
    """
    listed = read_list(message.get("tool_calls"), "tool_calls", "call-not-object") or []
    return [*listed, *older_calls(message, listed)]


def older_calls(message: Mapping[str, Json], listed: Sequence[Json]) -> list[Json]:
    """The `function_call` of a message, unless it repeats one of its `tool_calls`, as llama-cpp-python's does."""
    legacy = message.get("function_call")
    repeated = any(isinstance(call, dict) and call.get("function") == legacy for call in listed)
    return [] if repeated or is_blank(legacy) else [legacy]


def read_role(named: Json, roles: Mapping[str, Role]) -> Role:
    """Look up the role of a turn. Raises RowError `unknown-role`."""
    role = roles.get(named) if isinstance(named, str) else None
    if role is None:
        raise RowError("unknown-role", f"the role is {named!r:.60}; it must be one of: {', '.join(roles)}")
    return role


def tools_key(item: Mapping[str, Json]) -> str:
    """The key of a row, or of its system turn, that lists the tools."""
    return "functions" if is_blank(item.get("tools")) else "tools"


def read_tools(row: Mapping[str, Json]) -> tuple[ToolDefinition, ...]:
    """The tools that a row lists, each as `{"type": "function", "function": {...}}` or only the inner object.

    Raises:
        RowError: `unreadable-tools`.
    """
    key = tools_key(row)
    tools = read_list(row.get(key), key, "unreadable-tools") or []
    found: dict[str, ToolDefinition] = {}
    for index, tool in enumerate(tools):
        text = json.dumps(tool)
        one = (_read_written if len(text) <= _MAX_CACHED_LENGTH else _read_written.__wrapped__)(text)
        if one is None:
            raise RowError("unreadable-tools", f"tool {index} has no name: {tool!r:.60}")
        found.setdefault(one.name, one)  # a second one with the name is counted as unread
    return tuple(found.values())


@lru_cache(maxsize=4096)
@repeated_keys()  # which are not counted, since equal tools are read once
def _read_written(text: str) -> ToolDefinition | None:
    """`_read_tool` for the JSON text of a tool, so that equal tools of many rows are read once."""
    return _read_tool(json.loads(text))


def _read_tool(tool: Json) -> ToolDefinition | None:
    """None if it has no name."""
    function = (tool.get("function") or tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        return None
    keys = ("parameters", "input_schema", "inputSchema", "arguments")  # OpenAI's, Anthropic's, MCP's, ToolMind's
    parameters = next((function[key] for key in keys if function.get(key) is not None), None)
    return make_tool(name, function.get("description"), parameters)


def make_tool(name: str, description: Json, parameters: Json, address: str = "") -> ToolDefinition:
    """A tool from a record's fields; `parameters` may have any shape that `read_parameters` accepts.

    Raises:
        RowError: `unreadable-tools`.
    """
    try:
        schema = read_parameters(parameters)
    except UnreadableError as error:
        raise RowError("unreadable-tools", f"the parameters of {name!r}: {error}") from None
    return ToolDefinition(name, as_text(description), schema, (address,) if address else ())


def read_parameters(value: Json) -> dict[str, Json]:
    """Convert parameters to a JSON Schema object.

    They may be a list of `{"name", "description", "required": "True", "type"?}`, a mapping of names to such entries, a
    JSON Schema object (returned without the nulls that Arrow adds), or the JSON text of one of these. A parameter
    without a known type is a string.

    Raises:
        UnreadableError: the value has none of these shapes, or a parameter has no name.
    """
    if isinstance(value, str):
        value = read_value(value) if value.strip() else None
    value = _without_nulls(value)
    if isinstance(value, dict):
        kind, properties = str(value.get("type")).lower(), value.get("properties")
        schema = isinstance(properties, dict) and not isinstance(properties.get("type"), str)  # else it is a parameter
        if _TYPES.get(kind) == "object" or schema or value.keys() & _SCHEMA_KEYS:
            return {"type": "object", "properties": {}, **value}
        if kind in _TYPES:
            raise UnreadableError(f"must be those of an object, not of a schema of type {kind}")
        value = [{"name": name, **_entry(spec)} for name, spec in value.items()]
    if value is not None and not isinstance(value, list):
        raise UnreadableError(f"must be a list or an object, not {type(value).__name__}")
    read = list(map(_read_parameter, value or ()))
    required: list[Json] = [*dict.fromkeys(name for name, _, needed in read if needed)]
    return {"type": "object", "properties": {name: spec for name, spec, _ in read}, "required": required}


def _entry(spec: Json) -> Mapping[str, Json]:
    return spec if isinstance(spec, dict) else {"description": spec if isinstance(spec, str) else ""}


def _read_parameter(item: Json) -> tuple[str, dict[str, Json], bool]:
    entry: dict[str, Json] = {"name": item} if isinstance(item, str) else item if isinstance(item, dict) else {}
    name = entry.get("name")
    if not (isinstance(name, str) and name):
        raise UnreadableError("a parameter has no name")
    needed = entry.get("required")
    spec: dict[str, Json] = {"type": "string", **entry}
    del spec["name"]
    if "type" in entry or "properties" in entry or "items" in entry:
        spec["type"] = _read_type(entry)
    if isinstance(needed, list):  # the entry is a JSON Schema: this `required` lists its own properties
        return name, spec, False
    spec.pop("required", None)
    return name, spec, needed in ("True", "true") or str(needed).lower() in _YES


def _read_type(entry: Mapping[str, Json]) -> Json:
    kind = entry.get("type")
    if isinstance(kind, list) and kind and all(isinstance(one, str) and one in _TYPES for one in kind):
        return kind
    if isinstance(kind, str):
        return _TYPES.get(re.split("[^a-z]", kind.strip().lower())[0], "string")  # `int, optional`, `list[str]`
    return "object" if isinstance(entry.get("properties"), dict) else "array" if "items" in entry else "string"


def _without_nulls(schema: Json, *, data: bool = False) -> Json:
    """The schema without keys that are null, which is no JSON Schema.

    A `default` or `const` of null is legal. It is left out only with `data`: if Arrow has added others.
    """
    if isinstance(schema, list):
        return [_without_nulls(item, data=data) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Json] = {}
    for key, value in schema.items():
        if key in _VALUES and not (value is None and (data or key == "enum")):
            kept[key] = value
        elif value is not None:
            kept[key] = _without_nulls(value, data=data)
    return kept if data or len(kept) == len(schema) else _without_nulls(kept, data=True)
