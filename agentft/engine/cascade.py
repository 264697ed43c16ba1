"""Attention over prefix trees by FlashAttention: one call for all nodes on themselves, one for each level above.

A token sees its own node up to itself, and each ancestor completely. The results are merged by their log-sum-exps. In
the backward pass each call gets the merged output and log-sum-exp, so that its probabilities are those of the whole
row. No mask is needed, and the keys of a shared prefix are spread over the card, which flex_attention does not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from agentft.engine.collation import subtree_ends

__all__ = ["VarlenCall", "cascade_attention", "cascade_calls", "send"]

Where: TypeAlias = slice | Tensor


@dataclass(frozen=True, slots=True)
class VarlenCall:
    """One FlashAttention call with runs of varying length: queries of run `i` attend to keys of run `i`.

    `rows`, `keys`: places of the tokens in the row. `row_ends`, `key_ends` `[runs + 1]`, int32: cumulative lengths,
    beginning with 0. `most_rows`, `most_keys`: length of the longest run. `causal`: a query sees keys up to itself.
    """

    rows: Where
    keys: Where
    row_ends: Tensor
    key_ends: Tensor
    most_rows: int
    most_keys: int
    causal: bool


def cascade_calls(nodes: Sequence[tuple[int, int]], device: torch.device) -> list[VarlenCall]:
    """The calls for nodes (tokens, parent) in preorder: nodes on themselves, then one call for each level."""
    starts = list(accumulate((length for length, _ in nodes), initial=0))
    ends = subtree_ends([parent for _, parent in nodes], starts)
    depths, inner = list[int](), {parent for _, parent in nodes}
    for _, parent in nodes:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    own = [(starts[number], starts[number + 1]) for number in range(len(nodes))]
    parts = [_call(own, own, device, causal=True)]
    for level in range(max(depths) + 1):
        chosen = [number for number, depth in enumerate(depths) if depth == level and number in inner]
        if chosen:
            below = [(starts[number + 1], ends[number]) for number in chosen]
            parts.append(_call(below, [own[number] for number in chosen], device, causal=False))
    return parts


def cascade_attention(query: Tensor, key: Tensor, value: Tensor, parts: Sequence[VarlenCall], scaling: float) -> Tensor:
    """`[L, heads, d]` for queries `[L, heads, d]`, keys and values `[L, key heads, d]`, in bf16 or fp16."""
    return _Cascade.apply(query, key, value, parts, scaling)


def _call(
    rows: list[tuple[int, int]], keys: list[tuple[int, int]], device: torch.device, *, causal: bool
) -> VarlenCall:
    (row_ends, most_rows), (key_ends, most_keys) = _lengths(rows, device), _lengths(keys, device)
    return VarlenCall(_where(rows, device), _where(keys, device), row_ends, key_ends, most_rows, most_keys, causal)


def _lengths(runs: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, int]:
    lengths = [end - start for start, end in runs]
    return send(torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32), device), max(lengths)


def _where(runs: list[tuple[int, int]], device: torch.device) -> Where:
    if all(one[1] == two[0] for one, two in pairwise(runs)):
        return slice(runs[0][0], runs[-1][1])
    return send(torch.cat([torch.arange(start, end) for start, end in runs]), device)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting for its queue."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class _Cascade(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(  # noqa: PLR0917 - what `apply` is given
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: Sequence[VarlenCall], scaling: float
    ) -> Tensor:
        whole, *above = parts
        output, total = _forward(query, key, value, whole, scaling)
        for part in above:
            more, sums = _forward(query[part.rows], key[part.keys], value[part.keys], part, scaling)
            known = total[:, part.rows]
            output[part.rows] = _blend(query.is_cuda)(output[part.rows], more, sums - known)
            total[:, part.rows] = torch.logaddexp(known, sums)
        ctx.save_for_backward(query, key, value, output, total)
        ctx.parts, ctx.scaling = parts, scaling
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, output, total = ctx.saved_tensors
        whole, *above = ctx.parts
        gradient = gradient.contiguous()
        of_query, of_key, of_value = _backward((gradient, query, key, value, output, total), whole, ctx.scaling)
        for part in above:
            rows, keys = part.rows, part.keys
            seen = (gradient[rows], query[rows], key[keys], value[keys], output[rows], total[:, rows].contiguous())
            more = _backward(seen, part, ctx.scaling)
            of_query[rows] += more[0]
            of_key[keys] += more[1]
            of_value[keys] += more[2]
        return of_query, of_key, of_value, None, None


def _mix(one: Tensor, two: Tensor, lead: Tensor) -> Tensor:
    """`one` and `two` `[rows, heads, d]`, where the log-sum-exp of `two` is greater by `lead` `[heads, rows]`."""
    return torch.lerp(one.float(), two.float(), lead.sigmoid().t()[:, :, None]).to(one.dtype)


@cache
def _blend(compiled: bool) -> Any:
    return torch.compile(_mix, dynamic=True) if compiled else _mix


def _forward(query: Tensor, key: Tensor, value: Tensor, part: VarlenCall, scaling: float) -> tuple[Tensor, Tensor]:
    """The output `[rows, heads, d]`, and the log-sum-exp of each row's scaled products `[heads, rows]`, fp32."""
    output, total, *_ = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        part.row_ends,
        part.key_ends,
        part.most_rows,
        part.most_keys,
        0.0,
        part.causal,
        False,
        scale=scaling,
    )
    return output, total


def _backward(seen: tuple[Tensor, ...], part: VarlenCall, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, given (gradient, query, key, value, output, log-sum-exp)."""
    unused = torch.empty(2, dtype=torch.uint64, device=seen[0].device)
    of_query, of_key, of_value = torch.ops.aten._flash_attention_backward(
        *seen,
        part.row_ends,
        part.key_ends,
        part.most_rows,
        part.most_keys,
        0.0,
        part.causal,
        unused,
        unused,
        scale=scaling,
    )
    return of_query, of_key, of_value
