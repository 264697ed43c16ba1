"""A pack as the tensors of one row: positions that restart after the prefix, a tree mask, and supervised rows only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from agentft.data.packing import Pack, Sample, Tree

__all__ = ["Batch", "collate"]


class Batch(TypedDict):
    """One pack of L tokens with R supervised targets.

    `attention_mask` `[1, 1, L, L]`: True where row may see column. `logits_to_keep` `[R]`: the row that predicts each
    target; rows repeat where samples branch off a shared prefix. `owners` `[R]`: index of the target's sample. `trees`:
    for each tree the length of its prefix, then those of its suffixes (the mask in other words).
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    logits_to_keep: Tensor
    targets: Tensor
    weights: Tensor
    owners: Tensor
    trees: list[list[int]]


class _Row:
    """The lists that a pack's tensors are made from, grown tree by tree."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.trees: list[int] = []
        self.branches: list[int] = []
        self.sources: list[int] = []
        self.targets: list[int] = []
        self.weights: list[float] = []
        self.owners: list[int] = []

    def add_tree(self, number: int, tree: Tree, samples: Sequence[Sample]) -> None:
        start = len(self.tokens)
        self._add_tokens(number, 0, samples[tree.members[0]], 0, tree.prefix)
        for branch, member in enumerate(tree.members, 1):
            sample = samples[member]
            shift = len(self.tokens) - tree.prefix
            self._add_tokens(number, branch, sample, tree.prefix, sample.inputs)
            for place, weight in zip(sample.places, sample.weights, strict=True):
                source = place - 1
                self.sources.append(source + (start if source < tree.prefix else shift))
                self.targets.append(sample.tokens[place])
                self.weights.append(weight)
                self.owners.append(member)

    def pad(self, number: int, multiple: int) -> int:
        """Fill up to a multiple of tokens and of targets, which weigh nothing; the number of tokens added."""
        tokens = -len(self.tokens) % multiple
        self.tokens.extend([0] * tokens)
        self.positions.extend(range(tokens))
        self.trees.extend([number] * tokens)
        self.branches.extend([0] * tokens)
        targets = -len(self.targets) % multiple
        self.sources.extend(self.sources[:1] * targets)
        self.targets.extend(self.targets[:1] * targets)
        self.weights.extend([0.0] * targets)
        self.owners.extend(self.owners[:1] * targets)
        return tokens

    def _add_tokens(self, number: int, branch: int, sample: Sample, start: int, end: int) -> None:
        self.tokens.extend(sample.tokens[start:end])
        self.positions.extend(range(start, end))
        self.trees.extend([number] * (end - start))
        self.branches.extend([branch] * (end - start))


def collate(pack: Pack, samples: Sequence[Sample], multiple: int = 1) -> Batch:
    """The tensors of `pack`, whose trees index into `samples`.

    `multiple`: L and R are filled up to a multiple of it, by tokens that nothing sees and targets without weight. Some
    libraries compile for each new shape (oneDNN's bf16 products: two seconds a step), so there should be few.
    """
    row = _Row()
    for number, tree in enumerate(pack.trees):
        row.add_tree(number, tree, samples)
    trees = [[tree.prefix, *(samples[m].inputs - tree.prefix for m in tree.members)] for tree in pack.trees]
    if padding := row.pad(len(trees), multiple):
        trees.append([padding])
    return Batch(
        input_ids=torch.tensor([row.tokens]),
        position_ids=torch.tensor([row.positions]),
        attention_mask=_tree_mask(torch.tensor(row.trees), torch.tensor(row.branches))[None, None],
        logits_to_keep=torch.tensor(row.sources),
        targets=torch.tensor(row.targets),
        weights=torch.tensor(row.weights, dtype=torch.float32),
        owners=torch.tensor(row.owners),
        trees=trees,
    )


def _tree_mask(trees: Tensor, branches: Tensor) -> Tensor:
    """`[L, L]`: a token sees what stands before it in its own tree: the prefix (branch 0) and its own branch."""
    order = torch.arange(len(trees))
    before = order[:, None] >= order[None, :]
    kin = trees[:, None] == trees[None, :]
    branch = (branches[None, :] == 0) | (branches[:, None] == branches[None, :])
    return before & kin & branch
