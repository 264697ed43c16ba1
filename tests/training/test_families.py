"""Each family of models gives the same loss and gradient packed as one by one, windows and soft caps included."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from agentft.data.packing import Sample, epoch_packs
from agentft.training.attention import TREE_ATTENTION
from tests.training.samples import make
from tests.training.test_loss import gradient, packed_loss, plain_loss

SHAPE: dict[str, Any] = {
    "vocab_size": 70, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.3,
}  # fmt: skip
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


def nested() -> list[Sample]:
    """Three rounds of one conversation, and two others, on one system text."""
    dice = random.Random(4)

    def tokens(count: int) -> list[int]:
        return [dice.randrange(3, 70) for _ in range(count)]

    system, first, second = tokens(20), tokens(18), tokens(17)
    rows = [[*system, *first], [*system, *first, *second], [*system, *first, *second, *tokens(9)]]
    rows += [[*system, *tokens(7)], [*system, *tokens(12)]]
    return [make(ids, {len(ids) - 1: 1.0, len(ids) - 3: 0.5, 15: 0.25}, row) for row, ids in enumerate(rows)]


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_is_one_by_one(family: str) -> None:
    torch.manual_seed(0)
    samples = nested()
    model: Any = AutoModelForCausalLM.from_config(FAMILIES[family], attn_implementation="eager").float().eval()

    expected = plain_loss(model, samples)
    slopes = gradient(model, expected)
    model.set_attn_implementation(TREE_ATTENTION)
    packs = epoch_packs(samples, 200, 0, 0)
    found = packed_loss(model, samples, packs)
    packed_slopes = gradient(model, found)

    assert max(node.parent for pack in packs for node in pack.nodes) > 0, "the trees are to be deep"
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (packed_slopes - slopes).norm() <= 1e-5 * slopes.norm()
