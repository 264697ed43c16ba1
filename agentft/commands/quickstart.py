"""`agentft quickstart`: builds data, trains the embedded model and evaluates it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["quickstart_command"]

MODEL = "smollm2-135m"
DATA = Path("runs/data/quickstart.jsonl")
SUITE = "basics"
TOOLS = "weather.current_weather,search.web_search,calculator.calculate"
TOKENS = 88
"""Token limit of one reply; the longest expected call has about 80 tokens."""


def quickstart_command(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option(help="The run folder. Default: a new one in runs/.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of cases.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Build data for three tools, tune SmolLM2-135M on them, and evaluate it before and after.

    Takes 7 to 22 minutes on two CPU cores. The data go to runs/data/, the
    adapter and the evaluation to the run folder.

    Example:
      agentft quickstart
    """
    from agentft.commands.evaluate import choose_cases, report_writer, run_plan
    from agentft.commands.train import run_recipe
    from agentft.content import content_root
    from agentft.display.pulling import ensure_pulled
    from agentft.display.terminal import open_console, say
    from agentft.evaluation.arms import ModelChoice, make_arms
    from agentft.evaluation.runner import Settings
    from agentft.models import Sampling
    from agentft.synthesis.build import build
    from agentft.toolserver import ToolServer
    from agentft.training.recipe import read_recipe

    began = time.monotonic()
    notes = open_console(stderr=True, quiet=quiet)
    shipped = content_root() / "datasets"
    ensure_pulled(MODEL, quiet=quiet)
    notes.rule("1 of 3: training data, by calling the tools")
    report = build(shipped / "quickstart.toml", DATA, ToolServer)
    notes.print(f"{DATA}: {report.rows} rows, {sum(report.tools.values())} calls, {report.quiet_turns} without a call")
    notes.rule("2 of 3: training")
    options = {"model": MODEL, "data": [str(DATA)], "output": str(output or "")}
    result = run_recipe(read_recipe(shipped / "quickstart-training.toml", (), options), quiet=quiet or as_json)
    notes.rule("3 of 3: evaluation, before and after")
    plan = choose_cases([SUITE], TOOLS, limit)
    arms, stored = make_arms(plan, ModelChoice(adapter=str(result.folder)), "base")
    where, sampling = result.folder / "eval" / "quickstart", Sampling(max_new_tokens=TOKENS)
    settings = Settings(where, sampling, batch_size=len(plan.cases), on_results=report_writer(context))
    code = run_plan(plan, arms, stored, settings, as_json=as_json, quiet=quiet)
    if not as_json:
        say(f"{(time.monotonic() - began) / 60:.1f} minutes in total. Try the model:")
        say(f"  agentft chat --adapter {result.folder}")
    raise typer.Exit(code)
