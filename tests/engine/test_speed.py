"""The optimisations do not change results: host embeddings and recomputation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from agentft.engine.speed import HostEmbedding, embed_on_host, recompute_gates
from agentft.training.loading import prepare_model
from agentft.training.recipe import Recipe
from tests.tiny import save_tiny, tiny_model

IDS = torch.arange(3, 40)[None]


def untied() -> Any:
    """A frozen tiny model with untied embeddings."""
    model = copy.deepcopy(tiny_model())
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model.requires_grad_(False)


def test_an_embedding_on_the_host_gives_the_same_rows() -> None:
    model, other = untied(), untied()

    freed = embed_on_host(other)

    assert freed == model.get_input_embeddings().weight.numel() * 4
    assert isinstance(other.get_input_embeddings(), HostEmbedding)
    assert torch.equal(model(input_ids=IDS).logits, other(input_ids=IDS).logits)
    assert not any("embed_tokens" in name for name, _ in other.named_parameters()), "`to` must not move it"


def test_a_trained_or_tied_embedding_stays_on_the_gpu() -> None:
    trained = untied()
    trained.get_input_embeddings().requires_grad_(True)
    shared = untied()
    shared.lm_head.weight = shared.get_input_embeddings().weight
    for model in (trained, shared):
        assert embed_on_host(model) == 0
        assert type(model.get_input_embeddings()) is nn.Embedding


@pytest.mark.parametrize("every", [1, 2])
def test_layers_are_recomputed_even_though_loaded_models_are_in_evaluation_mode(every: int, tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert not loaded.training
    tuned = prepare_model(Recipe(method="lora", checkpointing="on", checkpoint_every=every), loaded, "tiny")
    calls: list[int] = []
    for number, layer in enumerate(loaded.get_decoder().layers):
        layer.self_attn.register_forward_hook(lambda *_, number=number: calls.append(number))

    tuned(input_ids=IDS, labels=IDS).loss.backward()

    layers = range(len(loaded.get_decoder().layers))
    assert sorted(calls) == sorted([*layers, *(number for number in layers if number % every == 0)])


def test_recomputing_gates_changes_no_gradient() -> None:
    plain, recomputable = (copy.deepcopy(tiny_model()) for _ in range(2))
    recomputable.get_decoder().layers[0].gradient_checkpointing = True
    calls: list[int] = []

    def gated(gate: Tensor, up: Tensor) -> Tensor:
        calls.append(gate.numel())
        return nn.functional.silu(gate) * up

    layers = len(recomputable.get_decoder().layers)
    assert recompute_gates(recomputable, gated) == layers - 1
    for model in (plain, recomputable.eval()):
        model(input_ids=IDS, labels=IDS).loss.backward()

    assert len(calls) == 2 * (layers - 1), "forward, and again backward"
    for one, two in zip(plain.parameters(), recomputable.parameters(), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-5, atol=1e-7)
