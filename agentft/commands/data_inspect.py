"""`agentft data inspect`: what a data file holds, and what became of every row."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["inspect_command"]


def inspect_command(
    file: Annotated[Path, typer.Argument(help="JSONL, a JSON array (both may be gzipped) or parquet.", metavar="FILE")],
    quarantine: Annotated[
        Path | None,
        typer.Option("--quarantine", help="Write rejected rows here, each with its reason.", metavar="FILE"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any row is rejected.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Count a data file's rows, turns, calls and tools, and say why rows are rejected.

    Example:
      agentft data inspect rows.jsonl --quarantine bad.jsonl --strict
    """
    from agentft.data.inspection import inspect_file

    inspection = inspect_file(file, quarantine)
    if as_json:
        sys.stdout.write(json.dumps(inspection.document(), ensure_ascii=False) + "\n")
    else:
        from rich.console import Console

        from agentft.display.inspection import show_inspection

        Console().print(show_inspection(inspection, file))
    if strict and inspection.accounting.rejected:
        raise typer.Exit(1)
