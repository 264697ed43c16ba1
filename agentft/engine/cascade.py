"""Attention over prefix trees with FlashAttention: one call within the nodes, and one for each level of ancestors.

A token attends causally to its own node and fully to each ancestor. The partial results are merged by their
log-sum-exps. The backward pass of each call gets the merged output and log-sum-exp, so its probabilities are those of
the whole row. No mask is needed, and the keys of a shared prefix are distributed over the GPU, which flex_attention
does not do.
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

Index: TypeAlias = slice | Tensor


@dataclass(frozen=True, slots=True)
class VarlenCall:
    """One FlashAttention call on sequences of varying length: queries of sequence `i` attend to keys of sequence `i`.

    `rows`, `keys`: indices of the queries' and keys' tokens in the batch row. `row_ends`, `key_ends` `[sequences + 1]`,
    int32: cumulative lengths, starting with 0. `max_rows`, `max_keys`: length of the longest sequence. `causal`: a
    query attends to keys up to its own position.
    """

    rows: Index
    keys: Index
    row_ends: Tensor
    key_ends: Tensor
    max_rows: int
    max_keys: int
    causal: bool

    def arguments(self) -> tuple[Tensor, Tensor, int, int, float, bool]:
        """What FlashAttention's forward and backward pass both take: lengths, dropout and `causal`."""
        return self.row_ends, self.key_ends, self.max_rows, self.max_keys, 0.0, self.causal


def cascade_calls(nodes: Sequence[tuple[int, int]], device: torch.device) -> list[VarlenCall]:
    """The calls for nodes (tokens, parent) in preorder: one within all nodes, then one for each level of ancestors."""
    starts = list(accumulate((length for length, _ in nodes), initial=0))
    ends = subtree_ends([parent for _, parent in nodes], starts)
    depths, inner = list[int](), {parent for _, parent in nodes}
    for _, parent in nodes:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    own = [(starts[number], starts[number + 1]) for number in range(len(nodes))]
    calls = [_call(own, own, device, causal=True)]
    for level in range(max(depths) + 1):
        ancestors = [number for number, depth in enumerate(depths) if depth == level and number in inner]
        if ancestors:
            descendants = [(starts[number + 1], ends[number]) for number in ancestors]
            calls.append(_call(descendants, [own[number] for number in ancestors], device, causal=False))
    return calls


def cascade_attention(query: Tensor, key: Tensor, value: Tensor, calls: Sequence[VarlenCall], scaling: float) -> Tensor:
    """`[L, heads, d]` for queries `[L, heads, d]`, keys and values `[L, key heads, d]`, in bf16 or fp16."""
    return _Cascade.apply(query, key, value, calls, scaling)


def _call(
    rows: list[tuple[int, int]], keys: list[tuple[int, int]], device: torch.device, *, causal: bool
) -> VarlenCall:
    (row_ends, max_rows), (key_ends, max_keys) = _lengths(rows, device), _lengths(keys, device)
    return VarlenCall(_index(rows, device), _index(keys, device), row_ends, key_ends, max_rows, max_keys, causal)


def _lengths(ranges: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, int]:
    lengths = [end - start for start, end in ranges]
    return send(torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32), device), max(lengths)


def _index(ranges: list[tuple[int, int]], device: torch.device) -> Index:
    if all(one[1] == two[0] for one, two in pairwise(ranges)):
        return slice(ranges[0][0], ranges[-1][1])
    return send(torch.cat([torch.arange(start, end) for start, end in ranges]), device)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy `tensor` to the device asynchronously."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class _Cascade(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(  # noqa: PLR0917 - `apply` passes positional arguments
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: Sequence[VarlenCall], scaling: float
    ) -> Tensor:
        within, *levels = calls
        output, total = _forward(query, key, value, within, scaling)
        for call in levels:
            more, sums = _forward(query[call.rows], key[call.keys], value[call.keys], call, scaling)
            previous = total[:, call.rows]
            output[call.rows] = _blend(query.is_cuda)(output[call.rows], more, sums - previous)
            total[:, call.rows] = torch.logaddexp(previous, sums)
        ctx.save_for_backward(query, key, value, output, total)
        ctx.calls, ctx.scaling = calls, scaling
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, output, total = ctx.saved_tensors
        within, *levels = ctx.calls
        gradient = gradient.contiguous()
        d_query, d_key, d_value = _backward((gradient, query, key, value, output, total), within, ctx.scaling)
        for call in levels:
            rows, keys = call.rows, call.keys
            tensors = (gradient[rows], query[rows], key[keys], value[keys], output[rows], total[:, rows].contiguous())
            more = _backward(tensors, call, ctx.scaling)
            d_query[rows] += more[0]
            d_key[keys] += more[1]
            d_value[keys] += more[2]
        return d_query, d_key, d_value, None, None


def _mix(one: Tensor, two: Tensor, difference: Tensor) -> Tensor:
    """Merge partial outputs `[rows, heads, d]`. `difference` `[heads, rows]`: log-sum-exp of `two` minus `one`'s."""
    return torch.lerp(one.float(), two.float(), difference.sigmoid().t()[:, :, None]).to(one.dtype)


@cache
def _blend(compiled: bool) -> Any:
    return torch.compile(_mix, dynamic=True) if compiled else _mix


def _forward(query: Tensor, key: Tensor, value: Tensor, call: VarlenCall, scaling: float) -> tuple[Tensor, Tensor]:
    """The output `[rows, heads, d]`, and the log-sum-exp of each row's scores `[heads, rows]`, fp32."""
    attend = torch.ops.aten._flash_attention_forward
    output, total, *_ = attend(query, key, value, *call.arguments(), False, scale=scaling)
    return output, total


def _backward(tensors: tuple[Tensor, ...], call: VarlenCall, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value. `tensors`: gradient, query, key, value, output, log-sum-exp."""
    unused = torch.empty(2, dtype=torch.uint64, device=tensors[0].device)  # the random state of dropout
    differentiate = torch.ops.aten._flash_attention_backward
    d_query, d_key, d_value = differentiate(*tensors, *call.arguments(), unused, unused, scale=scaling)
    return d_query, d_key, d_value
