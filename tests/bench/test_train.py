"""`agentft bench` runs the shipped script, passes all arguments on, and exits with its code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from agentft.bench import train
from agentft.bench.train import _pack
from agentft.commands import run
from tests.tiny import tiny_model


@pytest.mark.slow
def test_it_measures_a_tiny_step_and_shows_the_share_of_the_limit(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--shape", "agent930", "--steps", "1", "pack_tokens=700", "lora_layers=1"]

    assert run(["bench", "train", *arguments]) == 0

    line = capfd.readouterr().out.splitlines()[-1]
    assert line.startswith("agent930 ")
    assert "of the limit  1 per step" in line
    assert float(line.split()[1]) > 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--shape=agent", "invalid choice: 'agent'"),
        ("pack_token=3", "did you mean 'pack_tokens'"),
        ("--shape=data", "--shape data with data=FILE; give both, or neither"),
        ("data=rows.jsonl", "--shape data with data=FILE; give both, or neither"),
        ("--peer-batch=4", "add --peer, or omit --peer-batch"),
    ],
)
def test_a_wrong_argument_is_named(argument: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "train", argument]) == 2
    assert message in capfd.readouterr().err


def test_every_option_reaches_the_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    found = train.Measured("ours", 1.0, 1.0, 0, 1, 1.0)

    def plan(*given: Any) -> SimpleNamespace:
        calls.append(given)
        return SimpleNamespace(recipe=given[0], choice=None, notes=())

    def measured(*given: Any) -> train.Measured:
        calls.append(given[1:])
        return found

    monkeypatch.setattr(train, "plan_bench", plan)
    monkeypatch.setattr(train, "bench_train", measured)
    monkeypatch.setattr(train, "bench_plain", measured)
    monkeypatch.setattr(train, "bench_peer", lambda *given: [measured(None, *given)])
    monkeypatch.setattr(train, "limit", lambda *_: 1.0)
    options = ["--model", "some/model", "--method", "full", "--shape", "long2k", "--steps", "8", "--memory", "3"]
    said: list[str] = []
    train.run_bench([*options, "--plain", "--peer", "trl=python", "--peer-batch", "5", "lr=0.5"], said.append)

    (recipe, *planned), *others = calls
    assert (recipe.model, recipe.method, recipe.lr, planned) == ("some/model", "full", 0.5, ["long2k", 3.0])
    assert others == [("long2k", 8), ("long2k", 4), ("trl=python", "long2k", [5], 8)]
    assert len(said) == 3


@pytest.mark.parametrize(("bits", "kind"), [(4, torch.uint8), (8, torch.int8)])
def test_a_random_model_is_packed_in_the_bits_of_the_recipe(bits: int, kind: torch.dtype) -> None:
    model: Any = tiny_model()
    whole = model(torch.tensor([[1, 2, 3]])).logits
    _pack(model, bits)
    layer = model.get_decoder().layers[0].mlp.up_proj
    assert layer.weight.dtype == kind
    difference = (model(torch.tensor([[1, 2, 3]])).logits - whole).norm() / whole.norm()
    assert 1e-4 < difference < (0.5 if bits == 4 else 0.05)
