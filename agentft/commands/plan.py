"""`agentft plan`: memory and time before a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["plan_command"]


def plan_command(
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As for `train`.")] = None,
    model: Annotated[
        str, typer.Option(help="A folder, a hub id, an embedded name, or `random-7b`: a 7B's shape.")
    ] = "smollm2-135m",
    data: Annotated[list[Path] | None, typer.Option(help="Data files, as for training.")] = None,
    method: Annotated[str, typer.Option(help="qlora, lora or full.")] = "qlora",
    length: Annotated[int, typer.Option(min=16, help="Without data: tokens of each row, none shared.")] = 2_048,
    rows: Annotated[int, typer.Option(min=1, help="Without data: how many.")] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say which settings training would take on common cards, and what memory and time they would need.

    Memory was within 8 % of what 20 runs on an H100 took; speeds on other cards are computed from their makers'
    figures and were not measured.

    Example:
      agentft plan --model random-7b --length 2048
      agentft plan --data rows.jsonl --method lora
    """
    from agentft.training.loading import pick_sharing
    from agentft.training.planner import Workload
    from agentft.training.planning import RANDOM_7B, describe, plan_cards, workload_of
    from agentft.training.recipe import read_recipe
    from agentft.training.run import read_samples

    given: dict[str, Any] = {"model": model, "method": method, "data": [str(path) for path in data or []]}
    recipe = read_recipe(None, settings or [], given)
    if model != RANDOM_7B:
        recipe, unshared = pick_sharing(recipe)
        typer.echo(unshared, err=True, nl=bool(unshared))
    even = Workload(rows, recipe.epochs, length, lambda _: rows * length)
    work = workload_of(read_samples(recipe), recipe) if data else even
    cards = plan_cards(recipe, work)
    if as_json:
        found = [{"card": name, "gib": gib, "choice": choice and asdict(choice)} for name, gib, choice in cards]
        typer.echo(json.dumps({"samples": work.samples, "longest": work.longest, "cards": found}))
        return
    typer.echo(f"{model}, {method}: {work.samples:,} rows, the longest of {work.longest:,} tokens; predicted:")
    for name, gib, choice in cards:
        typer.echo(f"  {name:8}  {gib:2} GiB  {describe(choice) if choice else 'does not fit'}")
