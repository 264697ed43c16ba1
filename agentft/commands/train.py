"""`agentft train`: tunes a model on conversations with tool calls."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agentft.display.training import TrainingView
    from agentft.runs import RunFolder
    from agentft.training.events import Event, RunResult
    from agentft.training.recipe import Recipe
    from agentft.training.watcher import Scorer

__all__ = ["open_scorer", "run_recipe", "train_command"]


def _print_settings(wanted: bool) -> None:
    if wanted:
        from agentft.display.terminal import say_text
        from agentft.training.recipe import describe_settings

        say_text(describe_settings().rstrip("\n"))
        raise typer.Exit


_PrintSettings = Annotated[
    bool, typer.Option("--settings", callback=_print_settings, is_eager=True, help="Print every setting as a recipe.")
]

_Gpus = Annotated[str | None, typer.Option(metavar="N|all", help="Train on several GPUs of this machine.")]
_Hostfile = Annotated[Path | None, typer.Option(metavar="FILE", help="Train on several machines: `HOST slots=N`.")]
_Deepspeed = Annotated[str | None, typer.Option(help="zero1, zero2, zero3, zero2-offload, zero3-offload or a file.")]
_Detach = Annotated[bool, typer.Option("--detach", help="Train apart from the terminal; see `agentft runs`.")]
_Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", help="A TOML file; settings override it.")
]
_FindLr = Annotated[bool, typer.Option("--find-lr", help="Sweep over learning rates; keep no weights.")]
_EvalData = Annotated[str | None, typer.Option(metavar="FILE", help="Rows for the held-out loss.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit with 1, untrained, if a row is rejected or has a key that is not read.")
]


def train_command(
    context: typer.Context,
    settings: _Settings = None,
    model: Annotated[str | None, typer.Option(help="A folder, a hub id or an embedded name.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="A data file. Repeatable.")] = None,
    method: Annotated[str | None, typer.Option(help="qlora, lora or full.")] = None,
    learn: Annotated[str | None, typer.Option(help="What to supervise: calls, balanced or assistant.")] = None,
    call_format: Annotated[str | None, typer.Option("--format", help="Call format: msagent, hermes or native.")] = None,
    eval_data: _EvalData = None,
    output: Annotated[str | None, typer.Option(help="The run folder. Default: a new one in runs/.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for data order, packs and adapter weights.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="last|PATH", help="Continue an interrupted run.")] = None,
    gpus: _Gpus = None,
    hostfile: _Hostfile = None,
    deepspeed: _Deepspeed = None,
    detach: _Detach = False,
    find_lr: _FindLr = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show rows, tokens and steps; train nothing.")] = False,
    strict: Strict = False,
    _settings: _PrintSettings = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes, only warnings.")] = False,
) -> None:
    """Tune a model on conversations with tool calls.

    Writes a run folder. Ctrl-C finishes the step and saves a checkpoint; `--resume last` continues.

    Example:
      agentft train --data rows.jsonl --learn balanced epochs=2
      agentft train --settings > recipe.toml
    """
    from agentft.display.terminal import say
    from agentft.runs import RunFolder

    if _followed():
        return
    options: dict[str, Any] = {"model": model, "data": data, "method": method, "learn": learn}
    options |= {"format": call_format, "output": output, "seed": seed, "deepspeed": deepspeed, "eval_data": eval_data}
    what = _find(settings or [], options, resume, writes=not find_lr)
    if detach:
        raise typer.Exit(_detach(what, context.obj))
    processes = _launch(gpus, hostfile, context.obj, dry_run, what)
    say(*["loading PyTorch and transformers ..."][quiet:], err=True)
    with _Watch(quiet) as watch:
        if (dry_run or find_lr) and not isinstance(what, RunFolder):
            _preview(what, watch, processes, sweep=find_lr, strict=strict, as_json=as_json)
            return
        result = _train(what, watch, strict)
    _show(result, watch, as_json=as_json, quiet=quiet)


def _find(settings: list[str], options: dict[str, Any], resume: str | None, *, writes: bool) -> Recipe | RunFolder:
    """The recipe of a new run, or the folder of one to go on with.

    Everything that can be refused is refused here, before the heavy libraries are loaded.
    """
    from agentft.runs import check_output, find_run
    from agentft.training.recipe import check_places, read_resolved, read_settings
    from agentft.training.sharding import settle

    if resume is not None:
        found = find_run(resume)
        check_places(read_resolved(found.recipe), f"{found.recipe}: ")
        return found
    recipe = read_settings(settings, options)
    check_places(recipe)
    check_output(recipe.output if writes else "")
    recipe = settle(recipe)
    if recipe.score_suite:
        open_scorer(recipe)
    return recipe


def open_scorer(recipe: Recipe) -> Scorer:
    """What scores the model of this recipe while it trains.

    Raises:
        InputError: a suite or a world cannot be used.
    """
    from agentft.commands.evaluate import choose_cases
    from agentft.evaluation.interim import InterimEvaluation

    tools = ",".join(recipe.score_tools) or None
    return InterimEvaluation(choose_cases(list(recipe.score_suite), tools, recipe.score_cases))


def _preview(recipe: Recipe, watch: _Watch, processes: int, *, sweep: bool, strict: bool, as_json: bool) -> None:
    """What trains nothing that is kept: a dry run, or a sweep over learning rates."""
    if not sweep:
        _dry_run(recipe, watch.view, strict, as_json, processes)
        return
    from agentft.commands.find_lr import sweep_rates

    watch.training = True  # Ctrl-C ends the sweep with what it has
    sweep_rates(recipe, watch, watch.should_stop, as_json=as_json)


def _train(what: Recipe | RunFolder, watch: _Watch, strict: bool) -> RunResult:
    """Start a run from a recipe, or continue one in its folder."""
    from agentft.runs import RunFolder
    from agentft.training import run

    with _peer_errors():
        if isinstance(what, RunFolder):
            return run.resume(what, watch, watch.should_stop, open_scorer=open_scorer)
        return run.train(what, watch, watch.should_stop, strict=strict, open_scorer=open_scorer)


def run_recipe(recipe: Recipe, *, quiet: bool) -> RunResult:
    """Train as `agentft train` does, with the same progress display and Ctrl-C handling; all output goes to stderr.

    Raises:
        typer.Exit: 130 after an interruption; the checkpoint is saved.
    """
    from agentft.training.run import train

    with _Watch(quiet) as watch:
        result = train(recipe, watch, watch.should_stop)
        for line in _result_lines(result, quiet):
            watch.view.say(line)
        _end_if_interrupted(result, watch.view)
    return result


class _Watch:
    """Shows a training run. The first Ctrl-C during training stops it after the current step, any other at once.

    SIGTERM, and SIGHUP where nohup has not switched it off, do what the first Ctrl-C does, however often they come.
    """

    def __init__(self, quiet: bool) -> None:
        from agentft.display.terminal import open_console
        from agentft.display.training import TrainingView

        self.view = TrainingView(open_console(stderr=True), quiet=quiet)
        self.training = False
        self.interrupted = False
        self._run = "last"

    def __enter__(self) -> _Watch:
        from agentft.training.launch import set_handlers

        before = set_handlers(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._handle))
        self._restore: Callable[[], object] = lambda: set_handlers(before)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self.training and kind is KeyboardInterrupt:
            self.view.say(f"stopped; continue from the last checkpoint with: agentft train --resume {self._run}")
        self.view.close()

    def __call__(self, event: Event) -> None:
        """Show an event, and keep track of whether training is in progress."""
        from agentft.training.events import Finished, Started

        if isinstance(event, Started):
            self.training, self._run = True, str(event.folder)
        elif isinstance(event, Finished):
            self.training = False
        self.view(event)

    def should_stop(self) -> bool:
        """Whether the user pressed Ctrl-C."""
        return self.interrupted

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:  # the terminal is gone, and printing to it would fail
            for stream in [one for one in (1, 2) if stat.S_ISCHR(os.fstat(one).st_mode)]:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        if number != signal.SIGINT and self.interrupted:
            return
        if self.interrupted or not self.training:
            raise KeyboardInterrupt
        self.interrupted = True
        # In a thread, because the signal may have interrupted a print.
        Thread(target=self.view.say, args=["finishing this step and saving; Ctrl-C again stops at once"]).start()


def _detach(what: Recipe | RunFolder, arguments: list[str]) -> int:
    from agentft.commands.runs import detach
    from agentft.runs import RunFolder, next_folder

    if isinstance(what, RunFolder):
        return detach(arguments, what)
    folder = next_folder(Path(what.data[0]).name.split(".")[0], what.output)
    return detach(arguments if what.output else [*arguments, "--output", str(folder.path)], folder)


def _launch(
    gpus: str | None, hostfile: Path | None, arguments: list[str], dry_run: bool, what: Recipe | RunFolder
) -> int:
    """Leave the run to a process for each GPU, if several are wanted; a dry run only needs their number."""
    from agentft.display.terminal import json_stream
    from agentft.runs import RunFolder
    from agentft.training import launch

    hosts = launch.read_hosts(hostfile) if hostfile and launch.rank_here() is None else []
    processes = len(hosts) or (1 if launch.rank_here() == 0 else launch.count_processes(gpus))
    if processes > 1 and not dry_run:
        name = str(what.path) if isinstance(what, RunFolder) else what.output or "last"
        raise typer.Exit(launch.launch(processes, arguments, hosts, json_stream(), name))
    return processes


def _followed() -> bool:
    """Take part in a run, if this is one of its other processes: show nothing, and stop with the first one."""
    from agentft.training import launch

    launch.adopt_slurm()
    if not launch.rank_here():
        return False
    from agentft.training.run import follow

    with _Watch(quiet=True) as watch, _peer_errors():
        watch.training = True
        follow(watch.should_stop)
    return True


@contextmanager
def _peer_errors() -> Iterator[None]:
    """If another process of the run fails, leave the message to the one that started all of them."""
    from agentft.training import launch

    try:
        yield
    except launch.PeerLostError:
        if launch.is_launched():
            raise typer.Exit(launch.LOST) from None
        raise


def _dry_run(recipe: Recipe, view: TrainingView, strict: bool, as_json: bool, processes: int) -> None:
    from agentft.display.terminal import say, say_json
    from agentft.display.training import data_lines, plan_lines
    from agentft.training.events import DataReady
    from agentft.training.run import dry_run

    # Its figures go to stdout.
    quiet = lambda event: None if isinstance(event, DataReady) else view(event)  # noqa: E731
    data, plan = dry_run(recipe, quiet, strict=strict, processes=processes)
    if as_json:
        share = {"supervised_share": data.supervised / max(data.tokens, 1)}
        say_json(data.document() | share | asdict(plan))
        return
    say(*data_lines(data), *plan_lines(plan, data), "longest samples:")
    for row, name, tokens in data.longest:
        say(f"  {tokens:,} tokens: row {row}, {name!r}")


def _show(result: RunResult, watch: _Watch, *, as_json: bool, quiet: bool) -> None:
    from agentft.display.terminal import say, say_json

    if as_json:
        rows = result.data.document()
        counts = ("rows", "trained", "rows_without_supervised_tokens", "rejected", "reasons")
        document = {
            "run": str(result.folder),
            "weights": str(result.weights) if result.weights else None,
            "steps": result.steps,
            "loss": result.loss,
            "seconds": round(result.seconds, 1),
            "interrupted": result.interrupted,
            **{name: rows[name] for name in counts if name in rows},
        }
        say_json(document)
    else:
        say(*_result_lines(result, quiet))
        if result.weights:
            watch.view.say(f"next: agentft chat --adapter {result.folder} (or agentft eval SUITE --adapter ...)")
    _end_if_interrupted(result, watch.view)


def _result_lines(result: RunResult, quiet: bool) -> list[str]:
    from agentft.display.training import curve_lines
    from agentft.rows.ledger import UNSUPERVISED
    from agentft.runs import RunFolder
    from agentft.strict import counted

    data, folder = result.data, RunFolder(result.folder)
    untrained = data.ledger.remarks[UNSUPERVISED]
    loss = "" if result.loss is None else f", last loss {result.loss:.3f}"
    return [
        *([] if quiet else curve_lines(folder.read_metrics(), folder.read_measured())),
        f"rows: {data.ledger.rows} = {data.ledger.kept} kept + {data.ledger.rejected} rejected"
        + f", {untrained} of the kept without a supervised token" * bool(untrained),
        f"{counted(result.steps, 'step')} in {result.seconds:.0f} s{loss}",
        str(result.weights or result.folder),
    ]


def _end_if_interrupted(result: RunResult, view: TrainingView) -> None:
    if result.interrupted:
        view.say(f"stopped after step {result.steps}; continue with: agentft train --resume {result.folder}")
        raise typer.Exit(130)
