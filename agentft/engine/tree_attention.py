"""Attention over a pack's prefix trees. Masked scores are not computed at all.

On CUDA, FlashAttention computes it level by level (`cascade`); windows, soft caps and fp32 use flex_attention with a
block mask. On the CPU it is computed node by node: each node attends to its ancestors and itself. With a prefix of
1,070 tokens and 22 suffixes of 90 (SmolLM2, bf16, one core), a layer takes 0.51 s forward and backward instead of
0.92 s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv

from agentft.engine.cascade import cascade_attention
from agentft.engine.shared_prefix import attend_after
from agentft.engine.structure import Structure

__all__ = ["TREE_ATTENTION", "tree_attention"]

TREE_ATTENTION = "agentft_tree"
"""The name of this attention in transformers."""

SIXTEEN_BIT = (torch.bfloat16, torch.float16)
TokenRange = tuple[int, int]
"""A half-open range of token indices in the row."""


def tree_attention(
    module: Any,  # noqa: ARG001 - transformers' signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    structure: Structure,
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
        structure: which token attends to which.
        sliding_window: number of tokens of its sample that a token attends to, including itself; None: no window.
        softcap: scores are soft-capped at plus and minus this value; None: no cap.

    Returns:
        `[1, L, heads, d]`, and None for the attention weights.
    """
    if attention_mask is not None:
        raise ValueError("tree attention takes a structure, not a mask")
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


def _by_nodes(query: Tensor, key: Tensor, value: Tensor, nodes: tuple[tuple[int, int], ...]) -> Tensor:
    """Attention node by node, `[1, heads, L, d]`; the query is already scaled."""
    plan = _plan(nodes, query.device)
    spread = [plan.spread(tensor[0]) for tensor in (query, key, value)]
    outputs: list[Tensor] = []
    start = 0
    for table in plan.tables:
        end = start + table.rows * table.width
        q, k, v = (t[:, start:end].unflatten(1, (table.rows, table.width)).transpose(0, 1) for t in spread)
        outputs.append(_attend((q, k, v), table, key[0], value[0]).transpose(0, 1).flatten(1, 2))
        start = end
    return plan.gather(torch.cat(outputs, dim=1))[None]


def _attend(own: tuple[Tensor, Tensor, Tensor], table: _Table, keys: Tensor, values: Tensor) -> Tensor:
    """`[rows, heads, width, d]`: each table row attends to itself and to its ancestors in `keys` and `values`."""
    query, key, value = own
    if table.mask is not None:
        return attend_after(query, key, value, table.mask, (_cut(keys, table.path), _cut(values, table.path)))
    repeat = query.shape[1] // key.shape[1]
    return scaled_dot_product_attention(
        query, repeat_kv(key, repeat), repeat_kv(value, repeat), is_causal=True, scale=1.0
    )


def _cut(tokens: Tensor, path: Sequence[TokenRange]) -> Tensor:
    parts = [tokens[:, start:end] for start, end in path]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


@dataclass(frozen=True, slots=True)
class _Table:
    """Nodes of similar length with the same ancestors, as `rows` padded to `width`.

    `path`: the ancestors' tokens. `mask` `[rows, 1, width, width]`: True where a token attends; None: the table is a
    single root.
    """

    rows: int
    width: int
    path: tuple[TokenRange, ...]
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """The layout of tokens in tables.

    `slots` `[S]`: the token in each slot, table by table; padding holds the first token of its table row. `real` `[S]`:
    False for padding. `homes` `[L]`: the slot of each token.
    """

    slots: Tensor
    real: Tensor
    homes: Tensor
    tables: tuple[_Table, ...]

    def spread(self, tokens: Tensor) -> Tensor:
        """`[heads, L, d]` -> `[heads, S, d]`."""
        return _Rearrange.apply(tokens, self.slots, self.homes, None)

    def gather(self, places: Tensor) -> Tensor:
        """`[heads, S, d]` -> `[heads, L, d]`."""
        return _Rearrange.apply(places, self.homes, self.slots, self.real)


class _Rearrange(torch.autograd.Function):  # type: ignore[misc]
    """`x[:, index]`, with the gradient `g[:, back]` (0 where not `kept`), which is faster than autograd's scatter-add.

    Padding contributes no gradient: it is masked as a key, and its query's output is never gathered.
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
def _plan(nodes: tuple[tuple[int, int], ...], device: torch.device) -> _Plan:
    """Cached, because all layers of a step use the same plan."""
    starts = list(accumulate((length for length, _ in nodes), initial=0))
    slots, real, tables = list[Tensor](), list[Tensor](), list[_Table]()
    for path, group in _tables(nodes, starts):
        lengths, firsts = torch.tensor(group).T[:, :, None]
        steps = torch.arange(int(lengths.max()))
        inside = steps[None] < lengths
        slots.append((firsts + steps[None] * inside).flatten())
        real.append(inside.flatten())
        mask = torch.ones(len(steps), len(steps), dtype=torch.bool).tril() & inside[:, None, :]
        tables.append(_Table(len(group), len(steps), path, mask[:, None].to(device) if path else None))
    order, kept = torch.cat(slots), torch.cat(real)
    homes = torch.empty(starts[-1], dtype=torch.long)
    homes[order[kept]] = kept.nonzero()[:, 0]
    return _Plan(order.to(device), kept.to(device), homes.to(device), tuple(tables))


def _tables(
    nodes: Sequence[tuple[int, int]], starts: Sequence[int]
) -> Iterator[tuple[tuple[TokenRange, ...], list[tuple[int, int]]]]:
    """The path and the nodes' (length, start) of each table: one root, or siblings that are about equally long."""
    paths: list[tuple[TokenRange, ...]] = []
    children: dict[int, list[tuple[int, int]]] = {}
    for number, (length, parent) in enumerate(nodes):
        paths.append((*(paths[parent] if parent >= 0 else ()), (starts[number], starts[number + 1])))
        if parent < 0:
            yield (), [(length, starts[number])]
        else:
            children.setdefault(parent, []).append((length, starts[number]))
    for parent, spans in children.items():
        remaining = sorted(spans)
        while remaining:
            group = [span for span in remaining if span[0] <= remaining[0][0] * 1.25 + 8]
            remaining = remaining[len(group) :]
            yield paths[parent], group


AttentionInterface.register(TREE_ATTENTION, tree_attention)
