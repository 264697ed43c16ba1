"""`agentft eval import`: makes a suite of a file of a public set."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["import_command"]


def import_command(
    file: Annotated[Path, typer.Argument(help="A file of the set: JSONL, or a JSON array.")],
    source: Annotated[str, typer.Option("--from", help="api-bank, seal-tools, acebench, tau2 or when2call.")],
    output: Annotated[Path, typer.Option(help="The folder to create for the suite.")],
    tools: Annotated[str | None, typer.Option(help="For tau2: the tool world that its tasks call.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a suite of a public set that you have: each record becomes a case, or is rejected with a reason.

    Example:
      agentft eval import when2call_test_mcq.jsonl --from when2call --output ./when2call
    """
    from agentft.display.terminal import say, say_json
    from agentft.evaluation.importing import import_set
    from agentft.evaluation.public_sets import READERS
    from agentft.files import path_argument
    from agentft.strict import one_of
    from agentft.toolset import stdout_to_stderr

    one_of(source, list(READERS), "--from", "set")
    with stdout_to_stderr():  # for handlers that print
        made = import_set(file, source, output, tools)
    reasons = Counter(reason for _, reason in made.rejected)
    kept, rejected = len(made.cases), len(made.rejected)
    if as_json:
        say_json({"suite": str(output), "records": kept + rejected, "kept": kept, "rejected": reasons})
        return
    say(f"{output}: {kept + rejected} records, {kept} kept, {rejected} rejected")
    for reason, count in reasons.most_common():
        first = min(line for line, why in made.rejected if why == reason)
        say(f"  {count} rejected: {reason}; the first is {file}:{first}")
    worlds = f"--tools {shlex.quote(tools)} " if tools else ""
    say(f"next: agentft eval {shlex.quote(path_argument(output))} {worlds}--model MODEL")
