"""Attention over a pack's prefix trees. Masked scores are not computed at all.

On CUDA, FlashAttention computes it level by level (`cascade`); windows, soft caps and fp32 use flex_attention with a
block mask. On the CPU it is computed node by node: each node attends to its ancestors and itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv

from agentft.engine.cascade import cascade_attention
from agentft.engine.structure import Structure

__all__ = ["TREE_ATTENTION", "tree_attention", "unshareable"]

TREE_ATTENTION = "agentft_tree"
"""The name of this attention in transformers."""

SIXTEEN_BIT = (torch.bfloat16, torch.float16)


def tree_attention(
    module: Any,  # noqa: ARG001 - transformers' signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    structure: Structure | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function for one row of packs.

    Args:
        module: the layer.
        query: `[1, heads, L, d]`; key and value `[1, key heads, L, d]`.
        attention_mask: must be None; the structure takes its place.
        structure: which token attends to which; required.
        sliding_window: number of tokens of its sample that a token attends to, including itself; None: no window.
        softcap: scores are soft-capped at plus and minus this value; None: no cap.

    Returns:
        `[1, L, heads, d]`, and None for the attention weights.
    """
    if attention_mask is not None:
        raise ValueError("tree attention takes a structure, not a mask")
    if structure is None:
        raise ValueError(
            "tree attention needs the structure of a pack; for anything else, such as generation, first call "
            'model.set_attn_implementation("sdpa")'
        )
    window = sliding_window if structure.needs(sliding_window) else None
    scaling = scaling or query.shape[-1] ** -0.5
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary embeddings make them fp32 under autocast
    flash = query.is_cuda and torch.cuda.get_device_capability(query.device) >= (8, 0) and query.shape[-1] <= 256
    if flash and window is None and softcap is None and value.dtype in SIXTEEN_BIT:
        query, key, value = (tensor.transpose(1, 2)[0] for tensor in (query, key, value))
        return cascade_attention(query, key, value, structure.calls(), scaling)[None], None
    if query.is_cuda:
        output = _flex(softcap)(query, key, value, block_mask=structure.blocks(window), scale=scaling, enable_gqa=True)
    elif window is not None or softcap is not None:
        output = _dense(query * scaling, key, value, structure.dense(window), softcap)
    else:
        output = _by_nodes(query * scaling, key, value, structure.nodes)
    return output.transpose(1, 2).contiguous(), None


@cache
def _flex(softcap: float | None) -> Any:
    """flex_attention, compiled: uncompiled, it would compute all scores."""
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.config.recompile_limit = 256  # it is compiled for each row length
    if softcap is None:
        return torch.compile(flex_attention, dynamic=False)

    def cap(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:  # noqa: ARG001
        return softcap * torch.tanh(score / softcap)

    def capped(*args: Any, **settings: Any) -> Any:
        return flex_attention(*args, score_mod=cap, **settings)

    return torch.compile(capped, dynamic=False)


def _dense(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, softcap: float | None) -> Tensor:
    """Attention with a dense mask, `[1, heads, L, d]`; the query is already scaled."""
    repeat = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, repeat), repeat_kv(value, repeat)
    if softcap is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) / softcap)
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1) @ value


def _by_nodes(query: Tensor, key: Tensor, value: Tensor, nodes: Sequence[tuple[int, int]]) -> Tensor:
    """Attention node by node, `[1, heads, L, d]`; the query is already scaled."""
    queries, keys, values = (tensor.split([length for length, _ in nodes], dim=2) for tensor in (query, key, value))
    paths: list[list[int]] = []  # of each node: its ancestors from the root, and itself
    outputs = []
    for number, (length, parent) in enumerate(nodes):
        paths.append([*paths[parent], number] if parent >= 0 else [number])
        key, value = (torch.cat([parts[node] for node in paths[number]], dim=2) for parts in (keys, values))
        before = key.shape[2] - length
        mask = torch.ones(length, before + length, dtype=torch.bool).tril(before) if before else None
        output = scaled_dot_product_attention(
            queries[number], key, value, mask, is_causal=mask is None, scale=1.0, enable_gqa=True
        )
        outputs.append(output)
    return torch.cat(outputs, dim=2)


def unshareable(model: Any) -> str:
    """Why samples of a pack cannot share computation in this model, or would not be isolated; empty if they can."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or [])
    if other := kinds - {"full_attention", "sliding_attention"}:
        return f"has unsupported layer types: {', '.join(sorted(other))}"
    if model._is_stateful:
        return "carries a state from token to token"
    if model.config.model_type == "nemotron":
        return "does not pass keyword arguments on to its attention"
    if any(hasattr(part, "sinks") for part in model.modules()):
        return "has attention sinks"
    if not model._supports_attention_backend or "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return "has custom attention, or cannot compute logits for selected positions only"
    return ""


AttentionInterface.register(TREE_ATTENTION, tree_attention)
