"""`agentft tools import`: makes a world from an API description, an MCP server or recorded traffic."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentft.errors import InputError

if TYPE_CHECKING:
    from agentft.imports.world import ImportedWorld

__all__ = ["mcp_command", "openapi_command", "traffic_command"]

_Output = Annotated[Path, typer.Option(help="The folder to create for the world.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")]


def openapi_command(
    file: Annotated[str, typer.Argument(help="An OpenAPI 3.0, 3.1 or Swagger 2 file, JSON or YAML.")],
    output: _Output,
    allow_url: Annotated[bool, typer.Option(help="Fetch FILE if it is an http(s) URL.")] = False,
    allow_refs: Annotated[
        bool, typer.Option(help="Follow `$ref`s to other files in FILE's folder, or at the origin of its URL.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Import an API description as a tool world: one tool per operation, with results that match the API's schemas.

    The real API is never called. The world's README.md lists operations that cannot be tools, with their places.

    Example:
      agentft tools import openapi petstore.yaml --output ./petstore
      agentft chat --tools ./petstore
    """
    from agentft.imports.documents import open_description
    from agentft.imports.openapi import import_openapi

    def read() -> ImportedWorld:
        return import_openapi(open_description(file, allow_url=allow_url, allow_refs=allow_refs), output.name)

    _import(read, file, output, as_json)


def mcp_command(
    server: Annotated[str, typer.Argument(help="The command that starts an MCP server, in quotes, or its URL.")],
    output: _Output,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="Pass an environment variable to the command. Repeatable."),
    ] = None,
    as_json: _AsJson = False,
) -> None:
    """Import the tools of an MCP server as a tool world; the server's tools are listed, never called.

    Runs only the command, or contacts only the URL, that you pass. The command runs without a shell, and gets HOME,
    PATH and the like of your environment; pass other variables, such as keys, with --env.

    Example:
      agentft tools import mcp "npx my-mcp-server --flag" --output ./mine
      agentft tools import mcp "npx my-mcp-server" --env MY_API_KEY --output ./mine
      agentft tools import mcp http://127.0.0.1:3000/mcp --output ./mine
    """
    from agentft.imports.mcp import import_mcp

    _import(lambda: import_mcp(server, output.resolve().name, env or ()), server, output, as_json)


def traffic_command(
    file: Annotated[Path, typer.Argument(help="A HAR file, or JSONL with one exchange per line.")],
    output: _Output,
    as_json: _AsJson = False,
) -> None:
    """Import recorded traffic as a tool world: a recorded call gets its recorded response.

    Example: agentft tools import traffic recorded.jsonl --output ./replayed
    """
    from agentft.imports.documents import read_source
    from agentft.imports.traffic import import_traffic

    _import(lambda: import_traffic(read_source(str(file)), str(file), output.name), str(file), output, as_json)


def _import(read: Callable[[], ImportedWorld], source: str, output: Path, as_json: bool) -> None:
    """Read a source, write the world's folder, and print the report."""
    from agentft.display.terminal import say, say_json, waiting
    from agentft.files import path_argument
    from agentft.imports.world import by_reason
    from agentft.redaction import redacted, redacted_command
    from agentft.toolset.declared import write_world
    from agentft.toolset.schemas import plain_line

    with waiting(f"importing {redacted_command(source)}"):
        try:
            imported = read()
        except InputError as error:  # it may name a URL that has a key
            raise InputError(str(redacted(str(error)))) from None
        write_world(output, imported.tools, imported.base_url, imported.readme(output.name, source))
    count, refused, adapted = len(imported.tools), len(imported.refused), len(imported.adapted)
    access = Counter(str(tool["access"]) for tool in imported.tools)
    if as_json:
        notes = [{"place": note.place, "reason": note.reason} for note in imported.refused]
        report = {"output": str(output), "tools": count, "access": access, "refused": notes, "adapted": adapted}
        say_json(report)
        return
    shares = ", ".join(f"{number} {name}" for name, number in access.items())
    say(f"{output}: {count} {'tool' if count == 1 else 'tools'} ({shares})")
    for reason, places in by_reason(imported.refused)[:5]:
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        say(f"  refused {plain_line(places[0])}{more}: {plain_line(reason)}")
    if refused or adapted:
        say(f"  {refused} refused, {adapted} adapted; {output / 'README.md'} lists them all with their places")
    say(f"next: agentft tools show {shlex.quote(path_argument(output))}", err=True)
