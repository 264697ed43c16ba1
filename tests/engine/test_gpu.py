"""On a GPU: packed training equals single samples in fp32, and both bf16 kernels equal a dense mask up to rounding.

Run by hand on a machine with a GPU: `pytest -m gpu`.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from agentft.engine.collation import collate
from agentft.engine.loss import weighted_loss
from agentft.engine.packing import epoch_packs
from agentft.engine.structure import Structure
from agentft.engine.tree_attention import TREE_ATTENTION, tree_attention
from agentft.training.events import StepDone
from agentft.training.loading import prepare_model
from agentft.training.loop import TrainingLoop
from agentft.training.recipe import Recipe
from tests.engine.samples import make, nested
from tests.engine.test_families import FAMILIES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    # Of PyTorch 2.11's own modules.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


def on_gpu(batch: Any) -> Any:
    return {key: value.cuda() if torch.is_tensor(value) else value for key, value in batch.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_single_samples_in_fp32(family: str) -> None:
    torch.manual_seed(0)
    samples = nested()
    model: Any = AutoModelForCausalLM.from_config(FAMILIES[family], attn_implementation="eager").float().eval().cuda()
    total = sum(sum(sample.weights) for sample in samples)

    def slopes_of(loss: Any) -> torch.Tensor:
        model.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    alone: Any = torch.zeros((), dtype=torch.float64, device="cuda")
    for sample in samples:
        logits = model(input_ids=torch.tensor([sample.tokens], device="cuda"), use_cache=False).logits[0].double()
        for place, weight in zip(sample.places, sample.weights, strict=True):
            alone = alone - weight * torch.log_softmax(logits[place - 1], -1)[sample.tokens[place]] / total
    expected, slopes = alone.item(), slopes_of(alone)
    model.set_attn_implementation(TREE_ATTENTION)
    batches = [collate([pack], samples, 128) for pack in epoch_packs(samples, 200, 0, 0)]
    together: Any = sum(weighted_loss(model, on_gpu(batch), total) for batch in batches)
    found, packed = together.item(), slopes_of(together)

    assert found == pytest.approx(expected, rel=1e-6)
    assert (packed - slopes).norm() <= 1e-5 * slopes.norm()


@pytest.mark.parametrize("window", [None, 150])
def test_in_bf16_output_and_gradients_equal_a_dense_masks_up_to_rounding(window: int | None) -> None:
    rng = random.Random(3)
    shared = [rng.randrange(9) for _ in range(300)]
    deeper = [*shared, *(rng.randrange(9) for _ in range(80))]
    rows = [[*(shared if row % 3 else deeper), *(rng.randrange(9) for _ in range(40 + row))] for row in range(12)]
    samples = [make(ids, {len(ids) - 1: 1.0}, row) for row, ids in enumerate(rows)]
    (pack,) = epoch_packs(samples, 4_000, 0, 0)
    structure = Structure.of(on_gpu(collate([pack], samples, 128)))
    torch.manual_seed(1)
    tensors = [torch.randn(1, n, len(structure.ends), 64, device="cuda", dtype=torch.bfloat16) for n in (8, 2, 2)]
    slope = torch.randn(1, len(structure.ends), 8, 64, device="cuda")

    def run(attention: Any, dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = [tensor.to(dtype, copy=True).requires_grad_() for tensor in tensors]
        output = attention(*inputs)
        (output.float() * slope).sum().backward()
        return [output.detach().float(), *(tensor.grad.float() for tensor in inputs if tensor.grad is not None)]

    def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        key, value = key.repeat_interleave(4, 1), value.repeat_interleave(4, 1)
        mask = structure.dense(window)
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)

    found = run(
        lambda q, k, v: tree_attention(None, q, k, v, None, structure=structure, sliding_window=window)[0],
        torch.bfloat16,
    )
    for mine, exact in zip(found, run(dense, torch.float32), strict=True):
        assert (mine - exact).norm() <= 0.01 * exact.norm()


@pytest.mark.parametrize("settings", [{}, {"host_embeddings": "on", "checkpointing": "on"}], ids=["plain", "lean"])
def test_losses_on_the_gpu_equal_those_on_the_cpu(settings: dict[str, Any]) -> None:
    samples = nested()
    packs = [pack for epoch in range(6) for pack in epoch_packs(samples, 60, 0, epoch)]
    losses: list[list[float]] = []
    for device in ("cpu", "cuda"):
        recipe = Recipe(method="lora", lr=0.01, dtype="fp32", sharing="on", liger="off", **settings)
        model = prepare_model(recipe, untied().to(device), "tiny")
        events: list[Any] = []
        TrainingLoop(model, recipe, samples, packs, on_event=events.append).run()
        losses.append([event.loss for event in events if isinstance(event, StepDone)])
    assert len(losses[0]) == len(packs)
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5)
    # The size of AdamW's first steps does not depend on the gradient's, so rounding near zero grows step by step.
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)


def untied() -> Any:
    """A small model with untied embeddings, which can stay on the host."""
    torch.manual_seed(0)
    config = copy.deepcopy(FAMILIES["llama"])
    config.tie_word_embeddings = False
    return AutoModelForCausalLM.from_config(config, attn_implementation=TREE_ATTENTION)
