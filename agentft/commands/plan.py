"""`agentft plan`: predicts memory and time of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentft.errors import InputError

if TYPE_CHECKING:
    from agentft.rows.preparation import DataReport
    from agentft.training.resolve import CardPlan

__all__ = ["plan_command"]

_COUNTS = frozenset(["rows", "trained", "rows_without_supervised_tokens", "rejected", "reasons"])
_COUNTS |= {"tokens", "supervised", "trimmed", "left_out"}


def plan_command(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", help="Settings, as for `train`.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A folder, a hub id, an embedded name, or `random-7b` (7B, random weights).")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="A data file, as for training. Repeatable.")] = None,
    method: Annotated[str | None, typer.Option(help="qlora, lora or full.")] = None,
    length: Annotated[int, typer.Option(min=16, help="Without --data: tokens per row; rows share no prefix.")] = 2_048,
    rows: Annotated[int, typer.Option(min=1, help="Without --data: number of rows.")] = 10_000,
    gpus: Annotated[int, typer.Option(min=1, help="Plan for this many cards of a machine.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Predict which settings fit common cards, and how much memory and time training takes with them.

    On an H100, memory was within 10 % of 61 measured steps, and time within 15 %, or 30 % where the plan
    says so. Other cards' speeds come from vendors' figures. Without --data, a quarter of the tokens is supervised.

    Example:
      agentft plan --model random-7b --length 2048
      agentft plan --data rows.jsonl --method lora
      agentft plan --model random-7b --method full --gpus 4
    """
    from agentft.display.pulling import ensure_pulled
    from agentft.display.terminal import say, say_json
    from agentft.training.recipe import check_places, read_settings
    from agentft.training.sharding import settle

    recipe = settle(read_settings(settings or [], {"model": model, "method": method, "data": data}))
    if recipe.data and (length, rows) != (2_048, 10_000):
        raise InputError("--length and --rows describe rows that are not there yet; omit them, or the data")
    if recipe.data:
        check_places(recipe)  # before the imports
    ensure_pulled(recipe.model)
    from agentft.display.training import data_lines
    from agentft.training.resolve import plan_cards
    from agentft.training.run import read_data
    from agentft.training.workload import even_workload

    read = read_data(recipe) if recipe.data else None
    plan = plan_cards(recipe, read.samples if read else even_workload(rows, recipe.epochs, length), gpus)
    say(*(note.text for note in plan.notes), err=True)
    if as_json:
        say_json(_document(plan, read.report if read else None))
        return
    rows_read = f"{plan.work.samples:,} {'samples' if read else 'rows'}"
    say(f"{recipe.model}, {recipe.method}: {rows_read}, the longest of {plan.work.longest:,} tokens; predicted:")
    say(*_machine_lines(plan, gpus), *(data_lines(read.report) if read else ()))


def _machine_lines(plan: CardPlan, gpus: int) -> Iterator[str]:
    from agentft.training.planner import Choice, describe_choice, describe_duration

    text = describe_choice(plan.here) if isinstance(plan.here, Choice) else "does not fit"
    if isinstance(plan.here, float):
        text = f"roughly {describe_duration(plan.here)} in all on its CPU; memory on a CPU is not predicted"
    yield f"  this machine      {text}"
    for name, gib, choice in plan.cards:
        yield f"  {name:8}  {gib:2} GiB  {describe_choice(choice) if choice else 'does not fit'}"
        if way := plan.ways.get(name):
            yield f"    {gpus} of them: {way.describe() if choice else 'no way fits'}"


def _document(plan: CardPlan, data: DataReport | None) -> dict[str, Any]:
    here: dict[str, Any] = {"cpu_seconds": plan.here}
    if not isinstance(plan.here, float):
        here = {"choice": plan.here and asdict(plan.here)}
    cards = [{"card": name, "gib": gib, "choice": choice and asdict(choice)} for name, gib, choice in plan.cards]
    if plan.ways:
        cards = [{**card, "deepspeed": plan.ways[str(card["card"])].form} for card in cards]
    counts = {key: value for key, value in data.document().items() if key in _COUNTS} if data else {}
    return {**counts, "samples": plan.work.samples, "longest": plan.work.longest, "this_machine": here, "cards": cards}
