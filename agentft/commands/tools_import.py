"""`agentft tools import`: a world from an API description, from an MCP server, or from recorded traffic."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from agentft.errors import InputError, MissingError

if TYPE_CHECKING:
    from mcp import types

    from agentft.imports.openapi import Importing
    from agentft.types import Json

__all__ = ["mcp_command", "openapi_command", "traffic_command"]

_Output = Annotated[Path, typer.Option(help="The world's folder; it is made.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")]
_SECONDS = 30  # for an address to answer, and for an MCP server's whole list
_PAGES = 100


def openapi_command(
    file: Annotated[str, typer.Argument(help="An OpenAPI 3.0, 3.1 or Swagger 2 file, JSON or YAML.")],
    output: _Output,
    allow_url: Annotated[bool, typer.Option(help="FILE may be an http(s) address, which is fetched.")] = False,
    allow_refs: Annotated[
        bool, typer.Option(help="Follow `$ref`s to other files: below FILE's folder, or at its own address.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Make a tool world of an API description: a tool for each operation, with answers like those of the API.

    Nothing of the real API is ever called. What cannot be a tool is listed in the world's README.md with its place.

    Example:
      agentft tools import openapi petstore.yaml --output ./petstore
      agentft chat --tools ./petstore
    """
    from agentft.imports.openapi import import_openapi
    from agentft.toolset.documents import Documents, read_document

    root = read_document(_content(file, allow_url), file)

    def follow(address: str) -> dict[str, Json]:
        if not _is_below(address, file):
            raise InputError(f"the document {address[:200]!r} is neither below {file} nor at its address")
        return read_document(_content(address, allow_url), address)

    done = import_openapi(Documents(root, file, follow if allow_refs else None), output.name)
    _finish(done, file, output, as_json)


def mcp_command(
    server: Annotated[str, typer.Argument(help="The command that starts an MCP server, in quotes, or its URL.")],
    output: _Output,
    as_json: _AsJson = False,
) -> None:
    """Make a tool world of a real MCP server: its tool list is taken, its tools are never called.

    Only the command or the URL that you give is run or contacted. Your shell is not asked to read the command.

    Example:
      agentft tools import mcp "npx my-mcp-server --flag" --output ./mine
      agentft tools import mcp http://127.0.0.1:3000/mcp --output ./mine
    """
    import asyncio

    from agentft.imports.openapi import Importing, Refusal, mock_address
    from agentft.toolset.arguments import ArgumentCheck
    from agentft.toolset.sampling import draw
    from agentft.toolset.schemas import expand
    from agentft.types import ToolDefinition

    done = Importing(mock_address(output.resolve().name))
    for found in asyncio.run(_list_tools(server)):
        hints, schema = found.annotations, found.input_schema
        returns = found.output_schema or {}
        tool: dict[str, Json] = {"description": found.description or found.title, "access": "write"}
        tool |= {"parameters": schema, "returns": returns, "operation": found.name}
        if hints and (hints.read_only_hint or hints.destructive_hint):
            tool["access"] = "read" if hints.read_only_hint else "destructive"
        try:
            for part in (schema, returns):
                ArgumentCheck(ToolDefinition(found.name, "", part))
            example = draw(expand(schema), found.name, whole=schema, sparse=True)
            done.add(found.name, found.name, tool, example=example)
        except InputError as error:
            done.refused.append(Refusal(found.name, str(error)))
    _finish(done.checked(server), server, output, as_json)


def traffic_command(
    file: Annotated[Path, typer.Argument(help="A HAR file, or JSONL with an exchange a line.")],
    output: _Output,
    as_json: _AsJson = False,
) -> None:
    """Make a tool world of recorded traffic: calls that were recorded are answered as they were.

    Example: agentft tools import traffic recorded.jsonl --output ./replayed
    """
    from agentft.imports.traffic import import_traffic

    _finish(import_traffic(_content(str(file), False), str(file), output.name), str(file), output, as_json)


async def _list_tools(server: str) -> list[types.Tool]:
    import shlex
    from importlib.util import find_spec

    from agentft.toolserver.mcp import MCP_REMEDY

    if find_spec("mcp") is None:
        raise MissingError(MCP_REMEDY)
    import anyio
    from mcp import Client, MCPError, StdioServerParameters

    target: str | StdioServerParameters = server
    if not _is_url(server):
        try:
            command, *rest = shlex.split(server) or [""]
        except ValueError as error:
            raise InputError(f"{server}: cannot be read as a command: {error}") from None
        if not command:
            raise InputError("no command; give the one that starts the MCP server, or its URL")
        target = StdioServerParameters(command=command, args=rest)
    tools: list[types.Tool] = []
    try:
        with anyio.fail_after(_SECONDS):
            async with Client(target, mode="legacy") as client:
                cursor = None
                for _ in range(_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    tools += page.tools
                    cursor = page.next_cursor
                    if cursor is None:
                        break
    except TimeoutError:
        raise InputError(f"{server}: no tool list within {_SECONDS} seconds") from None
    # An exception of a library of the SDK may be any; what matters is that the server gave no list.
    except (OSError, MCPError, ExceptionGroup) as error:
        first: Exception = error
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise InputError(f"{server}: gives no tool list: {str(first) or type(first).__name__}") from None
    return tools


def _is_url(address: str) -> bool:
    return re.match(r"(?i)https?://", address) is not None


def _is_below(address: str, root: str) -> bool:
    if _is_url(root) or _is_url(address):
        one, other = urlsplit(address), urlsplit(root)
        return (one.scheme, one.netloc) == (other.scheme, other.netloc)
    return Path(address).resolve().is_relative_to(Path(root).resolve().parent)


def _content(address: str, allow_url: bool) -> bytes:
    from agentft.toolset.documents import DOCUMENT_LIMIT

    if not _is_url(address):
        try:
            with Path(address).open("rb") as stream:
                return stream.read(DOCUMENT_LIMIT + 1)
        except OSError as error:
            raise InputError(f"{address}: cannot be read ({error.strerror}); give the path of a file") from None
    if not allow_url:
        raise InputError(f"{address} is an address; --allow-url would fetch it")
    import httpx

    content = bytearray()
    try:
        with httpx.stream("GET", address, timeout=_SECONDS) as response:
            if response.status_code != 200:
                where = f" to {response.headers['location'][:200]!r}" if "location" in response.headers else ""
                raise InputError(f"{address}: answers {response.status_code}{where}; give the file's own address")
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > DOCUMENT_LIMIT:
                    break
    except httpx.HTTPError as error:
        raise InputError(f"{address}: cannot be fetched: {error}") from None
    return bytes(content)


def _finish(done: Importing, source: str, output: Path, as_json: bool) -> None:
    from agentft.toolset.declared import write_world
    from agentft.toolset.schemas import describe

    write_world(output, done.tools, done.base_url, done.readme(output.name, source))
    marks = Counter(str(tool["access"]) for tool in done.tools)
    if as_json:
        refused = [{"place": item.place, "reason": item.reason} for item in done.refused]
        report = {"output": str(output), "tools": len(done.tools), "access": marks, "refused": refused}
        typer.echo(json.dumps(report | {"adapted": len(done.adapted)}, ensure_ascii=False))
        return
    typer.echo(f"{output}: {len(done.tools)} tools ({', '.join(f'{number} {mark}' for mark, number in marks.items())})")
    for item in done.refused[:5]:
        typer.echo(f"  refused {describe(item.place)}: {describe(item.reason)}")
    if done.refused or done.adapted:
        more = f"{len(done.refused)} refused, {len(done.adapted)} adapted"
        typer.echo(f"  {more}; all are in {output / 'README.md'} with their places")
