"""Tools beside the turns: `tools` (or the older `functions`) of a row."""

from __future__ import annotations

from collections.abc import Mapping

from agentft.errors import RowError
from agentft.formats.values import UnreadableError, read_value
from agentft.parsers.parameters import read_parameters
from agentft.types import Json, ToolDefinition

__all__ = ["read_list", "read_tools"]


def read_list(value: Json, key: str, reason: str) -> list[Json] | None:
    """A list, or the JSON text of one (Arrow files keep nested values so). Raises RowError(reason)."""
    if isinstance(value, str):
        try:
            value = read_value(value)
        except UnreadableError as error:
            raise RowError(reason, f"the text of `{key}` is {error}") from None
    if not isinstance(value, list | None):
        raise RowError(reason, f"`{key}` must be a list, not {value!r:.60}")
    return value


def read_tools(row: Mapping[str, Json]) -> tuple[ToolDefinition, ...]:
    """The tools that a row lists, each `{"type": "function", "function": {...}}` or the function alone.

    Raises:
        RowError: `unreadable-tools`.
    """
    tools = read_list(row.get("tools", row.get("functions")), "tools", "unreadable-tools") or []
    return tuple(_read_tool(tool, index) for index, tool in enumerate(tools))


def _read_tool(tool: Json, index: int) -> ToolDefinition:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise RowError("unreadable-tools", f"tool {index} has no name: {tool!r:.60}")
    description = function.get("description")
    try:
        parameters = read_parameters(function.get("parameters"))
    except UnreadableError as error:
        raise RowError("unreadable-tools", f"the parameters of {name!r}: {error}") from None
    return ToolDefinition(name, description if isinstance(description, str) else "", parameters)
