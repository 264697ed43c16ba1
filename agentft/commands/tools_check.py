"""`agentft tools check`: checks that tool worlds keep their promises."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

__all__ = ["check_command"]


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
