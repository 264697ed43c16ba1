"""`agentft tools list` and `agentft tools show`: what the tool worlds offer."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["list_command", "show_command"]


def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the shipped tool worlds.

    Example:
      agentft tools list
    """


def show_command(
    world: Annotated[str, typer.Argument(help="A shipped world's name, or the folder of your own.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a world's tools: names, read or write, arguments.

    Example:
      agentft tools show weather
    """
