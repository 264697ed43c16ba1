"""Imports the tools of an MCP server from its list of tools, without calling any."""

from __future__ import annotations

import asyncio
import shlex
from importlib.util import find_spec
from typing import TYPE_CHECKING

from agentft.errors import MCP_REMEDY, InputError, MissingError
from agentft.imports.documents import TIMEOUT, is_url
from agentft.imports.world import ImportedWorld, ImportNote, default_base_url
from agentft.toolset.arguments import ArgumentCheck
from agentft.toolset.sampling import draw
from agentft.toolset.schemas import expand
from agentft.types import Json, ToolDefinition

if TYPE_CHECKING:
    from mcp import StdioServerParameters, types

__all__ = ["import_mcp", "list_tools"]

_PAGE_LIMIT = 100


def import_mcp(server: str, world: str) -> ImportedWorld:
    """Import every tool that an MCP server lists; tools with an invalid schema are refused.

    Args:
        server: the command that starts the server, or its http(s) URL. The command runs without a shell.
        world: the world's name, for its base URL.

    Raises:
        InputError: the server lists no tool that can be imported.
        MissingError: the MCP SDK is not installed.
    """
    imported = ImportedWorld(default_base_url(world))
    for tool in asyncio.run(list_tools(server)):
        try:
            _add(imported, tool)
        except InputError as error:
            imported.refused.append(ImportNote(tool.name, str(error)))
    return imported.require_tools(server)


def _add(imported: ImportedWorld, tool: types.Tool) -> None:
    hints, schema, returns = tool.annotations, tool.input_schema, tool.output_schema or {}
    access = "write"
    if hints and (hints.read_only_hint or hints.destructive_hint):
        access = "read" if hints.read_only_hint else "destructive"
    for part in (schema, returns):
        ArgumentCheck(ToolDefinition(tool.name, "", part))
    entry: dict[str, Json] = {
        "description": tool.description or tool.title,
        "access": access,
        "parameters": schema,
        "returns": returns,
        "operation": tool.name,
    }
    example = draw(expand(schema), tool.name, whole=schema, sparse=True)
    imported.add(tool.name, tool.name, entry, example=example)


async def list_tools(server: str) -> list[types.Tool]:
    """The tools that an MCP server lists, up to 100 pages.

    Raises:
        InputError: there is no list within 30 seconds, or `server` is not a command.
        MissingError: the MCP SDK is not installed.
    """
    if find_spec("mcp") is None:
        raise MissingError(MCP_REMEDY)
    import anyio
    from mcp import Client, MCPError

    tools: list[types.Tool] = []
    try:
        with anyio.fail_after(TIMEOUT):
            async with Client(_target(server), mode="legacy") as client:
                cursor = None
                for _ in range(_PAGE_LIMIT):
                    page = await client.list_tools(cursor=cursor)
                    tools += page.tools
                    cursor = page.next_cursor
                    if cursor is None:
                        break
    except TimeoutError:
        raise InputError(f"{server}: no tool list within {TIMEOUT} seconds") from None
    # The SDK's dependencies raise other exceptions in groups.
    except (OSError, MCPError, ExceptionGroup) as error:
        first: Exception = error
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise InputError(f"{server}: no tool list: {str(first) or type(first).__name__}") from None
    return tools


def _target(server: str) -> str | StdioServerParameters:
    if is_url(server):
        return server
    from mcp import StdioServerParameters

    try:
        command, *rest = shlex.split(server) or [""]
    except ValueError as error:
        raise InputError(f"{server}: cannot be parsed as a command: {error}") from None
    if not command:
        raise InputError("the command is empty; give the command that starts the MCP server, or its URL")
    return StdioServerParameters(command=command, args=rest)
