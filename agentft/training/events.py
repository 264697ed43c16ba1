"""Events of a run: plain records for the terminal, the log file and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from agentft.engine.packing import PackingReport
from agentft.rows.preparation import DataReport

__all__ = [
    "DataReady",
    "Event",
    "Finished",
    "Note",
    "OnEvent",
    "RunResult",
    "Saved",
    "Started",
    "StepDone",
    "TrainingPlan",
]


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for the user. `warning`: something may be wrong."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How the samples are packed, and how many optimizer steps the run takes."""

    steps: int
    epochs: int
    packing: PackingReport


@dataclass(frozen=True, slots=True)
class DataReady:
    """All rows are read, encoded and packed."""

    data: DataReport
    plan: TrainingPlan


@dataclass(frozen=True, slots=True)
class Started:
    """Training starts. `step`: optimizer steps that an earlier process finished."""

    folder: Path
    step: int
    steps: int
    trainable: int
    parameters: int
    device: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer step; the line of `metrics.jsonl`.

    `loss`: sum(w * ce) / sum(w) over the step. `tokens`: how many were computed. `supervised`: how many targets, whose
    weights sum to `weight`. `seconds`: of this step alone. `memory`: peak bytes of the GPU, or of the process.
    """

    step: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float
    samples: int
    tokens: int
    supervised: int
    weight: float
    seconds: float
    memory: int


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint was saved."""

    path: Path
    step: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. `weights`: the folder of the adapter (or of the model, for `full`); None if interrupted."""

    folder: Path
    weights: Path | None
    steps: int
    loss: float | None
    interrupted: bool
    data: DataReport
    seconds: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The run ended. `losses`: of every step, in order."""

    result: RunResult
    losses: tuple[float, ...]


Event: TypeAlias = Note | DataReady | Started | StepDone | Saved | Finished
OnEvent = Callable[[Event], None]
