"""The loss of packed samples equals the plain loss: in value, in gradient, and sample by sample."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from agentft.engine.collation import collate
from agentft.engine.loss import target_losses, weighted_loss
from agentft.engine.packing import Pack, Sample, epoch_packs, pack_in_order
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


class Spread(nn.Module):  # type: ignore[misc]
    """Wraps a model like DDP, so its own forward pass must be called."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.module = model
        self.calls = 0

    def forward(self, **inputs: Any) -> Any:
        self.calls += 1
        return self.module(**inputs)


TALKS = [
    make([5, 6, 7, 8, 9, 10], {3: 1.0, 5: 0.5}, 0),
    make([5, 6, 7, 11, 12, 13, 14, 15], {4: 1.0, 7: 2.0}, 1),
    make([5, 6, 16], {1: 1.0, 2: 1.0}, 2),
]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft reads it
@pytest.mark.parametrize("frozen", [False, True], ids=["trained head", "frozen head"])
@pytest.mark.parametrize("form", ["plain", "adapter", "spread"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", TREE_ATTENTION])
def test_each_targets_loss_equals_that_in_its_sample_alone(
    attention: str, share: bool, form: str, frozen: bool
) -> None:
    causal = tiny_model().requires_grad_(not frozen)
    adapter = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = get_peft_model(causal, adapter) if form == "adapter" else Spread(causal) if form == "spread" else causal
    decoder_calls: list[dict[str, Any]] = []
    causal.get_decoder().register_forward_pre_hook(lambda _, __, given: decoder_calls.append(given), with_kwargs=True)
    (pack,) = pack_in_order(TALKS, range(3), share=share)
    expected = {
        (index, place): -torch.log_softmax(causal(input_ids=torch.tensor([sample.tokens])).logits[0, place - 1], -1)
        for index, sample in enumerate(TALKS)
        for place in sample.places
    }
    decoder_calls.clear()
    causal.set_attn_implementation(attention)

    found = target_losses(model, collate([pack], TALKS, 8))

    costs = [losses[TALKS[index].tokens[place]].item() for (index, place), losses in expected.items()]
    assert found[: len(costs)].tolist() == pytest.approx(costs, rel=1e-5)
    (call,) = decoder_calls
    assert not call["use_cache"]
    assert ("structure" in call) is (attention == TREE_ATTENTION)
    alone = attention != TREE_ATTENTION and not share
    assert (call.get("attention_mask") is None) is (alone or attention == TREE_ATTENTION)
    assert len(call["input_ids"]) == (len(TALKS) + 1 if alone else 1), "a row for each sample, and one for the padding"
    if isinstance(model, Spread):
        assert model.calls == 1


def test_the_loss_is_weighted_and_divided_by_the_weight_of_the_whole_step() -> None:
    (pack,) = pack_in_order(TALKS, range(3))
    batch = collate([pack], TALKS)
    costs = target_losses(tuned("sdpa"), batch)
    assert weighted_loss(MODEL, batch, 13.0).item() == pytest.approx((costs * batch["weights"]).sum().item() / 13)


def test_dft_multiplies_each_loss_and_gradient_by_the_tokens_probability(attention: str) -> None:
    sample = make([5, 6, 7, 8, 9], {2: 1.0, 4: 0.5})
    (pack,) = epoch_packs([sample], 100, 0, 0)
    batch = collate([pack], [sample])
    logits = tuned("sdpa")(input_ids=torch.tensor([sample.tokens]), use_cache=False).logits[0].double()
    chosen = torch.log_softmax(logits, -1)[[1, 3], [7, 9]]
    expected = -(torch.tensor([1.0, 0.5]) * chosen.exp().detach() * chosen).sum() / 1.5

    slopes = gradient(MODEL, expected)
    found = weighted_loss(tuned(attention), batch, 1.5, "dft")

    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    dft_slopes = gradient(MODEL, found)
    assert (dft_slopes - slopes).norm() <= 1e-5 * slopes.norm()
