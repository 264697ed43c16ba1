"""`agentft plan`: predicts memory and time of a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["plan_command"]


def plan_command(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, as for `train`.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="A folder, a hub id, an embedded name, or `random-7b` (7B, random weights).")
    ] = "smollm2-135m",
    data: Annotated[list[Path] | None, typer.Option(help="Data files, as for training.")] = None,
    method: Annotated[str, typer.Option(help="qlora, lora or full.")] = "qlora",
    length: Annotated[int, typer.Option(min=16, help="Without --data: tokens per row; rows share no prefix.")] = 2_048,
    rows: Annotated[int, typer.Option(min=1, help="Without --data: number of rows.")] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Predict which settings fit common cards, and how much memory and time training takes with them.

    Predicted memory was within 8 % of 20 measured runs on an H100. Speeds on other cards are computed from vendor
    figures, not measured.

    Example:
      agentft plan --model random-7b --length 2048
      agentft plan --data rows.jsonl --method lora
    """
    from agentft.training.planner import Workload, describe_choice
    from agentft.training.recipe import read_recipe
    from agentft.training.resolve import plan_cards
    from agentft.training.run import read_samples

    options: dict[str, Any] = {"model": model, "method": method, "data": [str(path) for path in data or []]}
    recipe = read_recipe(None, settings or [], options)
    even = Workload(rows, recipe.epochs, length, lambda _: rows * length)
    plan = plan_cards(recipe, read_samples(recipe) if data else even)
    for note in plan.notes:
        typer.echo(note.text, err=True)
    work = plan.work
    if as_json:
        found = [{"card": name, "gib": gib, "choice": choice and asdict(choice)} for name, gib, choice in plan.cards]
        typer.echo(json.dumps({"samples": work.samples, "longest": work.longest, "cards": found}))
        return
    typer.echo(f"{model}, {method}: {work.samples:,} rows, the longest of {work.longest:,} tokens; predicted:")
    for name, gib, choice in plan.cards:
        typer.echo(f"  {name:8}  {gib:2} GiB  {describe_choice(choice) if choice else 'does not fit'}")
