"""`agentft bench` runs the shipped script, passes all arguments on, and exits with its code."""

from __future__ import annotations

from typing import Any

import pytest
import torch

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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "message"),
    [("--shape=agent", "invalid choice: 'agent'"), ("pack_token=3", "did you mean 'pack_tokens'")],
)
def test_a_wrong_argument_is_named(argument: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "train", argument]) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(("bits", "kind"), [(4, torch.uint8), (8, torch.int8)])
def test_a_random_model_is_packed_in_the_bits_of_the_recipe(bits: int, kind: torch.dtype) -> None:
    model: Any = tiny_model()
    whole = model(torch.tensor([[1, 2, 3]])).logits
    _pack(model, bits)
    layer = model.get_decoder().layers[0].mlp.up_proj
    assert layer.weight.dtype == kind
    difference = (model(torch.tensor([[1, 2, 3]])).logits - whole).norm() / whole.norm()
    assert 1e-4 < difference < (0.5 if bits == 4 else 0.05)
