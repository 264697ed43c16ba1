"""Attention over a pack's trees, block by block: what the dense tree mask hides is not computed at all.

A prefix attends to itself, each suffix to its prefix and itself. With a prefix of 1,070 tokens and 22 suffixes of 90,
SmolLM2's shape in bf16 on one core, a layer's attention takes 0.51 s forward and backward instead of 0.92 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv

from agentft.models.attention import attend_after

__all__ = ["TREE_ATTENTION", "tree_attention"]

TREE_ATTENTION = "agentft_tree"
"""The name under which transformers knows it."""


def tree_attention(
    module: Any,  # noqa: ARG001 - transformers' signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    trees: Sequence[Sequence[int]],
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, for one pack.

    Args:
        module: the layer.
        query: `[1, heads, L, d]`.
        key: `[1, key heads, L, d]`.
        value: `[1, key heads, L, d]`.
        attention_mask: must be None; the trees say it all.
        trees: for each tree the length of its prefix, then those of its suffixes; together L.
        scaling: factor on the products; None: `d ** -0.5`.

    Returns:
        `[1, L, heads, d]`, and None for the weights.
    """
    if attention_mask is not None:
        raise ValueError("tree attention takes trees, not a mask")
    query = query * (scaling or query.shape[-1] ** -0.5)
    blocks: list[Tensor] = []
    start = 0
    for tree in trees:
        end = start + sum(tree)
        blocks.append(_tree(query[0, :, start:end], key[0, :, start:end], value[0, :, start:end], tree))
        start = end
    return torch.cat(blocks, dim=1)[None].transpose(1, 2).contiguous(), None


def _tree(query: Tensor, key: Tensor, value: Tensor, tree: Sequence[int]) -> Tensor:
    """One tree: `[heads, tokens, d]` in and out. The prefix attends to itself; suffixes in groups of like length."""
    prefix = tree[0]
    plan = _plan(tuple(tree), query.device)
    query, key, value = (plan.spread(tensor) for tensor in (query, key, value))
    outputs: list[Tensor] = []
    if prefix:
        repeat = query.shape[0] // key.shape[0]
        keys, values = (repeat_kv(tensor[None, :, :prefix], repeat) for tensor in (key, value))
        own = scaled_dot_product_attention(query[None, :, :prefix], keys, values, is_causal=True, scale=1.0)
        outputs.append(own[0])
    shared = (key[:, :prefix], value[:, :prefix])
    start = prefix
    for mask in plan.masks:
        rows, _, width, _ = mask.shape
        end = start + rows * width
        q, k, v = (tensor[:, start:end].unflatten(1, (rows, width)).transpose(0, 1) for tensor in (query, key, value))
        outputs.append(attend_after(q, k, v, mask, shared).transpose(0, 1).flatten(1, 2))
        start = end
    return plan.gather(torch.cat(outputs, dim=1))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where a tree's tokens stand when its suffixes are rows of tables, one table for each group of like length.

    `slots` `[S]`: the token in each place: the prefix, then table by table; places that fill up a row hold its first.
    `real` `[S]`: whether a place is not such a filler. `homes` `[tokens]`: the place of each token. `masks`: for each
    table `[rows, 1, width, width]`, True where a place may look.
    """

    slots: Tensor
    real: Tensor
    homes: Tensor
    masks: tuple[Tensor, ...]

    def spread(self, tokens: Tensor) -> Tensor:
        """`[heads, tokens, d]` -> `[heads, S, d]`."""
        return _Rearrange.apply(tokens, self.slots, self.homes, None)

    def gather(self, places: Tensor) -> Tensor:
        """`[heads, S, d]` -> `[heads, tokens, d]`."""
        return _Rearrange.apply(places, self.homes, self.slots, self.real)


class _Rearrange(torch.autograd.Function):  # type: ignore[misc]
    """`x[:, index]`, whose gradient is `g[:, back]` (0 where not `kept`): two selections, where autograd's would add.

    Fillers take no part in the loss: masked as keys, and as queries never gathered. So theirs is no gradient to add.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, index: Tensor, back: Tensor, kept: Tensor | None) -> Tensor:
        ctx.save_for_backward(back, kept)
        return tensor.index_select(1, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        back, kept = ctx.saved_tensors
        selected = gradient.index_select(1, back)
        return (selected if kept is None else selected.mul_(kept[:, None])), None, None, None


@lru_cache(maxsize=8)
def _plan(tree: tuple[int, ...], device: torch.device) -> _Plan:
    """Suffixes whose lengths differ by a quarter at most share a table. All layers of a step ask for the same."""
    prefix = tree[0]
    starts = accumulate(tree[:-1])
    spans = sorted((length, start) for length, start in zip(tree[1:], starts, strict=True) if length)
    slots, real, masks = [torch.arange(prefix)], [torch.ones(prefix, dtype=torch.bool)], list[Tensor]()
    while spans:
        group = [span for span in spans if span[0] <= spans[0][0] * 1.25 + 8]
        spans = spans[len(group) :]
        steps = torch.arange(group[-1][0])
        lengths, firsts = torch.tensor(group).T[:, :, None]
        inside = steps[None] < lengths
        slots.append((firsts + steps[None] * inside).flatten())
        real.append(inside.flatten())
        masks.append((torch.ones(len(steps), len(steps), dtype=torch.bool).tril() & inside[:, None, :])[:, None])
    order, kept = torch.cat(slots), torch.cat(real)
    homes = torch.empty(sum(tree), dtype=torch.long)
    homes[order[kept]] = kept.nonzero()[:, 0]
    return _Plan(order.to(device), kept.to(device), homes.to(device), tuple(mask.to(device) for mask in masks))


AttentionInterface.register(TREE_ATTENTION, tree_attention)
