"""Packs -> tensors of one batch row: tokens, positions within each sample, tree structure and supervised targets."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agentft.engine.packing import Node, Pack, Sample

__all__ = ["Batch", "collate", "subtree_ends"]

Array: TypeAlias = npt.NDArray[Any]


class Batch(TypedDict):
    """Packs as one row of L tokens with R supervised targets.

    `input_ids`, `position_ids` `[1, L]`. `ends` `[L]`: the end of the subtree of each token's node; token `i` attends
    to token `j` if `j <= i < ends[j]`. `nodes`: the same structure as (tokens, parent) of each node in row order;
    parent -1 is a root. `tokens`: L without padding. `logits_to_keep` `[R]`: the position that predicts each target;
    positions repeat where samples branch. `targets`, `weights`, `owners` `[R]`: each target's token, weight and sample.
    """

    input_ids: Tensor
    position_ids: Tensor
    ends: Tensor
    nodes: list[tuple[int, int]]
    tokens: int
    logits_to_keep: Tensor
    targets: Tensor
    weights: Tensor
    owners: Tensor


class _Row:
    """Collects arrays pack by pack; they are joined to tensors at the end."""

    def __init__(self) -> None:
        self.length = 0
        self.nodes: list[tuple[int, int]] = []
        self.tokens: list[Array] = []
        self.positions: list[Array] = []
        self.ends: list[Array] = []
        self.sources: list[Array] = []
        self.targets: list[Array] = []
        self.weights: list[Array] = []
        self.owners: list[Array] = []

    def add(self, pack: Pack, samples: Sequence[Sample]) -> None:
        """Append a pack."""
        base = len(self.nodes)
        starts = list(accumulate((node.end - node.start for node in pack.nodes), initial=self.length))
        ends = subtree_ends([node.parent for node in pack.nodes], starts)
        for node, end in zip(pack.nodes, ends, strict=True):
            self.tokens.append(_view(samples[node.sample].tokens)[node.start : node.end])
            self.positions.append(np.arange(node.start, node.end))
            self.ends.append(np.full(node.end - node.start, end))
            self.nodes.append((node.end - node.start, node.parent + base if node.parent >= 0 else -1))
        self.length = starts[-1]
        for index, leaf in pack.members:
            self._add_targets(index, samples[index], pack.nodes, starts, leaf)

    def pad(self, multiple: int) -> None:
        """Pad to a multiple with tokens that no other token attends to, and with targets of weight 0."""
        if tokens := -self.length % multiple:
            self.length += tokens
            self.nodes.append((tokens, -1))
            self.tokens.append(np.zeros(tokens, np.int64))
            self.positions.append(np.arange(tokens))
            self.ends.append(np.full(tokens, self.length))
        if targets := -sum(map(len, self.targets)) % multiple:
            for arrays in (self.sources, self.targets, self.owners):
                arrays.append(np.full(targets, arrays[0][0]))
            self.weights.append(np.zeros(targets))

    def _add_targets(self, index: int, sample: Sample, nodes: Sequence[Node], starts: Sequence[int], leaf: int) -> None:
        places = _view(sample.places)
        sources = np.empty(len(places), np.int64)
        node = leaf
        while node >= 0:
            # A target is predicted at the position before it, which must be inside the node `[start, end)`.
            inside = (places > nodes[node].start) & (places <= nodes[node].end)
            sources[inside] = places[inside] - 1 + starts[node] - nodes[node].start
            node = nodes[node].parent
        self.sources.append(sources)
        self.targets.append(_view(sample.tokens)[places])
        self.weights.append(np.frombuffer(sample.weights, np.double))
        self.owners.append(np.full(len(places), index))


def collate(packs: Sequence[Pack], samples: Sequence[Sample], multiple: int = 1) -> Batch:
    """The tensors of `packs`, whose nodes index into `samples`.

    `multiple`: pad L and R to a multiple of it. This keeps the number of shapes small, because some libraries compile
    for each new shape (compiling oneDNN's bf16 matmuls takes two seconds per step).
    """
    row = _Row()
    for pack in packs:
        row.add(pack, samples)
    row.pad(multiple)
    return Batch(
        input_ids=_join(row.tokens)[None],
        position_ids=_join(row.positions)[None],
        ends=_join(row.ends),
        nodes=row.nodes,
        tokens=sum(pack.tokens for pack in packs),
        logits_to_keep=_join(row.sources),
        targets=_join(row.targets),
        weights=torch.from_numpy(np.concatenate(row.weights).astype(np.float32)),
        owners=_join(row.owners),
    )


def _view(numbers: array[int]) -> Array:
    return np.frombuffer(numbers, np.intc)


def _join(arrays: Sequence[Array]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays).astype(np.int64))


def subtree_ends(parents: Sequence[int], starts: Sequence[int]) -> list[int]:
    """The end of each subtree, for nodes in preorder. `starts`: the start of each node, and the end of the row."""
    ends = list(starts[1:])
    for number in range(len(parents) - 1, -1, -1):
        if parents[number] >= 0:
            ends[parents[number]] = max(ends[parents[number]], ends[number])
    return ends
