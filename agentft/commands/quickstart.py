"""`agentft quickstart`: the whole loop once, on the embedded model: data, training, evaluation, table."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from agentft.training.events import RunResult

__all__ = ["quickstart_command"]

MODEL = "smollm2-135m"
DATA = Path("runs/data/quickstart.jsonl")
WORLDS = ("weather", "search", "calculator")
CASES = 63
"""A fixed subset, the same share of every suite and category; `agentft eval` without --limit asks all."""
TOKENS = 88
"""Of one completion: the longest expected call has some 80."""


def quickstart_command(
    output: Annotated[Path | None, typer.Option(help="The run folder. Default: a new one in runs/.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Cases to ask, spread over suites and categories.")] = CASES,
    as_json: Annotated[bool, typer.Option("--json", help="Print the evaluation's summary as one document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Build data, tune SmolLM2-135M on it, and evaluate it before and after, on real tool servers.

    Takes some ten minutes on two cores without a GPU. The run folder holds the data, the adapter and the evaluation.

    Example:
      agentft quickstart
    """
    from rich.console import Console

    from agentft.commands.train import run_recipe
    from agentft.content import content_root
    from agentft.data.build import build
    from agentft.display.pulling import ensure_pulled
    from agentft.toolserver import ToolServer
    from agentft.training.recipe import read_recipe

    began = time.monotonic()
    notes = Console(stderr=True, quiet=quiet)
    shipped = content_root() / "datasets"
    ensure_pulled(MODEL, quiet=quiet)
    notes.rule("1 of 3: training data, by really calling the tools")
    report = build(shipped / "quickstart.toml", DATA, ToolServer)
    notes.print(
        f"{DATA}: {report.rows} rows, {sum(report.tools.values())} calls, {report.quiet_turns} turns without one"
    )
    notes.rule("2 of 3: training")
    settings = {"model": MODEL, "data": [str(DATA)], "output": str(output or "")}
    result = run_recipe(read_recipe(shipped / "quickstart-training.toml", (), settings), quiet=quiet or as_json)
    notes.rule("3 of 3: evaluation, before and after")
    summary = _evaluate(result.folder, limit, notes, quiet)
    _show(summary, result, time.monotonic() - began, as_json)


def _evaluate(run: Path, limit: int, notes: Console, quiet: bool) -> dict[str, Any]:
    from agentft.display.evaluation import evaluation_progress
    from agentft.evaluation.arms import ModelChoice, make_arms
    from agentft.evaluation.plan import make_plan
    from agentft.evaluation.runner import Settings, evaluate
    from agentft.evaluation.suites import select_suites
    from agentft.models import Sampling
    from agentft.toolset import load_toolsets

    toolsets = load_toolsets(WORLDS)
    plan = make_plan(select_suites([], [toolset.name for toolset in toolsets]), toolsets, limit=limit)
    arms, stored = make_arms(plan, ModelChoice(adapter=str(run)), "base")
    for line in plan.describe():
        notes.print(line, markup=False, highlight=False, soft_wrap=True)
    with evaluation_progress(notes, quiet=quiet) as progress:
        settings = Settings(
            run / "eval" / "quickstart",
            Sampling(max_new_tokens=TOKENS),
            batch_size=limit,
            on_arm=progress.on_arm,
            on_case=progress.on_case,
        )
        return dict(evaluate(plan, arms, settings, stored))


def _show(summary: dict[str, Any], result: RunResult, seconds: float, as_json: bool) -> None:
    from rich.console import Console

    from agentft.commands.evaluate import EXIT_CODES
    from agentft.display.evaluation import show_summary

    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        Console().print(show_summary(summary))
        typer.echo(f"{seconds / 60:.1f} minutes in all. Try the model: agentft chat --adapter {result.folder}")
    raise typer.Exit(EXIT_CODES[summary["verdict"]])
