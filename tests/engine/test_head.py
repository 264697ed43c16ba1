"""The losses and gradients of the frozen head equal those of cross-entropy, with any number of chunks."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from agentft.engine import head
from agentft.engine.head import frozen_head, head_losses
from tests.tiny import tiny_model


def untied() -> Any:
    """A frozen tiny model with untied embeddings."""
    model = copy.deepcopy(tiny_model())
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model.requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
def test_head_losses_and_their_gradients_equal_cross_entropy(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "CHUNK_BYTES", 4 * 50 * 128)  # chunks of 128 rows
    random = torch.Generator().manual_seed(2)
    hidden = torch.randn(300, 24, generator=random)
    layer = nn.Linear(24, 50, bias=bias).requires_grad_(False)
    targets = torch.randint(0, 50, (300,), generator=random)
    weights = torch.rand(300, generator=random)

    def slope(losses: Any) -> tuple[Tensor, Tensor]:
        fed = hidden.clone().requires_grad_()
        found = losses(fed)
        (found * weights).sum().backward()
        assert fed.grad is not None
        return found.detach(), fed.grad

    mine = slope(lambda fed: head_losses(fed, layer, targets))
    theirs = slope(lambda fed: nn.functional.cross_entropy(layer(fed), targets, reduction="none"))

    for one, two in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    assert torch.equal(head_losses(hidden, layer, targets), mine[0]), "equal without a gradient"


@pytest.mark.parametrize(
    ("vocabulary", "rows"),
    [(2**16, 1024), (2**17, 512), (2**17 + 1, 384), (2**19, 128), (2**19 + 1, 128), (2**23, 128)],
)
def test_a_chunk_is_256_mib_of_logits_in_multiples_of_128_rows(
    vocabulary: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks: list[int] = []

    def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert len(weight) == vocabulary
        assert bias is None
        chunks.append(len(hidden))
        return torch.zeros(len(hidden), 1)

    monkeypatch.setattr(nn.functional, "linear", linear)
    layer = SimpleNamespace(weight=torch.empty(vocabulary, 4, device="meta"), bias=None)
    count = 2 * rows + 1
    losses = head_losses(torch.zeros(count, 4), cast("nn.Linear", layer), torch.zeros(count, dtype=torch.int64))
    assert chunks == [rows, rows, 1]
    assert losses.tolist() == [0.0] * count


@pytest.mark.parametrize("name", ["final_logit_softcapping", "logits_scaling", "logit_scale"])
def test_a_head_with_scaled_or_capped_logits_is_left_to_the_model(name: str) -> None:
    model = untied()
    for value, left in [(None, False), (30.0, True)]:
        setattr(model.config, name, value)
        assert frozen_head(model) is (None if left else model.lm_head)


def test_a_head_that_is_trained_or_not_a_plain_linear_layer_is_left_to_the_model() -> None:
    class Other(nn.Linear):  # type: ignore[misc]
        pass

    assert frozen_head(tiny_model()) is None
    model = untied()
    model.lm_head = Other(64, 400, bias=False).requires_grad_(False)
    assert frozen_head(model) is None
    plain = nn.Linear(64, 400).requires_grad_(False)
    model.lm_head = plain
    assert frozen_head(model) is model.lm_head
    plain.get_parameter("bias").requires_grad_(True)
    assert frozen_head(model) is None
