"""Attention over a pack's trees, block by block: what the dense tree mask hides is not computed at all.

A prefix attends to itself, each suffix to its prefix and itself. With a prefix of 1,070 tokens and 22 suffixes of 90,
SmolLM2's shape in bf16 on one core, a layer's attention takes 0.51 s forward and backward instead of 0.92 s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    outputs: list[Tensor] = []
    places: list[Tensor] = []
    if prefix:
        repeat = query.shape[0] // key.shape[0]
        keys, values = (repeat_kv(tensor[None, :, :prefix], repeat) for tensor in (key, value))
        own = scaled_dot_product_attention(query[None, :, :prefix], keys, values, is_causal=True, scale=1.0)
        outputs.append(own[0])
        places.append(torch.arange(prefix, device=query.device))
    shared = (key[:, :prefix], value[:, :prefix])
    for index, real in _grouped(tree, query.device):
        rows, width = index.shape
        q, k, v = (tensor[:, index].transpose(0, 1) for tensor in (query, key, value))
        mask = (torch.ones(width, width, dtype=torch.bool, device=query.device).tril() & real[:, None, :])[:, None]
        said = attend_after(q, k, v, mask, shared).transpose(0, 1)
        outputs.append(said.reshape(query.shape[0], rows * width, -1)[:, real.flatten()])
        places.append(index[real])
    order = torch.cat(places).argsort()
    return torch.cat(outputs, dim=1)[:, order]


def _grouped(tree: Sequence[int], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Suffixes as rows of a table, those together whose lengths differ by a quarter at most.

    Yields:
        (places `[rows, width]` in the tree, padded at the end with the row's first; which of them are real).
    """
    starts = [sum(tree[: number + 1]) for number in range(len(tree) - 1)]
    spans = sorted((length, start) for length, start in zip(tree[1:], starts, strict=True) if length)
    while spans:
        shortest = spans[0][0]
        group = [span for span in spans if span[0] <= shortest * 1.25 + 8]
        spans = spans[len(group) :]
        width = group[-1][0]
        steps = torch.arange(width, device=device)
        lengths = torch.tensor([length for length, _ in group], device=device)[:, None]
        places = torch.tensor([start for _, start in group], device=device)[:, None]
        real = steps[None] < lengths
        yield places + steps[None] * real, real


AttentionInterface.register(TREE_ATTENTION, tree_attention)
