"""The first to see a run's events: it writes them to the run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from agentft import __version__
from agentft.models import Model
from agentft.runs import RunFolder
from agentft.training.curves import draw_curves
from agentft.training.events import Event, Finished, Measurement, Note, OnEvent, Saved, Started, StepDone
from agentft.training.recipe import Recipe

__all__ = ["OpenScorer", "Scorer", "Watcher"]

_PAUSE = 30.0
"""Seconds between two pictures of the curves; one takes matplotlib about 0.5 s, and the training waits for it."""


class Scorer(Protocol):
    """Evaluates a model on a suite of `cases` cases; see `agentft.evaluation.interim`."""

    cases: int

    def __call__(self, model: Model, folder: Path, limit: int) -> tuple[Mapping[str, float], Sequence[str]] | None:
        """The figures of at most `limit` cases, and some conversations as text; None if it was interrupted."""


OpenScorer = Callable[[Recipe], Scorer]
"""Makes what scores the model of a recipe while it trains."""


class Watcher:
    """Writes events to the run folder and passes them on, to the trackers too once there are some.

    It also holds what else the caller of a run has given: whether to stop, and what scores the model.
    """

    def __init__(
        self,
        folder: RunFolder,
        on_event: OnEvent,
        should_stop: Callable[[], bool] = lambda: False,
        open_scorer: OpenScorer | None = None,
    ) -> None:
        self.folder = folder
        self.on_event = on_event
        self.should_stop = should_stop
        self.open_scorer = open_scorer
        self.losses: list[float] = []
        self.trackers: OnEvent = lambda _: None
        self._drawn = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, StepDone):
            self.losses.append(event.loss)
            self.folder.add_metrics(asdict(event))
        elif isinstance(event, Measurement):
            self.folder.add_metrics({"step": event.step, **event.figures, "eval_seconds": round(event.seconds, 3)})
        elif isinstance(event, Note):
            self.folder.add_log(event.text)
        elif isinstance(event, Saved):
            self.folder.add_log(f"saved {event.path.name}")
        elif isinstance(event, Started):
            self.folder.add_log(f"agentft {__version__}: steps {event.step} to {event.steps} on {event.device}")
        if isinstance(event, Finished) or (isinstance(event, Saved) and time.monotonic() >= self._drawn + _PAUSE):
            draw_curves(self.folder)
            self._drawn = time.monotonic()
        self.on_event(event)
        self.trackers(event)
