"""`agentft tools list`, `tools show` and `tools check`: tool worlds, their tools, and whether they keep promises."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agentft.toolset import Toolset

__all__ = ["check_command", "list_worlds", "show_world"]


def list_worlds(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the shipped tool worlds with their tools.

    Example:
      agentft tools list
    """
    from agentft.display.terminal import open_console, say_json
    from agentft.display.tools import world_table
    from agentft.toolset import load_toolsets, shipped_worlds

    toolsets = load_toolsets(shipped_worlds())
    if as_json:
        say_json({"worlds": [_world(toolset) for toolset in toolsets]}, indent=2)
        return
    open_console().print(world_table(toolsets))


def show_world(
    world: Annotated[
        str, typer.Argument(help="A shipped world or the folder of your own, or one tool of it as `world.tool`.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a world's tools: name, access (read or write), description and arguments.

    Example:
      agentft tools show weather
    """
    from agentft.display.terminal import open_console, say_json
    from agentft.display.tools import tool_table
    from agentft.toolset import load_toolsets

    (toolset,) = load_toolsets([world])
    if as_json:
        say_json(_world(toolset), indent=2)
        return
    open_console().print(tool_table([toolset]))


def check_command(
    worlds: Annotated[list[str], typer.Argument(help="Names of shipped worlds, or folders of your own.")],
    seed: Annotated[int, typer.Option(help="The seed of all generated data.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check tool worlds: examples run, reads do not write, errors say what to correct, results repeat for a seed.

    Example:
      agentft tools check weather ./mytools
    """
    from agentft.display.terminal import open_console, say_json, waiting
    from agentft.toolset import stdout_to_stderr
    from agentft.toolset.proof import PROMISES, prove

    with waiting(f"checking {', '.join(worlds)}"), stdout_to_stderr():  # for handlers that print
        found = {world: prove(world, seed) for world in worlds}
    good = not any(found.values())
    if as_json:
        rows = {
            world: [{**asdict(finding), "remedy": PROMISES[finding.promise]} for finding in findings]
            for world, findings in found.items()
        }
        say_json({"good": good, "promises": list(PROMISES), "findings": rows})
    else:
        from agentft.display.tools import proof_table

        open_console().print(proof_table(found, PROMISES))
    raise typer.Exit(0 if good else 1)


def _world(toolset: Toolset) -> dict[str, Any]:
    tools = [{**asdict(tool.definition), "access": tool.access} for tool in toolset.tools.values()]
    return {"name": toolset.name, "base_url": toolset.base_url, "tools": tools}
