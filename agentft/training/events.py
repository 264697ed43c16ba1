"""Events of a training run, for the terminal, the log file and tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from agentft.engine.packing import PackingReport
from agentft.rows.preparation import DataReport

__all__ = [
    "DataReady",
    "Event",
    "Finished",
    "Measurement",
    "Note",
    "OnEvent",
    "RankUse",
    "RunResult",
    "Saved",
    "Started",
    "StepDone",
    "TrainingPlan",
    "Waiting",
]


@dataclass(frozen=True, slots=True)
class Note:
    """A message for the user. `warning`: something may be wrong."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that takes more than a second begins. `text`: what it is."""

    text: str


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The packing, and the number of epochs, which `max_steps` may cut, and optimizer steps."""

    steps: int
    epochs: float
    packing: PackingReport


@dataclass(frozen=True, slots=True)
class DataReady:
    """All rows are read, encoded and packed."""

    data: DataReport
    plan: TrainingPlan


@dataclass(frozen=True, slots=True)
class Started:
    """Training starts. `step`: optimizer steps that were finished before (0 for a new run)."""

    folder: Path
    step: int
    steps: int
    trainable: int
    parameters: int
    device: str


@dataclass(frozen=True, slots=True)
class RankUse:
    """One process's peak memory in bytes, and the share of the step in which it waited for the other processes."""

    memory: int
    idle: float


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer step, as written to `metrics.jsonl`.

    `loss`: sum(w * loss) / sum(w) over the step. `tokens`: computed tokens, those that samples share once. `unshared`:
    tokens of the samples one by one. `supervised`: supervised tokens of the samples, whose weights sum to `weight`.
    `seconds`: duration of this step. `memory`: peak bytes of the GPU, or of the process; the most of all processes.
    `ranks`: each process's own figures.
    """

    step: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float
    samples: int
    tokens: int
    unshared: int
    supervised: int
    weight: float
    seconds: float
    memory: int
    ranks: tuple[RankUse, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures that were measured after a step, by name, as written to `metrics.jsonl`. `best`: the best step so far.

    Their names start with `eval_`. `seconds`: what it took.
    """

    step: int
    figures: Mapping[str, float]
    seconds: float
    best: bool = False


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint was saved."""

    path: Path
    step: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a run. `weights`: the folder of the adapter (of the model, for `full`); None if interrupted."""

    folder: Path
    weights: Path | None
    steps: int
    loss: float | None
    interrupted: bool
    data: DataReport
    seconds: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The run ended. `losses`: the loss of every step, in order."""

    result: RunResult
    losses: tuple[float, ...]


Event: TypeAlias = Note | Waiting | DataReady | Started | StepDone | Measurement | Saved | Finished
OnEvent = Callable[[Event], None]
