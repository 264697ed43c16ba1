"""The options of `agentft eval`, a field each, which `commands/evaluate.py` reads."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from agentft.commands.endpoints import AllowHttp, AtOnce, EndpointUrl, PromptTokenizer

__all__ = ["EvalOptions", "Faults", "KeepSecrets", "Real", "RecordTo", "Replay", "ReplayMiss", "with_options"]

Faults = Annotated[str | None, typer.Option(help="A faults file, or KIND=RATE pairs such as timeout=0.1,429=0.05.")]
Real = Annotated[str | None, typer.Option(help="URL of a real service to call in place of the mock tools.")]
RecordTo = Annotated[Path | None, typer.Option("--record", help="Record the exchanges with --real in this file.")]
Replay = Annotated[Path | None, typer.Option(help="Answer calls from a file made with --record.")]
ReplayMiss = Annotated[str, typer.Option(help="A call not in --replay: `error`, or `mock`: the mock tool answers.")]
KeepSecrets = Annotated[bool, typer.Option("--keep-secrets", help="Keep tokens and passwords in the --record file.")]


@dataclass(frozen=True)
class EvalOptions:
    """What the user typed after `agentft eval`."""

    suites: Annotated[
        list[str] | None,
        typer.Argument(
            help="Suites: shipped names or folders, or `bfcl`. Default: all that need no tools but --tools."
        ),
    ] = None
    tools: Annotated[
        str | None,
        typer.Option(
            help="Tool worlds, or single tools as `world.tool`, comma-separated. Default: those of the suites."
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            help="A folder, a hub id or an embedded name; `scripted:FILE`; `scripted` for the expected calls; or "
            "`play`, where you answer."
        ),
    ] = None
    adapter: Annotated[str | None, typer.Option(help="A run folder, or `last` for the run that finished last.")] = None
    baseline: Annotated[
        str | None,
        typer.Option(help="Compare with `base` (the model without adapter), a run folder, or an earlier evaluation."),
    ] = None
    baseline_format: Annotated[
        str | None,
        typer.Option(help="Call format of --baseline base: native, hermes or msagent. Default: the adapter's."),
    ] = None
    shots: Annotated[
        int | None,
        typer.Option(min=1, help="Examples from the training data in the prompts of `base`, or of --model alone."),
    ] = None
    shots_data: Annotated[
        list[Path] | None, typer.Option(help="Where --shots come from. Default: the training data of --adapter.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="At most N cases, spread over suites and categories.")] = None
    trials: Annotated[int, typer.Option(min=1, help="Runs of each case; more than one needs --temperature.")] = 1
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0
    seed: Annotated[int, typer.Option(help="Seed for sampling.")] = 0
    bits: Annotated[Literal["4", "8", "16", "32"], typer.Option(help="Bits per weight in memory.")] = "16"
    output: Annotated[Path | None, typer.Option(help="Results folder; cases finished there are not run again.")] = None
    html: Annotated[Path | None, typer.Option("--html", help="Also write report.html to this file.")] = None
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML: a test per case and gate.")] = None
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write a summary for a pull request.")] = None
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a table with a row for each case and model.")] = None
    fail_under: Annotated[
        list[str] | None, typer.Option(help="METRIC=X, X from 0 to 1: exit with 1 if the metric is below X.")
    ] = None
    no_worse_than: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[METRIC=]X",
            help="Exit with 1 unless the metric (default: exact_call) is shown, with 95 % confidence, to be less than "
            "X (0 to 1) below the baseline's.",
        ),
    ] = None
    max_invalid: Annotated[
        float, typer.Option(min=0, max=1, help="Exit with 1 if a larger share of one model's cases is invalid.")
    ] = 0.05
    rescore: Annotated[
        Path | None,
        typer.Option(help="Grade a stored evaluation folder again, with this version's scorer; no model is run."),
    ] = None
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Run the expected calls only: list unsolvable or ambiguous cases, and exit with 1."
        ),
    ] = False
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Also store the probability of each call; needs models on this machine."),
    ] = False
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens in one reply.")] = 256
    at_once: AtOnce = None
    call_format: Annotated[
        str | None,
        typer.Option("--format", help="Call format. Default: the adapter's, or msagent; native at an endpoint."),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print only summary.json on stdout.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show the plan and the progress.")] = False
    faults: Faults = None
    real: Real = None
    record: RecordTo = None
    replay: Replay = None
    replay_miss: ReplayMiss = "error"
    keep_secrets: KeepSecrets = False
    endpoint: EndpointUrl = None
    tokenizer: PromptTokenizer = None
    allow_http: AllowHttp = False
    categories: Annotated[
        str | None,
        typer.Option(help="For `bfcl`: its categories, comma-separated, or simple, live, non_live. Default: all."),
    ] = None
    data: Annotated[Path | None, typer.Option(help="For `bfcl`: the wheel of bfcl-eval, or its folder `data`.")] = None


def with_options(function: Callable[[typer.Context, EvalOptions], None]) -> Callable[..., None]:
    """A command for typer whose parameters are the fields of `EvalOptions`."""

    @functools.wraps(function)
    def command(context: typer.Context, **options: Any) -> None:
        function(context, EvalOptions(**options))

    hints, kind = get_type_hints(EvalOptions, include_extras=True), inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(field.name, kind, default=field.default, annotation=hints[field.name])
        for field in fields(EvalOptions)
    ]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    vars(command)["__signature__"] = inspect.Signature([context, *options])
    return command
