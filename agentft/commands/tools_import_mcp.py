"""`agentft tools import mcp`: a world with the tools of a real MCP server."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentft.errors import InputError, MissingError

if TYPE_CHECKING:
    from mcp import types

__all__ = ["mcp_command"]

_SECONDS = 30
_PAGES = 100


def mcp_command(
    server: Annotated[str, typer.Argument(help="The command that starts an MCP server, in quotes, or its URL.")],
    output: Annotated[Path, typer.Option(help="The world's folder; it is made.")],
) -> None:
    """Make a tool world of a real MCP server: its tool list is taken, its tools are never called.

    Only the command or the URL that you give is run or contacted. Your shell is not asked to read the command.

    Example:
      agentft tools import mcp "npx my-mcp-server --flag" --output ./mine
      agentft tools import mcp http://127.0.0.1:3000/mcp --output ./mine
    """
    import asyncio

    from agentft.files import write_text
    from agentft.toolserver.mcp import MCP_REMEDY

    if find_spec("mcp") is None:
        raise MissingError(MCP_REMEDY)
    if any((output / name).exists() for name in ("tools.json", "tools.py", "state.json")):
        raise InputError(f"{output}: there is a tool world already; remove it, or give another --output")
    found = asyncio.run(_list_tools(server))
    if not found:
        raise InputError(f"{server}: it lists no tools")
    taken: dict[str, str] = {}
    tools = [_declared(tool, _legal_name(tool.name, taken)) for tool in found]
    base = re.sub(r"[^a-z0-9-]", "-", output.resolve().name.lower()).strip("-") or "mcp"
    lines = [f"- `{new}`: `{old}`" for new, old in taken.items()]
    readme = [f"# {output.name}", "", f"{len(tools)} tools of an MCP server, with their names there:", "", *lines, ""]
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "state.json", "{}\n")
    write_text(output / "README.md", "\n".join(readme))
    world = {"base_url": f"http://{base}.test", "tools": tools}
    write_text(output / "tools.json", f"{json.dumps(world, ensure_ascii=False, indent=1)}\n")
    typer.echo(f"{output}: {len(tools)} tools; try `agentft tools serve {output}`")


async def _list_tools(server: str) -> list[types.Tool]:
    import shlex

    import anyio
    from mcp import Client, MCPError, StdioServerParameters

    target: str | StdioServerParameters = server
    if not re.match(r"https?://", server):
        try:
            command = shlex.split(server)
        except ValueError as error:
            raise InputError(f"{server}: cannot be read as a command: {error}") from None
        if not command:
            raise InputError("no command; give the one that starts the MCP server, or its URL")
        target = StdioServerParameters(command=command[0], args=command[1:])
    tools: list[types.Tool] = []
    try:
        with anyio.fail_after(_SECONDS):
            async with Client(target, mode="legacy") as client:
                page = await client.list_tools()
                tools += page.tools
                for _ in range(_PAGES):
                    if page.next_cursor is None:
                        break
                    page = await client.list_tools(cursor=page.next_cursor)
                    tools += page.tools
    except TimeoutError:
        raise InputError(f"{server}: no tool list within {_SECONDS} seconds") from None
    # An exception of a library of the SDK may be any; what matters is that the server gave no list.
    except (OSError, MCPError, ExceptionGroup) as error:
        raise InputError(f"{server}: gives no tool list: {_first(error)}") from None
    return tools


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


def _declared(tool: types.Tool, name: str) -> dict[str, Any]:
    hints = tool.annotations
    access = "write"
    if hints is not None and hints.read_only_hint:
        access = "read"
    elif hints is not None and hints.destructive_hint:
        access = "destructive"
    return {
        "name": name,
        "description": " ".join((tool.description or tool.title or tool.name).split())[:1000],
        "parameters": tool.input_schema,
        "access": access,
        "example": _example(tool.input_schema),
        "returns": tool.output_schema or {},
    }


def _legal_name(name: str, taken: dict[str, str]) -> str:
    legal = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:56] or "tool"
    legal = f"n{legal}" if legal[0].isdigit() else legal
    found = next(new for new in (legal, *(f"{legal}_{n}" for n in range(2, 10_000))) if new not in taken)
    taken[found] = name
    return found


_PLAIN: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}, "null": None}


def _example(schema: dict[str, Any]) -> dict[str, Any]:
    """The required arguments, from what their schemas offer."""
    properties: dict[str, Any] = schema.get("properties", {})
    return {name: _value(properties.get(name, {})) for name in schema.get("required", [])}


def _value(schema: dict[str, Any]) -> Any:
    for offered in (schema.get("examples"), schema.get("enum"), [schema[key] for key in ("default",) if key in schema]):
        if offered:
            return offered[0]
    return schema.get("minimum", _PLAIN.get(str(schema.get("type")), "text"))
