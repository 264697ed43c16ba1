"""What is the same in the records of all formats: lists, roles, ids, and the tools beside the turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentft.errors import RowError
from agentft.formats.values import UnreadableError, read_value
from agentft.parsers.parameters import read_parameters
from agentft.types import Conversation, Json, Role, ToolDefinition, Turn

__all__ = ["conversation_of", "read_list", "read_role", "read_tools"]


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


def read_role(named: Json, roles: Mapping[str, Role]) -> Role:
    """The role that a turn names. Raises RowError `unknown-role`."""
    role = roles.get(named) if isinstance(named, str) else None
    if role is None:
        raise RowError("unknown-role", f"the role {named!r:.60} is none of {', '.join(roles)}")
    return role


def conversation_of(
    row: Mapping[str, Json], default_id: str, turns: Sequence[Turn], tools: tuple[ToolDefinition, ...], source: str
) -> Conversation:
    """The conversation of a row's turns, under the row's id if it has one. Raises RowError `no-assistant`."""
    if not any(turn.role == "assistant" for turn in turns):
        raise RowError("no-assistant", "no turn of the assistant, so there is nothing to learn")
    identity = row.get("id")
    named = isinstance(identity, str | int) and not isinstance(identity, bool) and identity != ""
    return Conversation(str(identity) if named else default_id, tuple(turns), tools, source)


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
