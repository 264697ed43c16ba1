"""The monitor: which step is the best, when to stop early, and what a resumed run remembers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from agentft.errors import InputError
from agentft.runs import RunFolder
from agentft.training.events import Event, Measurement, Saved
from agentft.training.loop import TrainingLoop
from agentft.training.monitor import Monitor
from agentft.training.recipe import Recipe
from tests.engine.samples import alone
from tests.training.test_loop import SAMPLES, loop_of, weights


@dataclass
class Given:
    """A measure that gives the figures of a list, one after each step."""

    values: list[float]
    asked: list[int] = field(default_factory=list)

    def due(self, step: int, steps: int) -> bool:
        del steps
        return step <= len(self.values)

    def __call__(self, loop: Any, step: int) -> Mapping[str, float]:
        del loop
        self.asked.append(step)
        return {"eval_loss": self.values[step - 1], "eval_other": -float(step)}


def trained(folder: Path, values: list[float], **settings: Any) -> tuple[TrainingLoop, int, list[Event]]:
    events: list[Event] = []
    loop = loop_of(folder, alone(SAMPLES), events=events, measures=[Given(values)], **settings)
    return loop, loop.run(), events


def test_the_lowest_loss_is_the_best() -> None:
    monitor = Monitor(Recipe(best="loss", eval_data="0.1"))
    assert [monitor("eval_loss", value, step) for step, value in enumerate([math.nan, 3, 2, 2, 1], 1)] == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert not monitor("eval_other", 0.0, 6)
    assert (monitor.best_step, monitor.best_value) == (5, 1)


def test_patience_counts_measurements_since_the_best_one() -> None:
    monitor, patient, never = (Monitor(Recipe(patience=count, eval_data="0.1")) for count in (1, 2, 0))
    stops = []
    for step, value in enumerate([2.0, 2.0, 1.0, 1.5, 1.0], 1):
        for one in (monitor, patient, never):
            one("eval_loss", value, step)
        stops.append((monitor.stop, patient.stop, never.stop))
    assert stops == [
        (False, False, False),
        (True, False, False),
        (False, False, False),
        (True, False, False),
        (True, True, False),
    ]
    assert not monitor.keep


def test_a_run_stops_early_and_says_so(tmp_path: Path) -> None:
    loop, steps, events = trained(tmp_path, [2.0, 2.5, 2.25], patience=2, eval_data="0.1")

    assert steps == 3
    assert [(event.step, event.best) for event in events if isinstance(event, Measurement)] == [
        (1, True),
        (2, False),
        (3, False),
    ]
    assert [event.step for event in events if isinstance(event, Saved)] == [3], "the best one is not asked for"
    assert loop.choose_weights(steps) == (
        "stopped early after step 3: eval_loss was 2.0000 after step 1, and no better since"
    )


def test_the_result_has_the_weights_of_the_best_step(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"best": "loss", "eval_data": "0.1", "keep_checkpoints": 1, "save_steps": 1}
    loop, steps, events = trained(tmp_path, [3.0, 4.0, 5.0, 6.0], schedule="constant", **settings)

    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["checkpoint-1", "checkpoint-4"], "the best one outlives later ones"
    assert loop.choose_weights(steps) == "the result has the weights of step 1, the best by eval_loss (3.0000)"
    assert [event.step for event in events if isinstance(event, Saved)] == [1, 2, 3, 4]
    first = loop_of(tmp_path / "first", alone(SAMPLES)[:1], schedule="constant")
    first.run()
    for name, value in weights(first).items():
        assert torch.equal(weights(loop)[name], value)


def test_a_damaged_best_checkpoint_is_an_error(tmp_path: Path) -> None:
    loop, steps, _ = trained(tmp_path, [3.0, 4.0], best="loss", eval_data="0.1")
    (tmp_path / "checkpoints" / "checkpoint-1" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="which has the weights of the best step"):
        loop.choose_weights(steps)


def test_without_a_measurement_the_last_weights_stay(tmp_path: Path) -> None:
    loop, steps, _ = trained(tmp_path, [], best="loss", eval_data="0.1")
    assert loop.choose_weights(steps) == ""


def test_a_resumed_run_remembers_the_best_step(tmp_path: Path) -> None:
    stops = iter([False, True])
    patient: dict[str, Any] = {"patience": 2, "eval_data": "0.1"}
    loop = loop_of(
        tmp_path,
        alone(SAMPLES),
        measures=[Given([3.0, 3.5])],
        should_stop=lambda: next(stops),
        **patient,
    )
    loop.run()

    later = Given([9.0, 9.0, 4.0, 1.0])
    resumed = loop_of(tmp_path, alone(SAMPLES), measures=[later], **patient)
    assert resumed.run(tmp_path / "checkpoints" / "checkpoint-2") == 3
    assert later.asked == [3]
    assert (resumed.monitor.best_step, resumed.monitor.best_value) == (1, 3.0)

    again = loop_of(tmp_path, alone(SAMPLES), measures=[later], **patient)
    assert again.run(tmp_path / "checkpoints" / "checkpoint-3") == 3, "a run that stopped early is complete"
    assert later.asked == [3]


def test_measurements_stay_apart_from_steps_and_are_rewound_with_them(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (1, 2):
        folder.add_metrics({"step": step, "loss": 2.0})
        folder.add_metrics({"step": step, "eval_loss": 1.0})

    assert folder.read_metrics() == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 2.0}]
    assert folder.read_measured() == [{"step": 1, "eval_loss": 1.0}, {"step": 2, "eval_loss": 1.0}]
    assert folder.rewind(1) == [{"step": 1, "loss": 2.0}]
    assert folder.read_measured() == [{"step": 1, "eval_loss": 1.0}]
