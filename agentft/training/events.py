"""What a run tells whoever watches it: plain records, so that a terminal, a log file and a test all read the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from agentft.engine.packing import PackingReport
from agentft.rows.preparation import DataReport

__all__ = ["DataReady", "Event", "Finished", "Note", "OnEvent", "Plan", "RunResult", "Saved", "Started", "StepDone"]


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for a person. `warning`: it may be a mistake."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How the rows will be trained: packs of an epoch, optimizer steps of the run."""

    steps: int
    epochs: int
    packing: PackingReport


@dataclass(frozen=True, slots=True)
class DataReady:
    """All rows are read, encoded and packed."""

    data: DataReport
    plan: Plan


@dataclass(frozen=True, slots=True)
class Started:
    """Training begins after `step` steps that an earlier process did."""

    folder: Path
    step: int
    steps: int
    trainable: int
    parameters: int
    device: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer step; the line of `metrics.jsonl`.

    `loss`: sum(w * ce) / sum(w) over the step. `tokens`: computed ones; `supervised`: targets, whose weights sum up to
    `weight`. `seconds`: of this step alone. `memory`: peak bytes of the process, or of the GPU.
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
    """A complete checkpoint."""

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
    """The end of a run, with all its losses in order."""

    result: RunResult
    losses: tuple[float, ...]


Event: TypeAlias = Note | DataReady | Started | StepDone | Saved | Finished
OnEvent = Callable[[Event], None]
