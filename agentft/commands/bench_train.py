"""`agentft bench train`: how fast training is here."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

__all__ = ["bench_train_command"]


def bench_train_command(
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As for `train`.")] = None,
    model: Annotated[
        str, typer.Option(help="A folder, a hub id, an embedded name, or `random-7b`: that shape, on a GPU.")
    ] = "smollm2-135m",
    method: Annotated[str, typer.Option(help="qlora, lora or full.")] = "lora",
    shape: Annotated[list[str] | None, typer.Option(help="agent930, agent930-unique, agent730 or long4k.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Measured steps, after a few to warm up.")] = 5,
    memory: Annotated[float | None, typer.Option(help="GiB of the card to keep to. Default: all that is free.")] = None,
    plain: Annotated[bool, typer.Option(help="Also train the usual way, with transformers and peft alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure training on samples of known shapes, beside the machine's limit.

    agent930 is 600 tokens that all samples share, 40 of the user, 60 learnt, and 230 after them; in agent930-unique
    nothing is shared; agent730 shares 400; long4k is 4,096 tokens of which a tenth is learnt.

    Example:
      agentft bench train --shape agent730 --plain pack_tokens=1536
      agentft bench train --model random-7b --method qlora --shape agent930 --memory 24
    """
    from rich.console import Console

    from agentft.display.bench import bench_table
    from agentft.training.bench import Measured, bench_plain, bench_train, limit, plan_bench
    from agentft.training.loading import pick_dtype
    from agentft.training.recipe import read_recipe

    given: dict[str, Any] = {"model": model, "method": method}
    recipe = read_recipe(None, settings or [], given)
    recipe = read_recipe(None, settings or [], given | {"dtype": pick_dtype(recipe), "lr": recipe.lr or 1e-4})
    rows: list[tuple[Measured, float]] = []
    for name in shape or ["agent930"]:
        planned, chosen = plan_bench(recipe, name, memory)
        if chosen:
            typer.echo(f"{name}: {chosen}", err=True)
        found = bench_train(planned, name, steps)
        most = limit(recipe, name, found.samples)
        rows.append((found, found.samples_per_second / most))
        if plain:
            usual = bench_plain(recipe, name, max(1, steps // 2))
            rows.append((usual, usual.samples_per_second / most))
    if as_json:
        typer.echo(json.dumps([asdict(row) | {"share_of_limit": share} for row, share in rows]))
    else:
        Console().print(bench_table(rows))
