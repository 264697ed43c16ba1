"""A training run from recipe to adapter, and resuming an interrupted run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agentft import __version__
from agentft.engine.packing import Pack, epoch_packs, report_packing
from agentft.errors import InputError
from agentft.files import clear_unfinished, write_digests, write_text
from agentft.models.embedded import EMBEDDED, resolve
from agentft.models.tokenizers import load_tokenizer
from agentft.rows.preparation import DataReport, Encoder, Prepared, prepare
from agentft.runs import RunFolder, new_run
from agentft.training.checkpoints import clear_partial, complete_folder, last_intact, set_aside, step_of
from agentft.training.encoder import open_encoder
from agentft.training.events import (
    DataReady,
    Event,
    Finished,
    Note,
    OnEvent,
    RunResult,
    Saved,
    Started,
    StepDone,
    TrainingPlan,
    Waiting,
)
from agentft.training.loading import count_parameters, load_model
from agentft.training.loop import TrainingLoop
from agentft.training.machine import deterministic, gpus_unused, measure_machine
from agentft.training.ranks import Ranks, join_ranks
from agentft.training.recipe import Recipe, check_places, read_resolved, write_recipe
from agentft.training.resolve import RANDOM_7B, resolve_recipe
from agentft.training.state import save_weights
from agentft.training.stored import load_samples, save_samples
from agentft.types import Json

__all__ = ["StrictError", "dry_run", "follow", "read_data", "resume", "train"]

Stop = Callable[[], bool]


class StrictError(InputError):
    """Rows were rejected, and `--strict` was given."""

    exit_code = 1


@dataclass(frozen=True)
class _Job:
    """A resolved recipe, its model's config, and its encoded and packed data."""

    recipe: Recipe
    config: Any
    encoder: Encoder
    prepared: Prepared
    packs: list[Pack]
    plan: TrainingPlan
    notes: tuple[Note, ...]
    ranks: Ranks = field(default_factory=Ranks)


def train(recipe: Recipe, on_event: OnEvent, should_stop: Stop = lambda: False, *, strict: bool = False) -> RunResult:
    """Train from a recipe in a new run folder. Of several processes, the first calls this, and the others `follow`.

    Args:
        recipe: its `auto` settings are resolved, and the result is written to the run folder.
        on_event: receives every event of the run.
        should_stop: called after each step; True saves a checkpoint and ends the run as interrupted.
        strict: stop before training if a row is rejected.

    Raises:
        InputError: the settings, the data or the model cannot be used.
        MissingError: the model is not on this machine and cannot be downloaded.
        StrictError: see `strict`.
        OSError: the run folder cannot be written.
    """
    check_places(recipe)
    with new_run(Path(recipe.data[0]).name.split(".")[0], recipe.output) as folder:
        watcher = _Watcher(folder, on_event)
        ranks = join_ranks()
        job = _prepare(_widen(recipe, ranks), folder.quarantine, watcher, ranks)
        _announce(job, watcher, strict)
        _send(job, folder, None)
        model = _load(job, watcher)
        folder.write_json(folder.format, {**job.encoder.rendering.describe(), **_learning(job)})
        folder.write_json(folder.data, _data_document(job))
        write_text(folder.recipe, write_recipe(job.recipe))
        return _fit(job, model, watcher, should_stop, None)


def resume(folder: RunFolder, on_event: OnEvent, should_stop: Stop = lambda: False) -> RunResult:
    """Continue a run from its last intact checkpoint. On the CPU the final weights are bit-equal.

    Raises:
        InputError: the data have changed since the run started, all checkpoints are damaged, or another process trains
            in this folder.
    """
    with folder.lock():
        return _resume(folder, on_event, should_stop)


def _resume(folder: RunFolder, on_event: OnEvent, should_stop: Stop) -> RunResult:
    recipe = read_resolved(folder.recipe)
    watcher = _Watcher(folder, on_event)
    clear_unfinished(folder.path)
    clear_unfinished(folder.quarantine)
    clear_partial(folder.path)
    clear_partial(folder.checkpoints)
    weights = folder.weights(recipe.method)
    if damage := folder.find_damage():
        aside = set_aside(weights)
        watcher(Note(f"{damage}; it is made again, and the damaged one is kept as {aside.name}", warning=True))
    checkpoint = None
    if not weights.is_dir():
        checkpoint = last_intact(folder.checkpoints, lambda text: watcher(Note(text, warning=True)))
    job = _prepare(recipe, None, watcher, join_ranks())
    _check_fingerprint(folder, job)
    _announce(job, watcher, False)
    if weights.is_dir():
        watcher.losses = [line["loss"] for line in folder.read_metrics()]
        watcher(Note(f"{folder.path} is already complete"))
        job.ranks.share()
        return _finish(job, watcher, weights, job.plan.steps, 0.0)
    watcher.losses = [line["loss"] for line in folder.rewind(step_of(checkpoint) if checkpoint else 0)]
    _send(job, folder, checkpoint)
    model = _load(job, watcher)
    return _fit(job, model, watcher, should_stop, checkpoint)


def follow(should_stop: Stop = lambda: False) -> None:
    """Take part in the run of the first process, which prepares the data, shows the progress and writes the folder."""
    ranks = join_ranks()
    order = ranks.share()
    if order is not None:
        samples, packs = load_samples(Path(order["samples"]))
        ranks.wait()
        recipe = Recipe(**order["recipe"])
        model = load_model(recipe, resolve(recipe.model))
        checkpoints = RunFolder(Path(order["folder"])).checkpoints
        loop = TrainingLoop(
            model, recipe, samples, packs, on_event=lambda _: None, should_stop=should_stop, checkpoints=checkpoints
        )
        with deterministic():
            loop.run(Path(order["checkpoint"]) if order["checkpoint"] else None)
    ranks.leave()


def _send(job: _Job, folder: RunFolder, checkpoint: Path | None) -> None:
    """Tell the other processes what to do, and let them map the samples."""
    if job.ranks.size == 1:
        return
    samples = (folder.path / ".samples.partial").resolve()  # removed like other temporary files after a crash
    save_samples(job.prepared.samples, job.packs, samples)
    order = {"recipe": asdict(job.recipe), "samples": str(samples), "folder": str(folder.path.resolve())}
    job.ranks.share({**order, "checkpoint": str(checkpoint.resolve()) if checkpoint else None})
    job.ranks.wait()
    samples.unlink()


def dry_run(
    recipe: Recipe, on_event: OnEvent, *, strict: bool = False, processes: int = 1
) -> tuple[DataReport, TrainingPlan]:
    """Read, encode and pack the data without training. Nothing is written, and no weights are loaded."""
    check_places(recipe)
    ranks = Ranks(size=processes)
    job = _prepare(_widen(recipe, ranks), None, on_event, ranks)
    _announce(job, on_event, strict)
    return job.prepared.report, job.plan


def read_data(recipe: Recipe) -> Prepared:
    """The recipe's data as samples, with the report about them. `random-7b` uses the tokenizer of the embedded model.

    Raises:
        InputError: no row is kept.
    """
    recipe = replace(recipe, model=next(iter(EMBEDDED))) if recipe.model == RANDOM_7B else recipe
    return prepare([Path(path) for path in recipe.data], open_encoder(recipe))


class _Watcher:
    """Writes events to the run folder and passes them on."""

    def __init__(self, folder: RunFolder, on_event: OnEvent) -> None:
        self.folder = folder
        self.on_event = on_event
        self.losses: list[float] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.losses.append(event.loss)
            self.folder.add_metrics(asdict(event))
        elif isinstance(event, Note):
            self.folder.add_log(event.text)
        elif isinstance(event, Saved):
            self.folder.add_log(f"saved {event.path.name}")
        elif isinstance(event, Started):
            self.folder.add_log(f"agentft {__version__}: steps {event.step} to {event.steps} on {event.device}")
        self.on_event(event)


def _prepare(recipe: Recipe, quarantine: Path | None, on_event: OnEvent, ranks: Ranks) -> _Job:
    on_event(Waiting(f"reading {', '.join(recipe.data)} with the tokenizer of {recipe.model}"))
    encoder = open_encoder(recipe)
    prepared = prepare([Path(path) for path in recipe.data], encoder, quarantine)
    resolved = resolve_recipe(recipe, prepared.samples, measure_machine())
    recipe = resolved.recipe
    packs: list[Pack] = []
    for epoch in range(recipe.epochs):
        share = recipe.sharing == "on"
        packs += epoch_packs(prepared.samples, recipe.pack_tokens, recipe.seed, epoch, share=share)
        if epoch == 0:
            packing = report_packing(packs, recipe.pack_tokens)
    if recipe.max_steps:
        packs = packs[: recipe.max_steps * recipe.batch]
    plan = TrainingPlan(steps=-(-len(packs) // recipe.batch), epochs=recipe.epochs, packing=packing)
    notes = (*resolved.notes, *_process_notes(recipe, ranks))
    return _Job(recipe, resolved.architecture.config, encoder, prepared, packs, plan, notes, ranks)


def _widen(recipe: Recipe, ranks: Ranks) -> Recipe:
    """At least one pack a step for each process. A run that goes on keeps its steps, with any number of processes."""
    return replace(recipe, batch=max(recipe.batch, ranks.size))


def _process_notes(recipe: Recipe, ranks: Ranks) -> Iterator[Note]:
    size, batch = ranks.size, recipe.batch
    if size == 1 and (unused := gpus_unused()):
        yield Note(f"{unused + 1} GPUs are visible, and this run uses one; --gpus all trains on all of them")
    elif size > 1:
        uneven = f", which cannot be dealt evenly; a multiple of {size} keeps all of them busy" if batch % size else ""
        yield Note(f"{size} processes; each step deals {batch} packs to them{uneven}", warning=bool(uneven))


def _announce(job: _Job, on_event: OnEvent, strict: bool) -> None:
    report = job.prepared.report
    on_event(DataReady(report, job.plan))
    for note in job.notes:
        on_event(note)
    rows = report.ledger
    if strict and rows.rejected:
        first = rows.first_places()
        reasons = ", ".join(f"{reason} {count}" for reason, count in rows.reasons.most_common())
        raise StrictError(
            f"{rows.rejected} of {rows.rows} rows were rejected ({reasons}), and --strict allows none; the first: "
            f"{next(iter(first.values()))}. To get them: agentft data inspect FILE --quarantine REJECTED.jsonl"
        )
    if strict and rows.unread:
        raise StrictError(
            f"keys of rows that are not read ({', '.join(rows.unread)}), and --strict allows none; rename or "
            "remove them (docs/formats.md lists the keys)"
        )
    for text in _warnings(job.recipe, report):
        on_event(Note(text, warning=True))


def _warnings(recipe: Recipe, report: DataReport) -> Iterator[str]:
    """What a user should know about the rows before they are trained on."""
    if report.trimmed:
        rows = "1 row is" if report.trimmed == 1 else f"{report.trimmed} rows are"
        yield (
            f"{rows} longer than max_length = {recipe.max_length}: the last turns, with {report.left_out} supervised "
            "tokens, were cut off"
        )
    if report.control_texts:
        counted = ", ".join(
            f"{text} in {count} row{'s' if count > 1 else ''}" for text, count in report.control_texts.most_common(3)
        )
        yield (
            f"turns contain the text of control tokens ({counted}); it is tokenised as plain text, and removed from "
            "the end of an answer"
        )
    if report.thoughts and not report.thoughts_learnt:
        counted = "1 thought is" if report.thoughts == 1 else f"{report.thoughts} thoughts are"
        yield (f"{counted} left out, since learn = {recipe.learn!r} does not supervise them; --learn assistant does")
    if report.quiet and not report.quiet_learnt:
        turns = "1 turn correctly makes" if report.quiet == 1 else f"{report.quiet} turns correctly make"
        yield (
            f"{turns} no call, and learn = {recipe.learn!r} does not supervise such turns, so the model may call tools "
            "where it should not; --learn balanced supervises them"
        )
    if report.answered and not report.quiet_learnt:
        turns = "1 turn answers" if report.answered == 1 else f"{report.answered} turns answer"
        yield (
            f"{turns} after a tool's result, and learn = {recipe.learn!r} does not supervise them: the model will call "
            "its tools again and again instead of answering; use --learn balanced"
        )


def _load(job: _Job, on_event: OnEvent) -> Any:
    on_event(Waiting(f"loading {job.recipe.model}"))
    return load_model(job.recipe, resolve(job.recipe.model), job.config)


def _fit(job: _Job, model: Any, watcher: _Watcher, should_stop: Stop, checkpoint: Path | None) -> RunResult:
    folder, recipe, began = watcher.folder, job.recipe, time.monotonic()
    trainable, parameters = count_parameters(model)
    loop = TrainingLoop(
        model,
        recipe,
        job.prepared.samples,
        job.packs,
        on_event=watcher,
        should_stop=should_stop,
        checkpoints=folder.checkpoints,
    )
    done = step_of(checkpoint) if checkpoint else 0
    device = loop.device.type if job.ranks.size == 1 else f"{job.ranks.size} x {loop.device.type}"
    watcher(Started(folder.path, done, job.plan.steps, trainable, parameters, device))
    with deterministic():
        steps = loop.run(checkpoint)
    seconds = time.monotonic() - began
    if steps < job.plan.steps:
        return _finish(job, watcher, None, steps, seconds)
    with complete_folder(folder.weights(recipe.method)) as partial:
        save_weights(model, partial)
        if recipe.method == "full":
            load_tokenizer(recipe.model).save_pretrained(str(partial))
        write_digests(partial)
    return _finish(job, watcher, folder.weights(recipe.method), steps, seconds)


def _finish(job: _Job, watcher: _Watcher, weights: Path | None, steps: int, seconds: float) -> RunResult:
    losses = watcher.losses
    result = RunResult(
        folder=watcher.folder.path,
        weights=weights,
        steps=steps,
        loss=losses[-1] if losses else None,
        interrupted=weights is None,
        data=job.prepared.report,
        seconds=seconds,
    )
    job.ranks.leave()
    watcher.folder.add_log(f"{'interrupted' if result.interrupted else 'finished'} after step {steps}")
    watcher(Finished(result, tuple(losses)))
    return result


def _learning(job: _Job) -> dict[str, Json]:
    recipe, report = job.recipe, job.prepared.report
    learning: dict[str, Json] = {"learn": recipe.learn, "weights": dict(recipe.weights)}
    learning["thinking"] = report.thoughts_learnt and report.thoughts > 0
    return {**learning, "model": recipe.model, "method": recipe.method}


def _data_document(job: _Job) -> dict[str, Json]:
    report = job.prepared.report
    document: dict[str, Json] = {"files": list(job.recipe.data), **report.document()}
    document.update(asdict(job.plan))
    return document


def _check_fingerprint(folder: RunFolder, job: _Job) -> None:
    try:
        known = json.loads(folder.data.read_text(encoding="utf-8"))
        fingerprint, packed = known["fingerprint"], (known["steps"], known["packing"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder.data}: the file is missing or damaged ({error}); start a new run") from None
    if fingerprint != job.prepared.report.fingerprint:
        raise InputError(
            f"the rows of {', '.join(job.recipe.data)} (or the tokenizer) have changed since {folder.path} began; "
            "restore them, or start a new run"
        )
    if packed != (job.plan.steps, asdict(job.plan.packing)):
        raise InputError(f"{folder.path} was packed differently, by another version of agentft; start a new run")
