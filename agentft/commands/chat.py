"""`agentft chat`: the terminal agent."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["chat_command"]


def chat_command(
    model: Annotated[str, typer.Option(help="A folder, a hub id or an embedded name.")] = "smollm2-135m",
    adapter: Annotated[str | None, typer.Option(help="A run folder, or `last`.")] = None,
    tools: Annotated[str, typer.Option(help="Tool worlds, with commas between.")] = "weather,search,calculator",
) -> None:
    """Talk to a model that calls tools.

    Example:
      agentft chat --adapter last
    """
