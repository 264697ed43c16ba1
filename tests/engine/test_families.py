"""For each model family, packed and single samples give the same loss and gradient, also with windows and soft caps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    NemotronConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)

from agentft.engine.packing import epoch_packs
from agentft.engine.tree_attention import TREE_ATTENTION
from agentft.training.loading import prepare_model
from agentft.training.machine import Machine
from agentft.training.recipe import Recipe
from agentft.training.resolve import resolve_recipe
from tests.engine.samples import nested
from tests.engine.test_loss import gradient, packed_loss, plain_loss
from tests.tiny import SHAPE, tiny_model

CPU = Machine("cpu", bf16=False, liger=False)
FAMILIES = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE),
    "mistral": MistralConfig(**SHAPE, sliding_window=11),
    "gemma2": Gemma2Config(**SHAPE, sliding_window=11, query_pre_attn_scalar=8, attn_logit_softcapping=3.0),
    "gemma3": Gemma3TextConfig(
        **SHAPE, sliding_window=11, query_pre_attn_scalar=8, layer_types=["sliding_attention", "full_attention"]
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_single_samples(family: str) -> None:
    torch.manual_seed(0)
    samples = nested()
    model: Any = AutoModelForCausalLM.from_config(FAMILIES[family], attn_implementation="eager").float().eval()

    expected = plain_loss(model, samples)
    slopes = gradient(model, expected)
    model.set_attn_implementation(TREE_ATTENTION)
    packs = epoch_packs(samples, 200, 0, 0)
    found = packed_loss(model, samples, packs)
    packed_slopes = gradient(model, found)

    assert max(node.parent for pack in packs for node in pack.nodes) > 0, "the trees must be deep"
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (packed_slopes - slopes).norm() <= 1e-5 * slopes.norm()


UNSHAREABLE = {
    "qwen3-next": (
        Qwen3NextConfig(
            **SHAPE,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
            layer_types=["linear_attention", "full_attention"],
        ),
        "has unsupported layer types: linear_attention",
    ),
    "lfm2": (Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"]), "has unsupported layer types: conv"),
    "nemotron": (NemotronConfig(**SHAPE), "does not pass keyword arguments on"),
    "mamba": (
        MambaConfig(vocab_size=70, hidden_size=64, num_hidden_layers=2),
        "layer types: linear_attention",
    ),
    "gpt-oss": (
        GptOssConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2, sliding_window=11),
        "has attention sinks",
    ),
}


@pytest.mark.parametrize("family", UNSHAREABLE)
def test_models_that_cannot_share_get_one_row_for_each_sample(family: str, tmp_path: Path) -> None:
    config, reason = UNSHAREABLE[family]
    config.save_pretrained(str(tmp_path))
    resolved = resolve_recipe(Recipe(model=str(tmp_path)), nested(), CPU)
    assert resolved.recipe.sharing == "off"
    (note,) = resolved.notes
    assert reason in note.text

    torch.manual_seed(0)
    samples = nested()
    model: Any = AutoModelForCausalLM.from_config(config).float().eval()
    packs = epoch_packs(samples, 160, 0, 0, share=False)
    assert max(len(pack.members) for pack in packs) > 1
    expected = plain_loss(model, samples)
    slopes = gradient(model, expected)
    found = packed_loss(model, samples, packs)
    packed_slopes = gradient(model, found)

    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (packed_slopes - slopes).norm() <= 1e-5 * slopes.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_sharing_is_on_for_supported_families(family: str, tmp_path: Path) -> None:
    FAMILIES[family].save_pretrained(str(tmp_path))
    resolved = resolve_recipe(Recipe(model=str(tmp_path)), nested(), CPU)
    assert (resolved.recipe.sharing, resolved.notes) == ("on", ())


def test_dora_packed_equals_single_samples() -> None:
    samples = nested()
    model = prepare_model(Recipe(method="lora", dora="on", dtype="fp32"), tiny_model(), "tiny")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # if B were 0, A would get no gradient
    expected = plain_loss(model, samples)
    slopes = gradient(model, expected)
    model.get_base_model().set_attn_implementation(TREE_ATTENTION)
    found = packed_loss(model, samples, epoch_packs(samples, 200, 0, 0))
    packed_slopes = gradient(model, found)

    assert any("lora_magnitude_vector" in name for name, value in model.named_parameters() if value.requires_grad)
    assert all(value.dtype == torch.float32 for value in model.parameters() if value.requires_grad)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (packed_slopes - slopes).norm() <= 1e-5 * slopes.norm()
