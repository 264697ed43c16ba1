"""`agentft tools serve` and `agentft tools call`: serve tool worlds, and run a single call."""

from __future__ import annotations

import gc
import json
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from agentft.commands.eval_options import Faults, KeepSecrets, Real, RecordTo, Replay, ReplayMiss
from agentft.content import split_names
from agentft.errors import InputError, ToolError

if TYPE_CHECKING:
    from agentft.toolserver import ToolServer
    from agentft.toolset import Toolset

__all__ = ["call_command", "serve_command"]


def serve_command(
    worlds: Annotated[str, typer.Argument(help="Tool worlds, comma-separated: names of shipped ones, or folders.")],
    port: Annotated[int, typer.Option(help="The port to listen on; 0 picks a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on; others than loopback need --token.")] = "",
    token: Annotated[str, typer.Option(help="The bearer token that callers send; by default a random one.")] = "",
    seed: Annotated[int, typer.Option(help="The seed of all generated data.")] = 0,
    stdio: Annotated[bool, typer.Option("--stdio", help="Serve one MCP client over standard input.")] = False,
    faults: Faults = None,
    real: Real = None,
    record: RecordTo = None,
    replay: Replay = None,
    replay_miss: ReplayMiss = "error",
    keep_secrets: KeepSecrets = False,
) -> None:
    """Serve tool worlds over HTTP and MCP until Ctrl-C; the page at the printed address shows the calls.

    Example:
      agentft tools serve weather,search --faults timeout=0.1,429=0.05
      agentft tools serve weather --stdio
    """
    from agentft.display.terminal import say
    from agentft.toolserver import ToolServer, open_source, read_faults
    from agentft.toolset import load_toolsets, stdout_to_stderr

    toolsets = load_toolsets(split_names(worlds), seed)
    schedule = read_faults(faults, toolsets) if faults else None
    source = open_source(toolsets, real=real, record=record, replay=replay, miss=replay_miss, keep=keep_secrets)
    if stdio:
        import asyncio

        from agentft.toolserver.app import Service
        from agentft.toolserver.mcp import serve_stdio

        with closing(Service(toolsets, source=source)) as service:
            asyncio.run(serve_stdio(service.toolsets, service.run_for_mcp))
        return
    where = host or "127.0.0.1"
    gc.freeze()  # garbage collections need not scan imported modules while calls wait
    with ToolServer(toolsets, port=port, host=where, token=token or None, faults=schedule, source=source) as server:
        say(*_welcome(server, toolsets))
        with stdout_to_stderr():  # for handlers that print
            server.wait()


def call_command(
    tool: Annotated[str, typer.Argument(help="WORLD.TOOL")],
    arguments: Annotated[str, typer.Argument(help="A JSON object.")] = "{}",
    seed: Annotated[int, typer.Option(help="The seed of all generated data.")] = 0,
) -> None:
    """Run one tool call on a fresh state and print the result; exits with 1 if the tool refuses it.

    Example: agentft tools call weather.current_weather '{"city": "Paris"}'
    """
    from agentft.display.terminal import say_json
    from agentft.repl.tooling import read_arguments
    from agentft.toolset import load_toolset, stdout_to_stderr

    world, _, name = tool.rpartition(".")
    if not world:
        raise InputError(f"{tool!r} has no world; write for example weather.current_weather")
    toolset, values = load_toolset(world, seed), read_arguments(arguments)
    try:
        with stdout_to_stderr():  # for handlers that print
            result = toolset.call(name, values, toolset.new_state())
    except ToolError as error:
        say_json({"error": str(error), **error.details})
        raise typer.Exit(1) from None
    say_json(result)


def _welcome(server: ToolServer, toolsets: tuple[Toolset, ...]) -> list[str]:
    import shlex

    tool = next(iter(toolsets[0].tools.values()))
    body = shlex.quote(json.dumps(dict(tool.example), ensure_ascii=False))
    return [
        f"serving {', '.join(toolset.name for toolset in toolsets)} at {server.address}",
        f"token   {server.token}",
        f"page    {server.address}/?token={server.token}",
        f"MCP     {server.address}/mcp",
        "",
        f"curl -H 'Authorization: Bearer {server.token}' {server.address}/tools/{tool.definition.name} -d {body}",
        "",
        "Press Ctrl-C to stop.",
    ]
