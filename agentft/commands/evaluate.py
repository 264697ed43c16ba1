"""`agentft eval`: evaluates a model on suites, and compares it with a baseline."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentft.commands.endpoints import AllowHttp, AtOnce, EndpointUrl, choose_endpoint
from agentft.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentft.evaluation.arms import ModelChoice
    from agentft.evaluation.plan import Arm, Plan
    from agentft.evaluation.records import Record
    from agentft.evaluation.runner import Settings
    from agentft.evaluation.summary import Gate, Summary
    from agentft.models import Sampling
    from agentft.reports.writing import ResultsWriter

__all__ = ["choose_cases", "eval_command", "report_writer", "run_plan"]

BFCL = "bfcl"
EXIT_CODES = {"none": 0, "pass": 0, "fail": 1, "invalid": 1, "interrupted": 130}

_OF_A_RUN = ("model", "adapter", "baseline", "limit", "output")
"""Options that run a model, which --rescore does not."""

Suites = Annotated[
    list[str] | None,
    typer.Argument(help="Suites: shipped names or folders, or `bfcl`. Default: all that need no tools but --tools."),
]
Tools = Annotated[
    str | None,
    typer.Option(help="Tool worlds, or single tools as `world.tool`, comma-separated. Default: those of the suites."),
]
Model = Annotated[
    str | None,
    typer.Option(help="A folder, a hub id or an embedded name; `scripted:FILE`, or `scripted` for the expected calls."),
]
Baseline = Annotated[
    str | None,
    typer.Option(help="Compare with `base` (the model without adapter), a run folder, or an earlier cases.jsonl."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Maximum number of cases, spread over suites and categories.")]
Output = Annotated[Path | None, typer.Option(help="Folder for the results; cases finished there are not run again.")]
FailUnder = Annotated[
    list[str] | None, typer.Option(help="METRIC=X, X from 0 to 1: exit with 1 if the metric is below X.")
]
NoWorse = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[METRIC=]X",
        help="Exit with 1 unless the metric (default: exact_call) is shown, with 95 % confidence, to be less than X "
        "(0 to 1) below the baseline's.",
    ),
]
MaxInvalid = Annotated[
    float, typer.Option(min=0, max=1, help="Exit with 1 if a larger share of one model's cases is invalid.")
]
Rescore = Annotated[
    Path | None,
    typer.Option(help="Grade a stored evaluation folder again, with this version's scorer; no model is run."),
]
Html = Annotated[Path | None, typer.Option("--html", help="Also write report.html to this file.")]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML, a test for each case and gate.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write a summary for a pull request.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write a table with a row for each case and model.")]
Check = Annotated[
    bool,
    typer.Option("--check", help="Run the expected calls only: list unsolvable or ambiguous cases, and exit with 1."),
]
Format = Annotated[
    str | None, typer.Option("--format", help="Call format. Default: the adapter's, or msagent; native at an endpoint.")
]
Faults = Annotated[
    str | None, typer.Option(help="Inject faults: a faults file, or KIND=RATE pairs such as timeout=0.1,429=0.05.")
]
Real = Annotated[str | None, typer.Option(help="URL of a real service to call in place of the mock tools.")]
RecordTo = Annotated[Path | None, typer.Option("--record", help="Record the exchanges with --real in this file.")]
Replay = Annotated[Path | None, typer.Option(help="Answer calls from a file made with --record.")]
ReplayMiss = Annotated[
    str, typer.Option(help="For a call that is not in --replay: `error`, or `mock` to let the mock tool answer.")
]
Categories = Annotated[
    str | None,
    typer.Option(help="For `bfcl`: its categories, comma-separated, or live, non_live. Default: all that run here."),
]
Data = Annotated[Path | None, typer.Option(help="For `bfcl`: the wheel of bfcl-eval, or its folder `data`.")]
KeepSecrets = Annotated[bool, typer.Option("--keep-secrets", help="Keep tokens and passwords in the --record file.")]


def eval_command(
    context: typer.Context,
    suites: Suites = None,
    tools: Tools = None,
    model: Model = None,
    adapter: Annotated[str | None, typer.Option(help="A run folder, or `last` for the run that finished last.")] = None,
    baseline: Baseline = None,
    limit: Limit = None,
    trials: Annotated[int, typer.Option(min=1, help="Runs of each case; more than one needs --temperature.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed for sampling.")] = 0,
    bits: Annotated[int, typer.Option(help="Bits per weight: 4, 8 or 16.")] = 16,
    output: Output = None,
    html: Html = None,
    junit: Junit = None,
    markdown: Markdown = None,
    csv: Csv = None,
    fail_under: FailUnder = None,
    no_worse_than: NoWorse = None,
    max_invalid: MaxInvalid = 0.05,
    rescore: Rescore = None,
    check: Check = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens in one reply.")] = 256,
    at_once: AtOnce = None,
    call_format: Format = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only summary.json on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not show the plan and the progress.")] = False,
    faults: Faults = None,
    real: Real = None,
    record: RecordTo = None,
    replay: Replay = None,
    replay_miss: ReplayMiss = "error",
    keep_secrets: KeepSecrets = False,
    endpoint: EndpointUrl = None,
    allow_http: AllowHttp = False,
    categories: Categories = None,
    data: Data = None,
) -> None:
    """Evaluate the tool calls of a model on suites, over HTTP to mock tools, or on the public benchmark BFCL.

    Example:
      agentft eval --tools weather,search --adapter last --baseline base
    """
    options = locals()
    report = report_writer(context, html=html, junit=junit, markdown=markdown, csv=csv)
    gates = _gates(fail_under or [], no_worse_than or [], baseline or rescore)
    if check or rescore:
        raise typer.Exit(_check(options) if check else _rescore(options["rescore"], gates, report, options))
    plan = _bfcl_plan(options) if BFCL in (suites or []) else choose_cases(suites or [], tools, limit, trials)
    raise typer.Exit(_run_options(plan, gates, report, options))


def _run_options(plan: Plan, gates: tuple[Gate, ...], report: ResultsWriter, options: Mapping[str, Any]) -> int:
    """Run the plan with the options of `eval_command`."""
    from agentft.evaluation.arms import ModelChoice
    from agentft.evaluation.runner import Settings
    from agentft.models import Sampling

    quiet, output, at_once = options["quiet"], options["output"], options["at_once"]
    plan = _with_conditions(plan, options)
    server = choose_endpoint(options["endpoint"], at_once, allow_http=options["allow_http"], quiet=quiet)
    choice = ModelChoice(options["model"], options["adapter"], options["bits"], options["call_format"], server)
    sampling = Sampling(**{name: options[name] for name in ("max_new_tokens", "temperature", "seed")})
    batch_size = server.concurrency if server else at_once or 16
    settings = Settings(output or Path(), sampling, batch_size, gates, options["max_invalid"], on_results=report)
    return _run_choice(plan, choice, options["baseline"], settings, as_json=options["as_json"], quiet=quiet)


def _run_choice(
    plan: Plan, choice: ModelChoice, baseline: str | None, settings: Settings, *, as_json: bool, quiet: bool
) -> int:
    """Evaluate a model; an empty `settings.output` is a folder named after everything that the results depend on."""
    from agentft.display.pulling import ensure_pulled
    from agentft.evaluation.arms import make_arms

    _note_bits(choice.adapter, choice.bits, quiet=quiet)
    arms, stored = make_arms(plan, choice, baseline, lambda name: ensure_pulled(name, quiet=quiet), settings.sampling)
    if settings.output == Path():
        settings = replace(settings, output=_folder(choice.adapter, plan, arms, settings.sampling))
    return run_plan(plan, arms, stored, settings, as_json=as_json, quiet=quiet)


def choose_cases(
    suites: list[str], tools: str | None, limit: int | None, trials: int = 1, *, strict: bool = True
) -> Plan:
    """The cases of the named suites, or of every suite that needs only the named tool worlds (comma-separated)."""
    from agentft.evaluation.plan import make_plan
    from agentft.evaluation.suites import load_worlds, select_suites
    from agentft.toolset import load_toolsets

    names = _split(tools)
    toolsets = load_toolsets(names)
    offered = [tool for toolset in toolsets for tool in toolset.tools]
    chosen = select_suites(suites, [toolset.name for toolset in toolsets], offered)
    if not names:
        toolsets = load_worlds(chosen)
    return make_plan(chosen, toolsets, limit=limit, trials=trials, strict=strict)


def _bfcl_plan(options: Mapping[str, Any]) -> Plan:
    from agentft.display.pulling import ensure_wheel
    from agentft.evaluation.bfcl import make_bfcl_plan
    from agentft.evaluation.bfcl_data import BFCL_WHEEL, choose_categories

    if options["suites"] != [BFCL] or options["tools"]:
        raise InputError(f"{BFCL} brings its own tools and is evaluated alone; leave out the other suites and --tools")
    chosen = choose_categories(options["categories"])
    source = options["data"] or ensure_wheel(BFCL_WHEEL, quiet=options["quiet"])
    return make_bfcl_plan(chosen, source, limit=options["limit"], trials=options["trials"])


def _folder(adapter: str | None, plan: Plan, arms: list[Arm], sampling: Sampling) -> Path:
    """A folder whose name depends on the models, suites and settings, so that the same command resumes."""
    from agentft.evaluation.runner import fingerprint
    from agentft.runs import RUNS, RunFolder, find_finished

    name = "-".join(fingerprint(plan, arm, sampling)[:8] for arm in arms)
    return RunFolder(find_finished(adapter).path).evaluations / name if adapter else RUNS / f"eval-{name}"


def _note_bits(adapter: str | None, bits: int, *, quiet: bool) -> None:
    from agentft.display.terminal import say
    from agentft.models.opening import doubt_bits

    if (doubt := doubt_bits(adapter, bits)) and not quiet:
        say(f"note: {doubt}", err=True)


def report_writer(context: typer.Context, **exports: Path | None) -> ResultsWriter:
    """Writes report.html, and the exports that the user asked for."""
    from agentft.redaction import redacted_command
    from agentft.reports.writing import Exports

    typed = shlex.join(["agentft", *(context.find_root().obj or ())])
    return Exports(**exports).writer(redacted_command(typed))


def _with_conditions(plan: Plan, options: Mapping[str, Any]) -> Plan:
    """The plan with the faults to inject, and with what answers in place of the tools (see `open_source`)."""
    from agentft.toolserver import open_source, read_faults

    if not plan.setups and (options["categories"] or options["data"]):
        raise InputError(f"--categories and --data belong to the suite {BFCL}; write `agentft eval {BFCL} ...`")
    if plan.setups and any(options[name] for name in ("faults", "real", "replay")):
        raise InputError(f"the calls of {BFCL} are checked, not sent; leave out --faults, --real and --replay")
    schedule = read_faults(options["faults"], plan.toolsets) if options["faults"] else None
    answers = {name: options[name] for name in ("real", "record", "replay")}
    answers |= {"miss": options["replay_miss"], "keep": options["keep_secrets"]}
    seconds = schedule.client_seconds if schedule else None
    return replace(plan, faults=schedule, source=open_source(plan.toolsets, client_seconds=seconds, **answers))


def _check(options: Mapping[str, Any]) -> int:
    from agentft.display.terminal import say, say_json
    from agentft.evaluation.checking import check_cases
    from agentft.toolset import stdout_to_stderr

    others = (*_OF_A_RUN, "rescore", "faults", "real", "replay", "endpoint", "fail_under", "no_worse_than")
    if excess := [f"--{name.replace('_', '-')}" for name in others if options[name] is not None]:
        raise InputError(f"--check runs the expected calls and no model; leave out {', '.join(excess)}")
    plan = choose_cases(options["suites"] or [], options["tools"], None, strict=False)
    with stdout_to_stderr():  # for handlers that print
        flaws = check_cases(plan)
    names = [suite.name for suite in plan.suites]
    if options["as_json"]:
        say_json({"suites": names, "cases": len(plan.cases), "flaws": [asdict(flaw) for flaw in flaws]})
        return int(bool(flaws))
    for flaw in flaws:
        say(f"{flaw.place}: {flaw.case}: {flaw.problem}; {flaw.remedy}")
    say(f"{len(plan.cases)} cases of {', '.join(names)}: {len({flaw.case for flaw in flaws}) or 'none'} with flaws")
    return int(bool(flaws))


def _rescore(folder: Path, gates: tuple[Gate, ...], report: ResultsWriter, options: Mapping[str, Any]) -> int:
    from agentft.evaluation.rescoring import rescore

    if excess := [f"--{name}" for name in _OF_A_RUN if options[name] is not None]:
        raise InputError(f"--rescore grades a stored run and runs no model; leave out {', '.join(excess)}")
    suites, worlds = options["suites"] or [], _split(options["tools"])
    summary = rescore(folder, gates, options["max_invalid"], suites, worlds, on_results=report)
    _print(summary, as_json=options["as_json"])
    return EXIT_CODES[summary.verdict]


def _split(tools: str | None) -> list[str]:
    return [name for part in (tools or "").split(",") if (name := part.strip())]


def _print(summary: Summary, *, as_json: bool) -> None:
    from agentft.display.evaluation import show_summary
    from agentft.display.terminal import open_console, say_json

    if as_json:
        say_json(summary.document())
    else:
        open_console().print(show_summary(summary))


def _gates(minimums: list[str], margins: list[str], baseline: object) -> tuple[Gate, ...]:
    gates = (*map(_minimum, minimums), *map(_no_worse, margins))
    if margins and not baseline:
        raise InputError("--no-worse-than compares with a baseline; add --baseline base, a run or a cases.jsonl")
    return gates


def _minimum(text: str) -> Gate:
    from agentft.evaluation.summary import Gate

    metric, _, number = text.partition("=")
    return Gate(metric, minimum=_share("--fail-under", text, metric, number, "0.8"))


def _no_worse(text: str) -> Gate:
    from agentft.evaluation.summary import Gate

    metric, _, number = text.rpartition("=")
    metric = metric or "exact_call"
    return Gate(metric, margin=_share("--no-worse-than", text, metric, number, "0.02"))


def _share(option: str, text: str, metric: str, number: str, example: str) -> float:
    """The number of METRIC=X.

    Raises:
        InputError: there is no such metric, or the number is not from 0 to 1.
    """
    from agentft.evaluation.summary import SCORES
    from agentft.strict import nearest

    if metric not in SCORES:
        raise InputError(f"{option} {text}: there is no metric {metric!r}; {nearest(metric, SCORES)}")
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"{option} {text}: {number!r} is not a number from 0 to 1; write {metric}={example}")
    return share


def run_plan(
    plan: Plan, arms: list[Arm], stored: Mapping[str, list[Record]], settings: Settings, *, as_json: bool, quiet: bool
) -> int:
    """Evaluate, print the report and return the exit code. Plan and progress go to stderr unless `quiet`."""
    from agentft.display.evaluation import EvaluationProgress
    from agentft.display.safe import safe_name
    from agentft.display.terminal import open_console
    from agentft.evaluation.runner import evaluate
    from agentft.toolset import stdout_to_stderr

    notes = open_console(stderr=True, quiet=quiet)
    lines = [*plan.describe(), f"results: {settings.output}"]
    if plan.trials > 1 and settings.sampling.temperature == 0:
        lines.append("note: all trials are the same at temperature 0; set --temperature")
    for line in lines:
        notes.print(safe_name(line), soft_wrap=True)
    with EvaluationProgress(notes) as progress:
        settings = replace(settings, on_arm=progress.on_arm, on_case=progress.on_case, on_note=progress.on_note)
        with stdout_to_stderr():  # for handlers that print
            summary = evaluate(plan, arms, settings, stored)
    _print(summary, as_json=as_json)
    return EXIT_CODES[summary.verdict]
