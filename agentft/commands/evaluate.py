"""`agentft eval`: evaluates a model on suites, and compares it with a baseline."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agentft.commands.endpoints import choose_endpoint
from agentft.commands.eval_options import EvalOptions, with_options
from agentft.content import split_names
from agentft.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentft.evaluation.arms import ModelChoice
    from agentft.evaluation.plan import Arm, Plan
    from agentft.evaluation.records import Record
    from agentft.evaluation.runner import Settings
    from agentft.evaluation.shots import Shots
    from agentft.evaluation.summary import Gate, Summary
    from agentft.models import Sampling
    from agentft.reports.writing import ResultsWriter

__all__ = ["choose_cases", "eval_command", "report_writer", "run_plan"]

BFCL = "bfcl"
EXIT_CODES = {"none": 0, "pass": 0, "fail": 1, "invalid": 1, "interrupted": 130}


@with_options
def eval_command(context: typer.Context, options: EvalOptions) -> None:
    """Evaluate the tool calls of a model on suites, over HTTP to mock tools, or on the public benchmark BFCL.

    Example:
      agentft eval --tools weather,search --adapter last --baseline base
    """
    from agentft.display.pulling import ensure_pulled
    from agentft.models.embedded import EMBEDDED
    from agentft.runs import find_finished

    if options.adapter:  # what does not exist is refused before the imports
        find_finished(options.adapter)
    if options.model and options.model not in EMBEDDED and not options.endpoint:
        ensure_pulled(options.model)
    report = report_writer(context, **{name: getattr(options, name) for name in ("html", "junit", "markdown", "csv")})
    gates = _gates(options.fail_under or [], options.no_worse_than or [], options.baseline or options.rescore)
    if options.check:
        raise typer.Exit(_check(options))
    if options.rescore:
        raise typer.Exit(_rescore(options.rescore, gates, report, options))
    raise typer.Exit(_run_options(_choose_plan(options), gates, report, options))


def _run_options(plan: Plan, gates: tuple[Gate, ...], report: ResultsWriter, options: EvalOptions) -> int:
    """Run the plan with the options of `eval_command`."""
    from agentft.evaluation.arms import ModelChoice
    from agentft.evaluation.runner import Settings
    from agentft.models import Sampling
    from agentft.models.play import PLAY

    quiet, output, at_once = options.quiet, options.output, options.at_once
    plan = _with_conditions(plan, options)
    server = choose_endpoint(
        options.endpoint, at_once, allow_http=options.allow_http, quiet=quiet, tokenizer=options.tokenizer
    )
    person = None if server or options.model != PLAY else _ask
    choice = ModelChoice(options.model, options.adapter, int(options.bits), options.call_format, server, person)
    sampling = Sampling(**{name: getattr(options, name) for name in ("max_new_tokens", "temperature", "seed")})
    batch_size = server.concurrency if server else at_once or (1 if person else 16)
    settings = Settings(output or Path(), sampling, batch_size, gates, options.max_invalid, options.probabilities)
    return _run_choice(plan, choice, replace(settings, on_results=report), options)


def _run_choice(plan: Plan, choice: ModelChoice, settings: Settings, options: EvalOptions) -> int:
    """Evaluate a model; an empty `settings.output` is a folder named after everything that the results depend on."""
    from agentft.display.pulling import ensure_pulled
    from agentft.display.terminal import say
    from agentft.evaluation.arms import Fairness, make_arms
    from agentft.models.opening import doubt_bits

    quiet, fair = options.quiet, Fairness(options.baseline_format, _shots(options))
    if (doubt := doubt_bits(choice.adapter, choice.bits)) and not quiet:
        say(f"note: {doubt}", err=True)
    if options.baseline == "base" and Path("base").exists() and not quiet:
        say("note: --baseline base is the model without its adapter; the folder of that name is ./base", err=True)
    arms, stored = make_arms(
        plan, choice, options.baseline, lambda name: ensure_pulled(name, quiet=quiet), settings.sampling, fair=fair
    )
    if fair.shots:
        shown = [arm.label for arm in arms if arm.shots]
        plan = replace(plan, notes=(*plan.notes, f"shots in the prompts of {', '.join(shown)}: {fair.shots.condition}"))
    if settings.output == Path():
        settings = replace(settings, output=_folder(choice.adapter, plan, arms, settings.sampling))
    return run_plan(plan, arms, stored, settings, as_json=options.as_json, quiet=quiet or choice.ask is not None)


def _ask(text: str) -> str:
    """Show a prompt to the person who is the model (`--model play`), and read a line."""
    from agentft.display.terminal import say

    say(*text.splitlines(), err=True)
    if line := sys.stdin.readline():
        return line
    raise InputError("the input ended before the last answer; give the same command again to go on from here")


def _shots(options: EvalOptions) -> Shots | None:
    from agentft.evaluation.shots import read_shots
    from agentft.runs import find_finished

    if options.shots is None:
        return None
    paths = options.shots_data or (find_finished(options.adapter).data if options.adapter else ())
    if not paths:
        raise InputError("--shots takes examples from rows, and there are no training data; add --shots-data FILE")
    return read_shots(list(paths), options.shots, options.seed)


def choose_cases(
    suites: list[str], tools: str | None, limit: int | None, trials: int = 1, *, strict: bool = True
) -> Plan:
    """The cases of the named suites, or of every suite that needs only the named tool worlds (comma-separated)."""
    from agentft.evaluation.plan import make_plan
    from agentft.evaluation.suites import load_worlds, select_suites
    from agentft.toolset import load_toolsets

    names = split_names(tools)
    toolsets = load_toolsets(names)
    offered = [tool for toolset in toolsets for tool in toolset.tools]
    chosen = select_suites(suites, [toolset.name for toolset in toolsets], offered)
    if not names:
        toolsets = load_worlds(chosen)
    return make_plan(chosen, toolsets, limit=limit, trials=trials, strict=strict)


def _choose_plan(options: EvalOptions, *, strict: bool = True) -> Plan:
    from agentft.display.pulling import ensure_wheel
    from agentft.evaluation.bfcl import make_bfcl_plan
    from agentft.evaluation.bfcl_data import BFCL_WHEEL, choose_categories

    if BFCL not in (options.suites or []):
        return choose_cases(options.suites or [], options.tools, options.limit, options.trials, strict=strict)
    if options.suites != [BFCL]:
        raise InputError(f"{BFCL} brings its own tools and is evaluated alone; leave out the other suites")
    chosen = choose_categories(options.categories)
    source = options.data or ensure_wheel(BFCL_WHEEL, quiet=options.quiet)
    return make_bfcl_plan(chosen, source, limit=options.limit, trials=options.trials)


def _folder(adapter: str | None, plan: Plan, arms: list[Arm], sampling: Sampling) -> Path:
    """A folder whose name depends on the models, suites and settings, so that the same command resumes."""
    from agentft.evaluation.runner import fingerprint
    from agentft.runs import RUNS, RunFolder, find_finished

    name = "-".join(fingerprint(plan, arm, sampling)[:8] for arm in arms)
    return RunFolder(find_finished(adapter).path).evaluations / name if adapter else RUNS / f"eval-{name}"


def report_writer(context: typer.Context, **exports: Path | None) -> ResultsWriter:
    """Writes report.html, and the exports that the user asked for."""
    from agentft.redaction import redacted_command
    from agentft.reports.writing import Exports

    typed = shlex.join(["agentft", *(context.find_root().obj or ())])
    return Exports(**exports).writer(redacted_command(typed))


def _with_conditions(plan: Plan, options: EvalOptions) -> Plan:
    """The plan with the faults to inject, and with what answers in place of the tools (see `open_source`)."""
    from agentft.toolserver import open_source, read_faults

    schedule = read_faults(options.faults, plan.toolsets) if options.faults else None
    answers = {name: getattr(options, name) for name in ("real", "record", "replay")}
    answers |= {"miss": options.replay_miss, "keep": options.keep_secrets}
    seconds = schedule.client_seconds if schedule else None
    source = plan.source or open_source(plan.toolsets, client_seconds=seconds, **answers)
    return replace(plan, faults=schedule, source=source)


def _check(options: EvalOptions) -> int:
    from agentft.display.terminal import say, say_json
    from agentft.evaluation.checking import check_cases
    from agentft.strict import counted
    from agentft.toolset import stdout_to_stderr

    plan = _choose_plan(options, strict=False)
    with stdout_to_stderr():  # for handlers that print
        flaws = check_cases(plan)
    names = [suite.name for suite in plan.suites]
    if options.as_json:
        say_json({"suites": names, "cases": len(plan.cases), "flaws": [asdict(flaw) for flaw in flaws]})
        return int(bool(flaws))
    for flaw in flaws:
        say(f"{flaw.place}: {flaw.case}: {flaw.problem}; {flaw.remedy}")
    flawed = len({flaw.case for flaw in flaws}) or "none"
    say(f"{counted(len(plan.cases), 'case')} of {', '.join(names)}: {flawed} with flaws")
    return int(bool(flaws))


def _rescore(folder: Path, gates: tuple[Gate, ...], report: ResultsWriter, options: EvalOptions) -> int:
    from agentft.evaluation.rescoring import rescore

    suites, worlds = options.suites or [], split_names(options.tools)
    summary = rescore(folder, gates, options.max_invalid, suites, worlds, on_results=report)
    return _print(summary, as_json=options.as_json)


def _print(summary: Summary, *, as_json: bool) -> int:
    """Print the report, and return the exit code."""
    from agentft.display.evaluation import show_summary
    from agentft.display.terminal import open_console, say_json

    if as_json:
        say_json(summary.document())
    else:
        open_console().print(show_summary(summary))
    return EXIT_CODES[summary.verdict]


def _gates(minimums: list[str], margins: list[str], baseline: object) -> tuple[Gate, ...]:
    from agentft.evaluation.summary import Gate

    gates = [Gate(metric, minimum=share) for metric, share in map(_share, repeat("--fail-under"), minimums)]
    gates += [Gate(metric, margin=share) for metric, share in map(_share, repeat("--no-worse-than"), margins)]
    if margins and not baseline:
        raise InputError("--no-worse-than compares with a baseline; add --baseline base, a run or an evaluation")
    return tuple(gates)


def _share(option: str, text: str) -> tuple[str, float]:
    """The parts of METRIC=X; of `--no-worse-than`, X alone is about exact calls.

    Raises:
        InputError: there is no such metric, or the number is not from 0 to 1.
    """
    from agentft.evaluation.summary import SCORES
    from agentft.strict import nearest

    example = "0.8" if option == "--fail-under" else "0.02"
    metric, _, number = (text if "=" in text or example == "0.8" else f"exact_call={text}").partition("=")
    if metric not in SCORES:
        raise InputError(f"{option} {text}: there is no metric {metric!r}; {nearest(metric, SCORES)}")
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"{option} {text}: {number!r} is not a number from 0 to 1; write {metric}={example}")
    return metric, share


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
    return _print(summary, as_json=as_json)
