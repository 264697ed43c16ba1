"""Sends a run's figures to experiment trackers (`report_to`), through accelerate's classes for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from agentft.errors import AgentftError
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

    A tracker that fails later is left out from then on, with a warning to `on_event`; the training goes on.

    Raises:
        AgentftError: a tracker cannot start, for example without a login.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, on_event: OnEvent) -> None:
        check_trackers(recipe.report_to)
        self._on_event = on_event
        self._trackers: dict[str, Any] = {}
        for name in recipe.report_to:
            try:
                tracker = _make(name, folder)
                tracker.start()
                tracker.store_init_configuration(_settings(recipe))
            except Exception as error:
                why = f"{type(error).__name__}: {error}".partition("\n")[0]
                raise AgentftError(f"report_to: {name} cannot start ({why}); set it up, or leave it out") from error
            self._trackers[name] = tracker

    def __call__(self, event: Event) -> None:
        """Pass an event's figures on, and end the trackers with the run."""
        if isinstance(event, StepDone):
            figures = _figures(event)
            self._each(lambda tracker: tracker.log(figures, step=event.step))
        elif isinstance(event, Measurement):
            self._each(lambda tracker: tracker.log(dict(event.figures), step=event.step))
        elif isinstance(event, Finished):
            self._each(lambda tracker: tracker.finish())
            self._trackers = {}

    def _each(self, work: Callable[[Any], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                work(tracker)
            except Exception as error:
                del self._trackers[name]
                why = f"{type(error).__name__}: {error}".partition("\n")[0]
                self._on_event(Note(f"{name} failed and gets no more figures ({why})", warning=True))


def _make(name: str, folder: RunFolder) -> Any:
    """accelerate's tracker, told to keep its files in the run folder, and neither the command's output nor code."""
    from accelerate import PartialState, tracking

    PartialState()  # the trackers ask it whether this is the first process
    kinds: Mapping[str, Any] = tracking.LOGGER_TYPE_TO_CLASS
    kind, run = kinds[name], folder.path.resolve()
    if name == "tensorboard":
        return kind(name, logging_dir=str(run))
    if name == "mlflow":
        return kind(experiment_name=PROJECT, run_name=run.name)
    if name == "wandb":
        quiet = {"console": "off", "disable_git": True, "disable_code": True, "silent": True}
        return kind(PROJECT, name=run.name, dir=str(run), settings=quiet)
    return kind(PROJECT, name=run.name)


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
