"""Optimizers and schedules by transformers' names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

import pytest
import torch

from agentft.errors import InputError
from agentft.training.optimizer import check_schedule, make_optimizer, make_schedule
from agentft.training.recipe import Optimizer, Recipe, Schedule
from tests.engine.samples import alone
from tests.tiny import tiny_model
from tests.training.test_loop import SAMPLES, loop_of, rates_of, weights


class Part(torch.nn.Module):  # type: ignore[misc]
    """A model with tables and a matrix and a vector between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.inner = torch.nn.Embedding(80, 64), torch.nn.Linear(64, 80)

    def get_input_embeddings(self) -> Any:
        return self.table

    def get_output_embeddings(self) -> Any:
        return None


def moved(name: str, **settings: Any) -> tuple[Any, list[torch.Tensor]]:
    """The optimizer after two steps, and how far each parameter moved."""
    model, kind = Part(), cast(Optimizer, name)
    optimizer = make_optimizer(model, Recipe(method="full", lr=0.01, optimizer=kind, **settings))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
        optimizer.step()
    return optimizer, [(a - b).detach() for a, b in zip(model.parameters(), before, strict=True)]


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_every_optimizer_moves_every_parameter_on_a_cpu(name: str) -> None:
    _, moves = moved(name)
    assert all(move.abs().max() > 1e-5 for move in moves)


def test_names_that_mean_the_same_and_names_that_do_not() -> None:
    classes = {name: type(moved(name)[0]).__name__ for name in get_args(Optimizer)}
    assert classes["adamw"] == classes["adamw_torch"] == "AdamW"
    assert classes["adafactor"] == "Adafactor"
    assert classes["sgd"] == "SGD"
    same, other = moved("adamw")[1], moved("adamw_torch")[1]
    assert all(torch.equal(a, b) for a, b in zip(same, other, strict=True))
    assert not torch.equal(moved("lion_32bit")[1][0], same[0])


def test_8_bit_states_have_8_bits() -> None:
    for name in ("adamw_8bit", "paged_adamw_8bit", "adamw_bnb_8bit"):
        optimizer, _ = moved(name)
        states = {state["state1"].dtype for state in optimizer.state.values() if state["state1"].numel() >= 4096}
        assert states == {torch.uint8}


def test_weight_decay_is_for_matrices_only() -> None:
    for name in ("adamw", "adafactor", "lion_32bit"):
        plain, decayed = moved(name)[1], moved(name, weight_decay=0.5)[1]
        assert not torch.equal(plain[1], decayed[1])
        assert torch.equal(plain[2], decayed[2])


def test_muon_takes_the_matrices_inside_and_adamw_the_rest() -> None:
    optimizer, moves = moved("muon")
    adamw = moved("adamw")[1]
    torch.testing.assert_close(moves[0], adamw[0])
    torch.testing.assert_close(moves[2], adamw[2])
    assert not torch.allclose(moves[1], adamw[1], atol=1e-3)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 2]
    singular = torch.linalg.svdvals(moves[1])
    assert singular[0] > 0


def test_a_run_with_muon_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimizer": "muon", "schedule": "linear", "save_steps": 2}
    whole = loop_of(tmp_path / "a", alone(SAMPLES), **settings)
    whole.run()
    resumed = loop_of(tmp_path / "b", alone(SAMPLES), **settings)
    assert resumed.run(tmp_path / "a" / "checkpoints" / "checkpoint-2") == 4
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value)
    fresh = dict(tiny_model().named_parameters())
    assert all(not torch.equal(value, fresh[name]) for name, value in weights(whole).items())


@pytest.mark.parametrize("name", get_args(Schedule))
def test_every_schedule_starts_above_0_and_at_its_peak_after_the_warm_up(name: str) -> None:
    needed = {"warmup_stable_decay": {"num_decay_steps": 3.0}, "cosine_with_min_lr": {"min_lr_rate": 0.25}}
    needed["cosine_warmup_with_min_lr"] = {"min_lr_rate": 0.25}
    rates = rates_of(12, schedule=name, warmup=0.25, schedule_args=needed.get(name, {}))
    peak = 2 if name == "cosine_warmup_with_min_lr" else 3  # this one ends its warm-up a step early
    assert rates[peak] == pytest.approx(1.0)
    assert all(rate > 0 for rate in rates)
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)


def test_the_arguments_of_a_schedule_take_effect() -> None:
    low = rates_of(12, schedule="cosine_with_min_lr", warmup=0.0, schedule_args={"min_lr_rate": 0.25})
    assert min(low) > 0.25
    again = rates_of(12, schedule="cosine_with_restarts", warmup=0.0, schedule_args={"num_cycles": 2.0})
    assert again[6] == again[0] == 1.0
    assert again[5] < 0.1
    stable = rates_of(12, schedule="warmup_stable_decay", warmup=0.0, schedule_args={"num_decay_steps": 4})
    assert stable[:9] == [1.0] * 9
    assert stable[9] < 1.0
    assert rates_of(4, schedule="inverse_sqrt", warmup=0.0)[3] > 0.999, "transformers' timescale of 10,000"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "warmup_stable_decay"}, "num_decay_steps"),
        ({"schedule": "cosine", "schedule_args": {"cycles": 2}}, "unexpected keyword argument 'cycles'"),
        ({"schedule": "constant", "schedule_args": {"num_cycles": 2}}, "takes no arguments"),
        ({"schedule": "polynomial", "schedule_args": {"lr_end": 2}, "lr": 1e-3}, "lr_end"),
    ],
)
def test_arguments_that_a_schedule_does_not_take_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_schedule(Recipe(**settings))


def test_a_schedule_belongs_to_its_optimizer() -> None:
    optimizer, _ = moved("muon")
    make_schedule(optimizer, Recipe(lr=0.01, warmup=0.5), 2)
    assert {group["lr"] for group in optimizer.param_groups} == {0.005}
