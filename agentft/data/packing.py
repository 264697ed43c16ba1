"""Packs: samples that open with the same tokens (the same system text and tools) share the computation of that prefix.

A pack is one row for the model. It holds one or more trees: a prefix, and the suffixes that continue it. No token sees
a token outside its own sample, so loss and gradient are those of the samples trained one by one.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agentft.types import Encoded

__all__ = ["Pack", "PackingReport", "Sample", "Tree", "epoch_packs", "make_sample", "report_packing"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A row that can be trained on, cut after its last supervised token.

    `tokens` `[n]`: the last one is a target only, never an input. `places` `[r]`: indices of the supervised tokens,
    with their `weights` `[r]`. `stem`: how many leading tokens are system text and tools.
    """

    row: int
    id: str
    tokens: array[int]
    places: array[int]
    weights: array[float]
    stem: int = 0

    @property
    def inputs(self) -> int:
        """How many tokens the model reads."""
        return len(self.tokens) - 1


@dataclass(frozen=True, slots=True)
class Tree:
    """Samples (by index) that share their first `prefix` tokens."""

    prefix: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Trees that are computed as one row of `tokens` tokens; apart, the samples would be `unshared` tokens."""

    trees: tuple[Tree, ...]
    tokens: int
    unshared: int

    @property
    def members(self) -> Iterator[int]:
        """The indices of the samples, in the order in which they stand in the row."""
        return (member for tree in self.trees for member in tree.members)


@dataclass(frozen=True, slots=True)
class PackingReport:
    """What packing came to. `fill`: mean share of the budget that is used. `sharing`: unshared / computed tokens."""

    samples: int
    packs: int
    tokens: int
    unshared: int
    fill: float
    sharing: float


@dataclass(slots=True)
class _Open:
    """A pack that is still being filled."""

    trees: list[Tree] = field(default_factory=list)
    tokens: int = 0


def make_sample(row: int, name: str, encoded: Encoded, stem: int = 0) -> Sample | None:
    """Cut `encoded` after its last supervised token; None if nothing that can be predicted is supervised."""
    places = [place for place, weight in enumerate(encoded.loss_weights) if weight > 0 and place > 0]
    if not places:
        return None
    end = places[-1] + 1
    weights = array("d", (encoded.loss_weights[place] for place in places))
    return Sample(row, name, array("i", encoded.input_ids[:end]), array("i", places), weights, min(stem, end))


def epoch_packs(samples: Sequence[Sample], budget: int, seed: int, epoch: int) -> list[Pack]:
    """All samples, each exactly once, in packs of at most `budget` tokens, in the order of `seed` and `epoch`.

    A sample that is longer than the budget gets a pack of its own.
    """
    dice = random.Random(f"agentft/{seed}/{epoch}")
    full: list[_Open] = []
    rest: list[tuple[Tree, int]] = []
    for group in _groups(samples):
        dice.shuffle(group)
        trees = _grow(samples, group, budget)
        full += (_Open([tree], tokens) for tree, tokens in trees[:-1])
        rest.append(trees[-1])
    packs = [_close(samples, pack) for pack in full + _first_fit(rest, budget)]
    dice.shuffle(packs)
    return packs


def report_packing(packs: Sequence[Pack], budget: int) -> PackingReport:
    """Sum up `packs` that were made for `budget`."""
    tokens = sum(pack.tokens for pack in packs)
    unshared = sum(pack.unshared for pack in packs)
    room = sum(max(budget, pack.tokens) for pack in packs)
    members = sum(len(tree.members) for pack in packs for tree in pack.trees)
    return PackingReport(members, len(packs), tokens, unshared, tokens / max(room, 1), unshared / max(tokens, 1))


def _groups(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of samples with the same stem."""
    groups: dict[bytes, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.tokens[: sample.stem].tobytes(), []).append(index)
    return list(groups.values())


def _grow(samples: Sequence[Sample], group: Sequence[int], budget: int) -> list[tuple[Tree, int]]:
    """Trees of one group with their sizes, filled in order; only the last may be far from full."""
    prefix = _common_prefix([samples[index] for index in group])
    trees: list[tuple[Tree, int]] = []
    members: list[int] = []
    size = prefix
    for index in group:
        suffix = samples[index].inputs - prefix
        if members and size + suffix > budget:
            trees.append((Tree(prefix, tuple(members)), size))
            members, size = [], prefix
        members.append(index)
        size += suffix
    trees.append((Tree(prefix, tuple(members)), size))
    return trees


def _common_prefix(group: Sequence[Sample]) -> int:
    """How many input tokens all samples share: the common prefix of the least and the greatest is that of all."""
    low = min(group, key=lambda sample: sample.tokens).tokens
    high = max(group, key=lambda sample: sample.tokens).tokens
    most = min(sample.inputs for sample in group)
    return next((place for place in range(most) if low[place] != high[place]), most)


def _first_fit(trees: list[tuple[Tree, int]], budget: int) -> list[_Open]:
    """Put whole trees together, longest first."""
    packs: list[_Open] = []
    for tree, tokens in sorted(trees, key=lambda entry: -entry[1]):
        pack = next((pack for pack in packs if pack.tokens + tokens <= budget), None)
        if pack is None:
            pack = _Open()
            packs.append(pack)
        pack.trees.append(tree)
        pack.tokens += tokens
    return packs


def _close(samples: Sequence[Sample], pack: _Open) -> Pack:
    unshared = sum(samples[member].inputs for tree in pack.trees for member in tree.members)
    return Pack(tuple(pack.trees), pack.tokens, unshared)
