"""A training run from recipe to adapter, and resuming an interrupted run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agentft.engine.packing import Pack, epoch_packs, report_packing
from agentft.errors import InputError
from agentft.files import clear_unfinished, json_of, read_object, write_digests, write_text
from agentft.models.embedded import EMBEDDED, resolve
from agentft.models.opening import base_sample, check_base
from agentft.rows.preparation import DataReport, Encoder, Prepared
from agentft.runs import RunFolder, new_run
from agentft.training.cautions import cautions
from agentft.training.checkpoints import clear_partial, complete_folder, last_intact, set_aside, step_of
from agentft.training.encoder import open_encoder
from agentft.training.events import DataReady, Finished, Note, OnEvent, RunResult, Started, TrainingPlan, Waiting
from agentft.training.heldout import HeldOut, HeldOutLoss, prepare_apart
from agentft.training.loading import count_parameters, expert_notes, load_model
from agentft.training.loop import TrainingLoop
from agentft.training.machine import deterministic, gpus_unused, measure_machine
from agentft.training.monitor import Measure
from agentft.training.ranks import Ranks, join_ranks, needing_peers
from agentft.training.recipe import Recipe, check_places, read_resolved, write_recipe
from agentft.training.resolve import RANDOM_7B, resolve_recipe
from agentft.training.scoring import Scoring, ScoringSource
from agentft.training.sharding import doubts, settle, sharding_of
from agentft.training.state import save_result
from agentft.training.stored import load_samples, save_samples
from agentft.training.trackers import Trackers
from agentft.training.watcher import OpenScorer, Watcher
from agentft.training.zero import check_shards
from agentft.types import Json

__all__ = ["StrictError", "dry_run", "follow", "read_data", "resume", "train"]

Stop = Callable[[], bool]
_EDITABLE = {"model", "data", "eval_data", "output", "score_suite", "score_tools", "deepspeed", "report_to"}
_EDITABLE |= {"save_steps", "keep_checkpoints", "score_cases"}


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
    held: HeldOut | None = None


@needing_peers()
def train(
    recipe: Recipe,
    on_event: OnEvent,
    should_stop: Stop = lambda: False,
    *,
    strict: bool = False,
    open_scorer: OpenScorer | None = None,
) -> RunResult:
    """Train from a recipe in a new run folder. Of several processes, the first calls this, and the others `follow`.

    Args:
        recipe: its `auto` settings are resolved, and the result is written to the run folder.
        on_event: receives every event of the run.
        should_stop: called after each step; True saves a checkpoint and ends the run as interrupted.
        strict: stop before training if a row is rejected.
        open_scorer: makes what scores the model while it trains, if the recipe names a suite.

    Raises:
        InputError: the settings, the data or the model cannot be used.
        MissingError: the model is not on this machine and cannot be downloaded.
        StrictError: see `strict`.
        OSError: the run folder cannot be written.
    """
    check_places(recipe)
    recipe = settle(recipe)
    with new_run(Path(recipe.data[0]).name.split(".")[0], recipe.output) as folder:
        watcher = Watcher(folder, on_event, should_stop, open_scorer)
        ranks = join_ranks()
        job = _prepare(recipe, folder.quarantine, watcher, ranks)
        _announce(job, watcher, strict)
        if open_scorer and not recipe.score_suite:
            watcher(Note("to see while it trains whether calls become right: score_suite=basics, or another suite"))
        _send(job, folder, None)
        model = _load(job, watcher)
        folder.write_json(folder.format, {**job.encoder.rendering.describe(), **_learning(job)})
        folder.write_json(folder.data, _data_document(job))
        write_text(folder.recipe, write_recipe(job.recipe))
        return _fit(job, model, watcher, None)


@needing_peers()
def resume(
    folder: RunFolder, on_event: OnEvent, should_stop: Stop = lambda: False, *, open_scorer: OpenScorer | None = None
) -> RunResult:
    """Continue a run from its last intact checkpoint. On the CPU the final weights are bit-equal.

    Raises:
        InputError: the data have changed since the run started, all checkpoints are damaged, or another process trains
            in this folder.
    """
    with folder.lock():
        return _resume(folder, Watcher(folder, on_event, should_stop, open_scorer))


def _resume(folder: RunFolder, watcher: Watcher) -> RunResult:
    recipe, ranks = read_resolved(folder.recipe), join_ranks()
    _check_origin(folder, recipe, ranks.size)
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
    job = _prepare(recipe, None, watcher, ranks)
    _check_fingerprint(folder, job)
    if checkpoint:
        check_shards(checkpoint, job.ranks.size)
    _announce(job, watcher, False)
    if weights.is_dir():
        watcher.losses = [line["loss"] for line in folder.read_metrics()]
        watcher(Note(f"{folder.path} is already complete"))
        job.ranks.share()
        return _finish(job, watcher, weights, len(watcher.losses), 0.0)
    watcher.losses = [line["loss"] for line in folder.rewind(step_of(checkpoint) if checkpoint else 0)]
    _send(job, folder, checkpoint)
    model = _load(job, watcher)
    return _fit(job, model, watcher, checkpoint)


@needing_peers()
def follow(should_stop: Stop = lambda: False) -> None:
    """Take part in the run of the first process, which prepares the data, shows the progress and writes the folder."""
    ranks = join_ranks()
    order = ranks.share()
    if order is not None:
        (samples, packs), *held = [load_samples(Path(path)) for path in order["samples"]]
        ranks.wait()
        recipe = Recipe(**order["recipe"])
        model = load_model(recipe, resolve(recipe.model))
        checkpoints = RunFolder(Path(order["folder"])).checkpoints
        loop = TrainingLoop(
            model,
            recipe,
            samples,
            packs,
            on_event=lambda _: None,
            should_stop=should_stop,
            checkpoints=checkpoints,
            measures=[
                *([Scoring(recipe.score_steps)] if recipe.score_suite else []),
                *(HeldOutLoss(recipe, one, len(samples), packs) for one in held),
            ],
        )
        with deterministic():
            steps = loop.run(Path(order["checkpoint"]) if order["checkpoint"] else None)
        if steps == loop.steps or loop.monitor.stop:
            loop.weights()
    ranks.leave()


def _send(job: _Job, folder: RunFolder, checkpoint: Path | None) -> None:
    """Tell the other processes what to do, and let them map the samples."""
    if job.ranks.size == 1:
        return
    # Removed like other temporary files after a crash.
    sent = [(folder.path / f".{name}.partial").resolve() for name in ("samples", "held")[: 1 + bool(job.held)]]
    save_samples(job.prepared.samples, job.packs, sent[0])
    if job.held:
        save_samples(job.held.samples, job.held.packs(job.recipe), sent[1])
    order = {"recipe": asdict(job.recipe), "samples": [*map(str, sent)], "folder": str(folder.path.resolve())}
    job.ranks.share({**order, "checkpoint": str(checkpoint.resolve()) if checkpoint else None})
    job.ranks.wait()
    for path in sent:
        path.unlink()


def dry_run(
    recipe: Recipe, on_event: OnEvent, *, strict: bool = False, processes: int = 1
) -> tuple[DataReport, TrainingPlan]:
    """Read, encode and pack the data without training. Nothing is written, and no weights are loaded."""
    check_places(recipe)
    recipe, ranks = settle(recipe), Ranks(size=processes)
    job = _prepare(recipe, None, on_event, ranks)
    _announce(job, on_event, strict)
    return job.prepared.report, job.plan


def read_data(recipe: Recipe) -> Prepared:
    """The recipe's data as samples, with the report about them. `random-7b` uses the tokenizer of the embedded model.

    Raises:
        InputError: there are no data, or no row is kept.
    """
    recipe = replace(recipe, model=next(iter(EMBEDDED))) if recipe.model == RANDOM_7B else recipe
    check_places(recipe)
    return prepare_apart(recipe, open_encoder(recipe))[0]


def _prepare(recipe: Recipe, quarantine: Path | None, on_event: OnEvent, ranks: Ranks) -> _Job:
    on_event(Waiting(f"reading {', '.join(recipe.data)} with the tokenizer of {recipe.model}"))
    # At least one pack a step for each process. A run that goes on keeps its steps, with any number of processes.
    recipe = replace(recipe, batch=max(recipe.batch, ranks.size))
    encoder = open_encoder(recipe)
    prepared, held = prepare_apart(recipe, encoder, quarantine)
    resolved = resolve_recipe(recipe, prepared.samples, measure_machine(), processes=ranks.size)
    rate = () if recipe.lr else (Note(f"lr = {resolved.recipe.lr:g}, chosen by method and model size"),)
    recipe = resolved.recipe
    packs: list[Pack] = []
    for epoch in range(recipe.epochs):
        share = recipe.sharing == "on"
        packs += epoch_packs(prepared.samples, recipe.pack_tokens, recipe.seed, epoch, share=share)
        if epoch == 0:
            packing = report_packing(packs, recipe.pack_tokens)
    epoch_size = len(packs) / recipe.epochs
    if recipe.max_steps:
        packs = packs[: recipe.max_steps * recipe.batch]
    plan = TrainingPlan(steps=-(-len(packs) // recipe.batch), epochs=len(packs) / epoch_size, packing=packing)
    notes = (*rate, *resolved.notes, *_process_notes(recipe, ranks), *(held.notes(recipe) if held else ()))
    return _Job(recipe, resolved.architecture.config, encoder, prepared, packs, plan, notes, ranks, held)


def _process_notes(recipe: Recipe, ranks: Ranks) -> Iterator[Note]:
    size, batch = ranks.size, recipe.batch
    if size == 1 and (unused := gpus_unused()):
        yield Note(f"{unused + 1} GPUs are visible, and this run uses one; --gpus all trains on all of them")
    elif size > 1:
        uneven = f", which cannot be dealt evenly; a multiple of {size} keeps all of them busy" if batch % size else ""
        yield Note(f"{size} processes; each step deals {batch} packs to them{uneven}", warning=bool(uneven))
    if sharding := sharding_of(recipe, size):
        yield from (Note(text, warning=True) for text in doubts(recipe.method, sharding))


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
            f"rows have what is not read ({', '.join(rows.unread)}), and --strict allows none; write it as "
            "docs/formats.md says, or remove it"
        )
    for text in cautions(job.recipe, report):
        on_event(Note(text, warning=True))


def _load(job: _Job, on_event: OnEvent) -> Any:
    on_event(Waiting(f"loading {job.recipe.model}"))
    model = load_model(job.recipe, resolve(job.recipe.model), job.config, job.encoder.tokenizer)
    for text in expert_notes(job.recipe, model) if job.recipe.method != "full" else ():
        on_event(Note(text, warning=True))
    return model


def _fit(job: _Job, model: Any, watcher: Watcher, checkpoint: Path | None) -> RunResult:
    folder, recipe, began = watcher.folder, job.recipe, time.monotonic()
    trainable, parameters = count_parameters(model)
    loop = TrainingLoop(
        model,
        recipe,
        job.prepared.samples,
        job.packs,
        on_event=watcher,
        should_stop=watcher.should_stop,
        checkpoints=folder.checkpoints,
        measures=_measures(job, watcher),
    )
    done = step_of(checkpoint) if checkpoint else 0
    device = loop.device.type if job.ranks.size == 1 else f"{job.ranks.size} x {loop.device.type}"
    with closing(Trackers(recipe, folder, watcher, done)) as watcher.trackers:
        watcher(Started(folder.path, done, job.plan.steps, trainable, parameters, device))
        with deterministic():
            steps = loop.run(checkpoint)
        seconds = time.monotonic() - began
        if steps < job.plan.steps and not loop.monitor.stop:
            return _finish(job, watcher, None, steps, seconds)
        if note := loop.choose_weights(steps):
            watcher(Note(note))
        weights = loop.weights()
        with complete_folder(folder.weights(recipe.method)) as partial:
            save_result(model, partial, weights)
            if recipe.method == "full" or recipe.add_tokens:
                tokenizer: Any = job.encoder.tokenizer
                tokenizer.save_pretrained(str(partial))
            write_digests(partial)
        return _finish(job, watcher, folder.weights(recipe.method), steps, seconds)


def _measures(job: _Job, watcher: Watcher) -> list[Measure]:
    """What is measured between the steps."""
    recipe, tokenizer, thinking = job.recipe, job.encoder.tokenizer, bool(_learning(job)["thinking"])
    measures: list[Measure] = []
    if job.held:
        held = job.held.samples, job.held.packs(recipe)
        measures.append(HeldOutLoss(recipe, held, len(job.prepared.samples), job.packs))
    if not recipe.score_suite:
        return measures
    if watcher.open_scorer is None:
        raise InputError("score_suite needs something that scores: pass `open_scorer`, as `agentft train` does")
    source = ScoringSource(watcher.open_scorer(recipe), recipe, watcher, tokenizer, thinking)
    return [*measures, Scoring(recipe.score_steps, source)]


def _finish(job: _Job, watcher: Watcher, weights: Path | None, steps: int, seconds: float) -> RunResult:
    loss = watcher.losses[-1] if watcher.losses else None
    result = RunResult(watcher.folder.path, weights, steps, loss, weights is None, job.prepared.report, seconds)
    job.ranks.leave()
    watcher.folder.add_log(f"{'interrupted' if result.interrupted else 'finished'} after step {steps}")
    watcher(Finished(result, tuple(watcher.losses)))
    return result


def _learning(job: _Job) -> dict[str, Json]:
    recipe, report = job.recipe, job.prepared.report
    learning: dict[str, Json] = {"learn": recipe.learn, "weights": dict(recipe.weights)}
    learning["thinking"] = report.thoughts_learnt and report.thoughts > 0
    return {**learning, "model": recipe.model, "method": recipe.method, "base_sample": base_sample(recipe.model)}


def _data_document(job: _Job) -> dict[str, Json]:
    report = job.prepared.report
    document: dict[str, Json] = {"files": list(job.recipe.data), **report.document()}
    document.update(asdict(job.plan), settings=_kept_settings(job.recipe))
    return document | ({"eval": job.held.document} if job.held else {})


def _kept_settings(recipe: Recipe) -> dict[str, Json]:
    """The settings with which a run must go on, as JSON: not those that name places, since it can be moved."""
    kept = {key: value for key, value in asdict(recipe).items() if key not in _EDITABLE}
    return dict(json.loads(json.dumps(kept)))


def _check_origin(folder: RunFolder, recipe: Recipe, processes: int) -> None:
    """Check, before the data are read, that a run goes on with the settings and the model that it began with."""
    then, now = read_object(folder.data).get("settings", {}), _kept_settings(recipe)  # an older version's has none
    if changed := [f"{key} (it was {value!r})" for key, value in then.items() if now.get(key) != value]:
        raise InputError(
            f"{folder.recipe}: edited since the run began: {', '.join(changed)}; restore it, or train anew"
        )
    if processes > recipe.batch:
        raise InputError(
            f"{folder.path} was begun with batch = {recipe.batch}, so {processes} processes are too many to continue "
            f"it; give at most {recipe.batch}"
        )
    check_base(folder, recipe.model)


def _check_fingerprint(folder: RunFolder, job: _Job) -> None:
    try:
        known = json_of(folder.data.read_bytes())
        fingerprint, packed = known["fingerprint"], (known["steps"], known["packing"])
        held = known["eval"]["fingerprint"] if job.held else ""
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder.data}: the file is missing or damaged ({error}); start a new run") from None
    rows = f"the rows of {', '.join(job.recipe.data)} (or the tokenizer)"
    changed = rows if fingerprint != job.prepared.report.fingerprint else ""
    if job.held and held != job.held.document["fingerprint"]:
        changed = changed or f"the held-out rows ({job.recipe.eval_data})"
    if changed:
        raise InputError(f"{changed} have changed since {folder.path} began; restore them, or start a new run")
    if packed != (job.plan.steps, asdict(job.plan.packing)):
        raise InputError(f"{folder.path} was packed differently, by another version of agentft; start a new run")
