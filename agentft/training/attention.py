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

__all__ = ["TREE_ATTENTION", "tree_attention"]

TREE_ATTENTION = "agentft_tree"
"""The name under which transformers knows it."""


def tree_attention(
    module: Any,
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
        module: the layer, whose groups of heads share keys.
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
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    blocks: list[Tensor] = []
    start = 0
    for prefix, *suffixes in trees:
        parts = (query[:, :, start:], key[:, :, start:], value[:, :, start:])
        blocks += _tree(parts, prefix, suffixes, scaling)
        start += prefix + sum(suffixes)
    return torch.cat(blocks, dim=2).transpose(1, 2).contiguous(), None


def _tree(
    parts: tuple[Tensor, Tensor, Tensor], prefix: int, suffixes: Sequence[int], scaling: float | None
) -> Iterator[Tensor]:
    query, key, value = parts
    if prefix:
        q, k, v = (tensor[:, :, :prefix] for tensor in parts)
        yield scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    start = prefix
    for length in filter(None, suffixes):
        end = start + length
        keys = torch.cat([key[:, :, :prefix], key[:, :, start:end]], dim=2)
        values = torch.cat([value[:, :, :prefix], value[:, :, start:end]], dim=2)
        mask = torch.ones(length, prefix + length, dtype=torch.bool, device=query.device).tril(prefix)
        yield scaled_dot_product_attention(query[:, :, start:end], keys, values, attn_mask=mask, scale=scaling)
        start = end


AttentionInterface.register(TREE_ATTENTION, tree_attention)
