"""`agentft doctor`: what is installed, what works here, and what to do about the rest."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["doctor_command"]


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what works here, and what to do about the rest.

    Example:
      agentft doctor
      agentft doctor --json
    """
    from agentft.display.doctor import show_checks

    show_checks(as_json)
