"""`agentft data build`: make training rows, or a suite's cases, from a recipe."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentft.content import find_content
from agentft.errors import InputError

if TYPE_CHECKING:
    from agentft.data.build import BuildReport

__all__ = ["build_command"]


def build_command(
    recipe: Annotated[str, typer.Argument(help="A recipe (TOML), or the name of a shipped one: quickstart.")],
    output: Annotated[Path | None, typer.Option(help="The file to write. Default: the recipe's name, here.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's seed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")] = False,
) -> None:
    """Build the data that a recipe describes; results come from really calling the tool worlds.

    Example: agentft data build datasets/quickstart.toml
    """
    from agentft.data.build import build
    from agentft.toolserver import ToolServer

    path = _find_recipe(recipe)
    report = build(path, output or Path(f"{path.stem}.jsonl"), ToolServer, seed=seed)
    typer.echo(json.dumps(dataclasses.asdict(report), ensure_ascii=False) if as_json else _summary(report))


def _find_recipe(name: str) -> Path:
    candidates = (find_content("datasets", file) for file in (name, f"{name}.toml"))
    for found in candidates:
        if found is not None and found.is_file():
            return found
    raise InputError(f"there is no recipe {name!r}; give the path of a TOML file, or `quickstart`")


def _summary(report: BuildReport) -> str:
    unit = "rows" if report.form == "rows" else "cases"
    counts = (("category", report.categories), ("language", report.languages), ("tool calls", report.tools))
    lines = [f"{report.output}: {report.rows} {unit}, {report.turns} user turns, {report.quiet_turns} without a call"]
    lines += [f"  {title}: " + ", ".join(f"{k} {n}" for k, n in table.items()) for title, table in counts]
    return "\n".join([*lines, f"  seed {report.seed}, sha256 {report.sha256}"])
