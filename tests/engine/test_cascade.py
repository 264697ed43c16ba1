"""Partial results merged by their log-sum-exps equal attention over the whole row. Here the kernels are fp64 fakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agentft.engine import cascade
from agentft.engine.cascade import VarlenCall, cascade_attention, cascade_calls
from agentft.engine.structure import Structure

HEADS, KEY_HEADS, WIDTH = 4, 2, 8


def runs_of(part: VarlenCall) -> list[tuple[slice, slice]]:
    rows, keys = part.row_ends.tolist(), part.key_ends.tolist()
    return [(slice(*rows[i : i + 2]), slice(*keys[i : i + 2])) for i in range(len(rows) - 1)]


def scores(query: Tensor, key: Tensor, scaling: float, causal: bool) -> Tensor:
    """`[heads, rows, keys]`."""
    products = torch.einsum("qhd,khd->hqk", query, key.repeat_interleave(HEADS // KEY_HEADS, 1)) * scaling
    hidden = torch.ones(products.shape[1:], dtype=torch.bool).triu(1)
    return products.masked_fill(hidden, -torch.inf) if causal else products


def forward(query: Tensor, key: Tensor, value: Tensor, part: VarlenCall, scaling: float) -> tuple[Tensor, Tensor]:
    """The same results as `_flash_attention_forward`."""
    outputs, totals = [], []
    for rows, keys in runs_of(part):
        products = scores(query[rows], key[keys], scaling, part.causal)
        values = value[keys].repeat_interleave(HEADS // KEY_HEADS, 1)
        outputs.append(torch.einsum("hqk,khd->qhd", products.softmax(-1), values))
        totals.append(products.logsumexp(-1))
    return torch.cat(outputs), torch.cat(totals, dim=1)


def backward(seen: tuple[Tensor, ...], part: VarlenCall, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same results as `_flash_attention_backward`, which uses the log-sum-exp that is passed in."""
    gradient, query, key, value, output, total = seen
    found = (torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value))
    group = HEADS // KEY_HEADS
    for rows, keys in runs_of(part):
        shares = (scores(query[rows], key[keys], scaling, part.causal) - total[:, rows, None]).exp()
        slopes = torch.einsum("qhd,khd->hqk", gradient[rows], value[keys].repeat_interleave(group, 1))
        slopes = shares * (slopes - (gradient[rows] * output[rows]).sum(-1).t()[:, :, None]) * scaling
        found[0][rows] = torch.einsum("hqk,khd->qhd", slopes, key[keys].repeat_interleave(group, 1))
        found[1][keys] = torch.einsum("hqk,qhd->khd", slopes, query[rows]).unflatten(1, (KEY_HEADS, group)).sum(2)
        found[2][keys] = torch.einsum("hqk,qhd->khd", shares, gradient[rows]).unflatten(1, (KEY_HEADS, group)).sum(2)
    return found


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Nodes in preorder: each is a root or a child of a node on the path to the node before it."""
    nodes: list[tuple[int, int]] = []
    path: list[int] = []
    for number in range(draw(st.integers(1, 9))):
        depth = draw(st.integers(0, len(path)))
        path = path[:depth]
        nodes.append((draw(st.integers(1, 7)), path[-1] if path else -1))
        path.append(number)
    return nodes


def structure_of(nodes: list[tuple[int, int]]) -> Structure:
    starts = [sum(length for length, _ in nodes[:number]) for number in range(len(nodes) + 1)]
    below = [{number} for number in range(len(nodes))]
    for number in reversed(range(len(nodes))):
        if nodes[number][1] >= 0:
            below[nodes[number][1]] |= below[number]
    stops = [max(starts[inner + 1] for inner in numbers) for numbers in below]
    ends = torch.tensor([stop for (length, _), stop in zip(nodes, stops, strict=True) for _ in range(length)])
    return Structure(nodes, ends, torch.arange(len(ends)))


@settings(max_examples=60, deadline=None)
@given(trees())
def test_output_and_gradients_equal_those_of_a_dense_mask(nodes: list[tuple[int, int]]) -> None:
    structure = structure_of(nodes)
    length = len(structure.ends)
    random = torch.Generator().manual_seed(length)
    shapes = [(length, heads, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    tensors = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    slope = torch.randn(shapes[0], generator=random, dtype=torch.float64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cascade, "_forward", forward)
        patch.setattr(cascade, "_backward", backward)
        patch.setattr(cascade, "_mix", mix)
        cascade._blend.cache_clear()
        found = run(tensors, slope, lambda q, k, v: cascade_attention(q, k, v, structure.calls(), 0.3))
        cascade._blend.cache_clear()

    def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        products = scores(query, key, 0.3, False).masked_fill(~structure.dense()[0], -torch.inf)
        return torch.einsum("hqk,khd->qhd", products.softmax(-1), value.repeat_interleave(HEADS // KEY_HEADS, 1))

    expected = run(tensors, slope, dense)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def mix(one: Tensor, two: Tensor, difference: Tensor) -> Tensor:
    """Like `_mix`, but in fp64."""
    return torch.lerp(one, two, difference.sigmoid().t()[:, :, None])


def run(tensors: list[Tensor], slope: Tensor, attention: Any) -> list[Tensor]:
    """Output and gradients."""
    inputs = [tensor.clone().requires_grad_() for tensor in tensors]
    output = attention(*inputs)
    (output * slope).sum().backward()
    return [output.detach(), *(tensor.grad for tensor in inputs if tensor.grad is not None)]


def test_partial_outputs_merge_to_a_weighted_mean_in_their_dtype() -> None:
    one, two = torch.zeros(3, 2, 4, dtype=torch.bfloat16), torch.ones(3, 2, 4, dtype=torch.bfloat16)

    mixed = cascade._mix(one, two, torch.full((2, 3), 1.0))

    torch.testing.assert_close(mixed, torch.full_like(one, torch.tensor(1.0).sigmoid().item()))


def test_there_is_one_call_for_each_level_of_ancestors() -> None:
    parts = cascade_calls([(5, -1), (3, 0), (2, 1), (4, 1), (6, 0), (7, -1)], torch.device("cpu"))

    assert [part.causal for part in parts] == [True, False, False]
    assert parts[0].rows == slice(0, 27)
    assert (parts[1].rows, parts[1].keys, parts[1].row_ends.tolist()) == (slice(5, 20), slice(0, 5), [0, 15])
    assert (parts[2].rows, parts[2].keys, parts[2].key_ends.tolist()) == (slice(8, 14), slice(5, 8), [0, 3])
