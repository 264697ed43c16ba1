"""The training loop: one loss over the whole optimizer step, and correct reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from agentft.engine.collation import collate
from agentft.engine.loss import weighted_loss
from agentft.engine.packing import Pack, Sample, epoch_packs, pack_in_order
from agentft.errors import AgentftError, InputError
from agentft.training.events import Event, Note, Saved, StepDone
from agentft.training.loading import prepare_model
from agentft.training.loop import TrainingLoop
from agentft.training.machine import deterministic
from agentft.training.monitor import Measure
from agentft.training.optimizer import make_schedule
from agentft.training.recipe import Recipe
from tests.engine.samples import alone, make
from tests.engine.test_loss import plain_loss
from tests.tiny import tiny_model

STEM = list(range(3, 23))
SAMPLES = [make([*STEM, 30 + row, 40, 41 + row, 43], {22: 1.0 + row, 23: 0.25}, row) for row in range(4)]


def loop_of(
    folder: Path,
    packs: Sequence[Pack],
    samples: Sequence[Sample] = SAMPLES,
    events: list[Event] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    measures: Sequence[Measure] = (),
    **settings: Any,
) -> TrainingLoop:
    defaults: dict[str, Any] = {"method": "full", "lr": 0.01, "warmup": 0.0, "dtype": "fp32", "clip": 0.0}
    recipe = Recipe(**(defaults | settings))
    model = prepare_model(recipe, tiny_model(), "tiny")
    return TrainingLoop(
        model,
        recipe,
        samples,
        packs,
        on_event=lambda event: None if events is None else events.append(event),
        should_stop=should_stop,
        checkpoints=folder / "checkpoints",
        measures=measures,
    )


def weights(loop: TrainingLoop) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in loop.model.named_parameters() if value.requires_grad}


def test_a_step_of_four_packs_equals_one_pack_of_four_samples(tmp_path: Path) -> None:
    events: list[Event] = []
    more: list[Event] = []
    whole = loop_of(tmp_path / "a", pack_in_order(SAMPLES, range(4)), events=events)
    apart = loop_of(tmp_path / "b", alone(SAMPLES), events=more, batch=4)

    expected = plain_loss(tiny_model(), SAMPLES).item()
    whole.run()
    apart.run()

    (one,) = [event for event in events if isinstance(event, StepDone)]
    (four,) = [event for event in more if isinstance(event, StepDone)]
    assert one.loss == pytest.approx(expected, rel=1e-6)
    assert four.loss == pytest.approx(expected, rel=1e-6)
    assert one.grad_norm == pytest.approx(four.grad_norm, rel=1e-5)
    assert (one.samples, one.supervised, one.weight) == (four.samples, four.supervised, four.weight) == (4, 8, 11.0)
    assert (one.tokens, four.tokens) == (32, 92)
    assert (one.unshared, four.unshared) == (92, 92), "so that their supervised share is at most 100 %"


def test_the_loss_is_the_one_of_the_recipe(tmp_path: Path) -> None:
    events: list[Event] = []
    packs = pack_in_order(SAMPLES, range(4))
    loop = loop_of(tmp_path, packs, events=events, loss="dft")
    expected = weighted_loss(loop.model, collate(packs, SAMPLES), 11.0, "dft").item()

    loop.run()

    (step,) = [event for event in events if isinstance(event, StepDone)]
    assert step.loss == pytest.approx(expected, rel=1e-6)
    assert step.loss < plain_loss(tiny_model(), SAMPLES).item() / 2


def test_accumulation_updates_the_weights_like_one_batch(tmp_path: Path) -> None:
    whole = loop_of(tmp_path / "a", pack_in_order(SAMPLES, range(4)), method="lora")
    apart = loop_of(tmp_path / "b", alone(SAMPLES), batch=4, method="lora")

    whole.run()
    apart.run()

    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(apart)[name], value, rtol=1e-3, atol=1e-5)


def test_the_last_step_takes_the_remaining_packs(tmp_path: Path) -> None:
    events: list[Event] = []
    loop_of(tmp_path, alone(SAMPLES), batch=3, events=events).run()

    steps = [event for event in events if isinstance(event, StepDone)]
    assert [step.samples for step in steps] == [3, 1]
    assert [step.epoch for step in steps] == [0.75, 1.0]
    assert steps[1].loss > 0


def test_a_stop_finishes_the_step_and_saves(tmp_path: Path) -> None:
    events: list[Event] = []
    stops = iter([False, True])
    loop_of(tmp_path, alone(SAMPLES), events=events, should_stop=lambda: next(stops)).run()

    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2]
    assert [event.path.name for event in events if isinstance(event, Saved)] == ["checkpoint-2"]


def test_a_pack_that_does_not_fit_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    more: list[Event] = []
    packs = [*pack_in_order(SAMPLES, range(4)), *alone(SAMPLES), *pack_in_order(SAMPLES, range(4))]
    roomy = loop_of(tmp_path / "a", packs, batch=2, events=events)
    tight = loop_of(tmp_path / "b", packs, batch=2, events=more)
    roomy.run()
    sizes: list[int] = []

    def limited(model: Any, batch: Any, total: Any, loss: str) -> Any:
        sizes.append(batch["tokens"])
        part = weighted_loss(model, batch, total, loss)
        if batch["tokens"] > 30:
            part.backward()  # memory runs out when some gradients exist already
            raise torch.OutOfMemoryError
        return part

    monkeypatch.setattr("agentft.training.loop.weighted_loss", limited)
    tight.run()

    steps = [[event.loss for event in run if isinstance(event, StepDone)] for run in (events, more)]
    assert steps[1] == pytest.approx(steps[0], rel=1e-5)
    for name, value in weights(roomy).items():
        torch.testing.assert_close(weights(tight)[name], value, rtol=1e-3, atol=2e-5)
    assert sizes.count(32) == 1, "the second pack is split before it is tried"
    (note,) = [event for event in more if isinstance(event, Note)]
    assert "a pack of 32 tokens did not fit into memory" in note.text


def test_packs_that_still_do_not_fit_are_split_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(model: Any, batch: Any, total: Any, loss: str) -> Any:
        if batch["tokens"] > 23:
            raise torch.OutOfMemoryError
        return weighted_loss(model, batch, total, loss)

    events: list[Event] = []
    longer = [make([*s.tokens, *range(3, 9)], {22: 1.0, len(s.tokens) + 5: 1.0}, s.row) for s in SAMPLES[:1]]
    samples = [make([*STEM, 30 + row, 40, 41 + row, 43], {22: 1.0, 23: 0.25}, row) for row in range(12)]
    monkeypatch.setattr("agentft.training.loop.weighted_loss", limited)
    packs = [*alone(samples), *pack_in_order(samples, range(12))]
    loop_of(tmp_path / "a", packs, samples=samples, events=events).run()
    assert len([event for event in events if isinstance(event, StepDone)]) == len(packs)
    assert len([event for event in events if isinstance(event, Note)]) > 1
    with pytest.raises(InputError, match=r"29 tokens do not fit into memory"):
        loop_of(tmp_path / "b", alone(longer), samples=longer).run()


def test_a_single_sample_that_does_not_fit_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("agentft.training.loop.weighted_loss", none)
    with pytest.raises(InputError, match=r"23 tokens do not fit into memory, although .*; lower max_length"):
        loop_of(tmp_path, alone(SAMPLES)).run()


def test_a_nan_loss_ends_the_run_with_a_remedy(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, alone(SAMPLES))
    with torch.no_grad():
        loop.model.lm_head.weight.fill_(float("nan"))

    with pytest.raises(AgentftError, match=r"the loss is nan at step 1.*lower lr"):
        loop.run()


def test_checkpoints_are_complete_and_the_oldest_are_removed(tmp_path: Path) -> None:
    loop_of(tmp_path, alone(SAMPLES), save_steps=1).run()

    names = sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir())
    assert names == ["checkpoint-3", "checkpoint-4"]
    files = {entry.name for entry in (tmp_path / "checkpoints" / "checkpoint-4").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "state.pt"} <= files


def test_the_loss_falls(tmp_path: Path) -> None:
    events: list[Event] = []
    packs = [pack for epoch in range(12) for pack in epoch_packs(SAMPLES, 100, 0, epoch)]
    with deterministic():
        loop_of(tmp_path, packs, events=events, method="lora", lr=0.02).run()

    losses = [event.loss for event in events if isinstance(event, StepDone)]
    assert losses[-1] < losses[0] / 2


def test_checkpointing_does_not_change_the_weights(tmp_path: Path) -> None:
    packs = epoch_packs(SAMPLES, 100, 0, 0)
    plain = loop_of(tmp_path / "a", packs, method="lora", checkpointing="off")
    checkpointed = loop_of(tmp_path / "b", packs, method="lora", checkpointing="on")

    plain.run()
    checkpointed.run()

    assert checkpointed.model.is_activation_checkpointing
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(checkpointed)[name], value)


def rates_of(steps: int, **settings: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = make_schedule(optimizer, Recipe(lr=1.0, **settings), steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_rises_to_its_peak_and_no_step_is_wasted(schedule: str) -> None:
    rates = rates_of(12, schedule=schedule, warmup=0.25)

    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates_of(5, schedule=schedule, warmup=0.0)[0] == 1.0
    if schedule != "constant":
        assert rates[-1] < 0.12


def test_the_reported_learning_rate_is_the_one_that_was_used(tmp_path: Path) -> None:
    events: list[Event] = []
    loop_of(tmp_path, alone(SAMPLES), events=events, schedule="linear").run()

    steps = [event for event in events if isinstance(event, StepDone)]
    assert [step.lr for step in steps] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
