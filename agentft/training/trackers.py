"""Sends a run's figures to experiment trackers (`report_to`), through accelerate's classes for them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from importlib import import_module
from typing import Any

from agentft.errors import AgentftError
from agentft.files import read_object
from agentft.redaction import redacted
from agentft.runs import RunFolder
from agentft.training.events import Event, Finished, Measurement, Note, OnEvent, StepDone
from agentft.training.installed import check_trackers
from agentft.training.recipe import Recipe

__all__ = ["PROJECT", "Trackers"]

PROJECT = "agentft"
"""The project, or experiment, in which trackers keep the runs."""


class Trackers:
    """The trackers of a run, which get its settings now, and its figures as events.

    A tracker that fails later is left out from then on, with a warning to `on_event`; the training goes on. A resumed
    run goes on in the trackers' own runs, whose ids are in the run folder; trackio has only names and begins another.

    Raises:
        AgentftError: a tracker cannot start, for example without a login. With steps `done`, it is left out instead.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, on_event: OnEvent, done: int = 0) -> None:
        check_trackers(recipe.report_to)
        os.environ.setdefault("DO_NOT_TRACK", "true")  # MLflow reports its use to its makers
        self._on_event = on_event
        self._trackers: dict[str, Any] = {}
        ids = read_object(folder.trackers)
        for name in recipe.report_to:
            try:
                with redirect_stdout(io.StringIO()):  # trackio prints
                    self._trackers[name] = tracker = _make(name, folder, done, ids.get(name))
                    tracker.start()
                    if name == "trackio" or name not in ids:
                        tracker.store_init_configuration(_settings(recipe))
            except Exception as error:
                if done:  # nothing can be changed any more, and the training is worth more
                    self._trackers.pop(name, None)
                    on_event(Note(f"{name} cannot start and gets no figures ({_why(error)})", warning=True))
                    continue
                self.close()
                raise AgentftError(f"report_to: {name} cannot start ({_why(error)}); set it up, or omit it") from error
            ids[name] = str(tracker.tracker.info.run_id if name == "mlflow" else getattr(tracker.tracker, "id", ""))
            folder.write_json(folder.trackers, ids)

    def __call__(self, event: Event) -> None:
        """Pass an event's figures on, and end the trackers with the run."""
        if isinstance(event, StepDone):
            figures = _figures(event)
            self._each(lambda tracker: tracker.log(figures, step=event.step))
        elif isinstance(event, Measurement):
            self._each(lambda tracker: tracker.log(dict(event.figures), step=event.step))
        elif isinstance(event, Finished):
            self.close("KILLED" if event.result.interrupted else "FINISHED")

    def close(self, status: str = "FAILED") -> None:
        """The run is over; the trackers that are left learn how it ended."""
        with redirect_stdout(io.StringIO()):
            self._each(lambda tracker: _finish(tracker, status))
        self._trackers = {}

    def _each(self, work: Callable[[Any], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                work(tracker)
            except Exception as error:
                del self._trackers[name]
                self._on_event(Note(f"{name} failed and gets no more figures ({_why(error)})", warning=True))


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _make(name: str, folder: RunFolder, done: int, known: str | None) -> Any:
    """accelerate's tracker, told to keep its files in the run folder, and neither the command, its output nor code."""
    from accelerate import PartialState, tracking

    PartialState()  # the trackers ask it whether this is the first process
    kind: Any = tracking.LOGGER_TYPE_TO_CLASS[name]
    run = folder.path.resolve()
    if name == "tensorboard":
        return kind(name, logging_dir=str(run), purge_step=done + 1)
    if name == "mlflow":
        return kind(experiment_name=PROJECT, run_name=run.name, run_id=known)
    if name == "wandb":
        quiet = {"console": "off", "disable_git": True, "disable_code": True, "x_disable_meta": True, "silent": True}
        return kind(PROJECT, name=run.name, dir=str(run), settings=quiet, id=known, resume="allow" if known else None)
    return kind(PROJECT, name=run.name)


def _finish(tracker: Any, status: str) -> None:
    """End a tracker's run, as accelerate does, but with its `status`: FINISHED, KILLED or FAILED, as in MLflow."""
    if tracker.name == "wandb":
        tracker.run.finish(exit_code=int(status != "FINISHED"))
    elif tracker.name == "mlflow":
        import_module("mlflow").end_run(status)
    else:  # of trackio not only the run, which would be finished again, and say so, at the exit
        (import_module("trackio") if tracker.name == "trackio" else tracker).finish()


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe without secrets; lists and tables as JSON, since trackers take only plain values."""
    values: Any = redacted(json.loads(json.dumps(asdict(recipe))))
    return {
        key: value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
        for key, value in values.items()
    }


def _figures(step: StepDone) -> dict[str, float]:
    """What is logged of a step."""
    figures = {name: getattr(step, name) for name in ("loss", "lr", "grad_norm", "epoch")}
    return figures | {"tokens_per_second": step.tokens / max(step.seconds, 1e-9), "memory_gib": step.memory / 2**30}
