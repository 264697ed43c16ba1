"""The loss of packed samples equals the plain loss: in value, in gradient, and sample by sample."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agentft.engine.collation import collate
from agentft.engine.loss import target_losses, weighted_loss
from agentft.engine.packing import Pack, Sample, epoch_packs
from agentft.engine.tree_attention import TREE_ATTENTION
from tests.engine.samples import make
from tests.engine.test_packing import forests, short_stems
from tests.tiny import tiny_model

__all__ = ["short_stems"]

MODEL = tiny_model()


def plain_loss(model: Any, samples: Sequence[Sample]) -> Tensor:
    """The reference: each sample separately with full logits, without mask or packing."""
    total = torch.zeros((), dtype=torch.float64)
    weight = sum(sum(sample.weights) for sample in samples)
    for sample in samples:
        logits = model(input_ids=torch.tensor([sample.tokens]), use_cache=False).logits[0].double()
        for place, part in zip(sample.places, sample.weights, strict=True):
            total = total - part * torch.log_softmax(logits[place - 1], -1)[sample.tokens[place]]
    return total / weight


def packed_loss(model: Any, samples: Sequence[Sample], packs: Sequence[Pack]) -> Tensor:
    weight = sum(sum(sample.weights) for sample in samples)
    return torch.stack([weighted_loss(model, collate([pack], samples), weight) for pack in packs]).sum()


def gradient(model: Any, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture(params=["sdpa", TREE_ATTENTION], scope="module")
def attention(request: pytest.FixtureRequest) -> str:
    """The dense mask and the tree attention."""
    return str(request.param)


def tuned(attention: str) -> Any:
    model = MODEL
    model.set_attn_implementation(attention)
    return model


@settings(max_examples=25, deadline=None)
@given(forests(), st.integers(16, 120))
def test_loss_and_gradient_equal_those_of_single_samples(attention: str, samples: list[Sample], budget: int) -> None:
    packs = epoch_packs(samples, budget, 0, 0)

    expected = plain_loss(tuned("sdpa"), samples)
    slopes = gradient(MODEL, expected)
    found = packed_loss(tuned(attention), samples, packs)
    packed_slopes = gradient(MODEL, found)

    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (packed_slopes - slopes).norm() <= 1e-5 * slopes.norm()


@settings(max_examples=25, deadline=None)
@given(forests(), st.data())
def test_changing_one_sample_changes_no_bit_of_another(
    attention: str, samples: list[Sample], data: st.DataObject
) -> None:
    (pack, *_) = epoch_packs(samples, 100, 0, 0)
    changed, leaf = data.draw(st.sampled_from(pack.members))
    sample, node = samples[changed], pack.nodes[leaf]
    alone = node.sample == changed and sum(last == leaf for _, last in pack.members) == 1
    if not alone or any(other.parent == leaf for other in pack.nodes):
        return
    tokens = array("i", [*sample.tokens[: node.start], *(61 + t % 7 for t in sample.tokens[node.start :])])
    others = list(samples)
    others[changed] = Sample(sample.row, sample.id, tokens, sample.places, sample.weights)

    before, after = collate([pack], samples), collate([pack], others)
    with torch.no_grad():
        model = tuned(attention)
        first, second = target_losses(model, before), target_losses(model, after)

    own = before["owners"] == changed
    assert torch.equal(first[~own], second[~own])
    assert not torch.equal(first[own], second[own])


def test_tokens_after_the_last_target_and_unsupervised_logits_are_not_computed() -> None:
    sample = make([5, 6, 7, 8, 9], {2: 1.0, 4: 0.5})
    (pack,) = epoch_packs([sample], 100, 0, 0)
    batch = collate([pack], [sample])

    assert batch["input_ids"].shape == (1, 4)
    assert batch["logits_to_keep"].tolist() == [1, 3]
    assert target_losses(tuned("sdpa"), batch).shape == (2,)


def test_the_loss_is_computed_in_fp32_for_a_bf16_model() -> None:
    sample = make([5, 6, 7, 8, 9], {4: 1.0})
    (pack,) = epoch_packs([sample], 100, 0, 0)

    loss = target_losses(tiny_model().to(torch.bfloat16), collate([pack], [sample]))

    assert loss.dtype == torch.float32
