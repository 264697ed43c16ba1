"""Packs as the tensors of one row: positions as in each sample alone, who sees whom, and supervised rows only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TypedDict

import torch
from torch import Tensor

from agentft.data.packing import Node, Pack, Sample

__all__ = ["Batch", "collate"]


class Batch(TypedDict):
    """Packs as one row of L tokens with R supervised targets.

    `input_ids`, `position_ids` `[1, L]`. `ends` `[L]`: where the subtree of each token's node ends, so that place `i`
    sees place `j` if `j <= i < ends[j]`. `nodes`: (tokens, parent) of each node in the row's order, parent -1 for
    roots: the same in other words. `tokens`: L without what fills it up. `logits_to_keep` `[R]`: the place that
    predicts each target; places repeat where samples branch. `targets`, `weights`, `owners` `[R]`: its token, weight
    and sample.
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
    """The lists that the tensors are made from, grown pack by pack."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.ends: list[int] = []
        self.nodes: list[tuple[int, int]] = []
        self.sources: list[int] = []
        self.targets: list[int] = []
        self.weights: list[float] = []
        self.owners: list[int] = []

    def add(self, pack: Pack, samples: Sequence[Sample]) -> None:
        """Append a pack."""
        base, first = len(self.nodes), len(self.tokens)
        starts = list(accumulate((node.end - node.start for node in pack.nodes), initial=first))
        for node in pack.nodes:
            self.tokens.extend(samples[node.sample].tokens[node.start : node.end])
            self.positions.extend(range(node.start, node.end))
            self.nodes.append((node.end - node.start, node.parent + base if node.parent >= 0 else -1))
        for node, end in zip(pack.nodes, _subtree_ends(pack.nodes, starts), strict=True):
            self.ends.extend([end] * (node.end - node.start))
        for index, leaf in pack.members:
            self._add_targets(index, samples[index], pack.nodes, starts, leaf)

    def pad(self, multiple: int) -> None:
        """Fill up to a multiple of tokens, which nothing sees, and of targets, which weigh nothing."""
        tokens = -len(self.tokens) % multiple
        if tokens:
            self.nodes.append((tokens, -1))
        self.tokens.extend([0] * tokens)
        self.positions.extend(range(tokens))
        self.ends.extend([len(self.tokens)] * tokens)
        targets = -len(self.targets) % multiple
        self.sources.extend(self.sources[:1] * targets)
        self.targets.extend(self.targets[:1] * targets)
        self.weights.extend([0.0] * targets)
        self.owners.extend(self.owners[:1] * targets)

    def _add_targets(self, index: int, sample: Sample, nodes: Sequence[Node], starts: Sequence[int], leaf: int) -> None:
        path = [leaf]
        while nodes[path[-1]].parent >= 0:
            path.append(nodes[path[-1]].parent)
        for place, weight in zip(sample.places, sample.weights, strict=True):
            while nodes[path[-1]].end < place:
                path.pop()
            node = path[-1]
            self.sources.append(starts[node] + place - 1 - nodes[node].start)
            self.targets.append(sample.tokens[place])
            self.weights.append(weight)
            self.owners.append(index)


def collate(packs: Sequence[Pack], samples: Sequence[Sample], multiple: int = 1) -> Batch:
    """The tensors of `packs`, whose nodes index into `samples`.

    `multiple`: L and R are filled up to a multiple of it. Some libraries compile for each new shape (oneDNN's bf16
    products: two seconds a step), so there should be few.
    """
    row = _Row()
    for pack in packs:
        row.add(pack, samples)
    row.pad(multiple)
    return Batch(
        input_ids=torch.tensor([row.tokens]),
        position_ids=torch.tensor([row.positions]),
        ends=torch.tensor(row.ends),
        nodes=row.nodes,
        tokens=sum(pack.tokens for pack in packs),
        logits_to_keep=torch.tensor(row.sources),
        targets=torch.tensor(row.targets),
        weights=torch.tensor(row.weights, dtype=torch.float32),
        owners=torch.tensor(row.owners),
    )


def _subtree_ends(nodes: Sequence[Node], starts: Sequence[int]) -> list[int]:
    """The place after the last token of each node's subtree; `starts` holds the row's end too."""
    ends = list(starts[1:])
    for number in range(len(nodes) - 1, -1, -1):
        parent = nodes[number].parent
        if parent >= 0:
            ends[parent] = max(ends[parent], ends[number])
    return ends
