"""Packs: samples that start with the same tokens share the computation of these tokens, to any depth.

A pack is one batch row that holds prefix trees: a node's tokens are computed once for all samples below it. Shared
prefixes nest: first the system text and tools, then the turns of one conversation. No token attends to a token outside
its own sample, so loss and gradient equal those of the samples trained one by one.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, count, pairwise, takewhile
from typing import TypeAlias

import numpy as np

from agentft.types import Encoded

__all__ = [
    "MIN_SHARED",
    "Node",
    "Pack",
    "PackingReport",
    "Sample",
    "Tree",
    "common_prefix",
    "epoch_packs",
    "make_pack",
    "make_sample",
    "pack_in_order",
    "report_packing",
]

Tree: TypeAlias = list[tuple[int, int]]
"""(sample, branch): the sample shares its first `branch` tokens with the sample before it."""

MIN_SHARED = 16
"""Shorter shared prefixes are computed again, because each node costs the attention a separate block."""

LENGTH_BUCKET = 64
"""Length-bucket width in tokens. Without sharing, samples within a bucket are packed in random order."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A training sample, cut after its last supervised token.

    `tokens` `[n]`: the last one is only a target, never an input. `places` `[r]`: indices of the supervised tokens,
    with their `weights` `[r]`. `stem`: number of leading tokens that are system text and tools.
    """

    row: int
    id: str
    tokens: array[int]
    places: array[int]
    weights: array[float]
    stem: int = 0

    @property
    def inputs(self) -> int:
        """The number of input tokens."""
        return len(self.tokens) - 1


@dataclass(frozen=True, slots=True)
class Node:
    """Tokens `[start, end)` of `sample` and of every sample below it. `parent`: index in the pack; -1: a root."""

    sample: int
    start: int
    end: int
    parent: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Trees that are computed as one row of `tokens` tokens; computed separately, the samples have `unshared` tokens.

    `nodes`: in preorder, which is the order of their tokens in the row. `members`: (sample, its last node), in the same
    order.
    """

    nodes: tuple[Node, ...]
    members: tuple[tuple[int, int], ...]
    tokens: int
    unshared: int


@dataclass(frozen=True, slots=True)
class PackingReport:
    """Statistics of a packing. `fill`: fraction of the budget that is used. `sharing`: unshared / computed tokens."""

    samples: int
    packs: int
    tokens: int
    unshared: int
    fill: float
    sharing: float


def make_sample(row: int, name: str, encoded: Encoded, stem: int = 0) -> Sample | None:
    """Cut `encoded` after its last supervised token. None if no token after the first is supervised."""
    weights = encoded.loss_weights
    places = [place for place in compress(count(), weights) if place]
    if not places:
        return None
    end = places[-1] + 1
    tokens, values = encoded.input_ids[:end], array("d", [weights[place] for place in places])
    return Sample(row, name, tokens, array("i", places), values, min(stem, end))


def epoch_packs(samples: Sequence[Sample], budget: int, seed: int, epoch: int, *, share: bool = True) -> list[Pack]:
    """All samples, each exactly once, in packs of at most `budget` tokens, shuffled by `seed` and `epoch`.

    A sample that is longer than the budget gets a separate pack. Without `share`, see `pack_in_order`.
    """
    rng = random.Random(f"agentft/{seed}/{epoch}")
    if not share:
        order = sorted(range(len(samples)), key=lambda index: (samples[index].inputs // LENGTH_BUCKET, rng.random()))
        packs = pack_in_order(samples, order, budget, share=False)
        rng.shuffle(packs)
        return packs
    trees = list(_build_trees(samples, _order(samples, rng), budget))
    packs = [make_pack(samples, chosen) for chosen in _fill(samples, trees, budget)]
    rng.shuffle(packs)
    return packs


def pack_in_order(
    samples: Sequence[Sample], members: Sequence[int], budget: float = math.inf, *, share: bool = True
) -> list[Pack]:
    """Pack these samples in this order, sharing every common prefix of neighbours; start a new pack at the budget.

    Without `share`, each sample is a root, and every sample of a pack counts with the length of the longest, since
    all are padded to it.
    """
    if not share:
        return [make_pack(samples, trees) for trees in _group_padded(samples, members, budget)]
    shared = [0, *(common_prefix(samples[one], samples[two]) for one, two in pairwise(members))]
    trees = _build_trees(samples, zip(members, shared, strict=True), budget, split=False)
    return [make_pack(samples, [tree]) for tree in trees]


def report_packing(packs: Sequence[Pack], budget: int) -> PackingReport:
    """Statistics of `packs` that were made for `budget`."""
    tokens = sum(pack.tokens for pack in packs)
    unshared = sum(pack.unshared for pack in packs)
    room = sum(max(budget, pack.tokens) for pack in packs)
    members = sum(len(pack.members) for pack in packs)
    return PackingReport(members, len(packs), tokens, unshared, tokens / max(room, 1), unshared / max(tokens, 1))


def common_prefix(one: Sample, two: Sample) -> int:
    """The number of leading inputs that two samples share."""
    limit = min(one.inputs, two.inputs)
    differs = np.frombuffer(one.tokens, np.intc, limit) != np.frombuffer(two.tokens, np.intc, limit)
    return int(differs.argmax()) if differs.any() else limit


def _order(samples: Sequence[Sample], rng: random.Random) -> Iterator[tuple[int, int]]:
    """The samples in random order, each with the number of tokens that it shares with the sample before it.

    Samples with the same stem are adjacent, and among them those that share at least half of their remaining tokens, as
    the turns of one conversation do. Shorter common prefixes do not affect the order, so that a step sees a random mix.
    """
    stems: dict[bytes, list[int]] = {}
    for index, sample in enumerate(samples):
        stems.setdefault(sample.tokens[: sample.stem].tobytes(), []).append(index)
    for members in stems.values():
        yield from _order_group(samples, members, rng)


def _order_group(samples: Sequence[Sample], members: Sequence[int], rng: random.Random) -> Iterator[tuple[int, int]]:
    ranked = sorted(members, key=lambda index: samples[index].tokens)
    common = [0, *(common_prefix(samples[one], samples[two]) for one, two in pairwise(ranked))]
    shorter = [0, *(min(samples[one].inputs, samples[two].inputs) for one, two in pairwise(ranked))]
    # (low, high, shared, branch): `ranked[low:high]` share `shared` tokens; the first branches off at `branch`.
    first = min(common[1:], default=0)
    ranges = [(0, len(ranked), first if first >= MIN_SHARED else 0, 0)]
    while ranges:
        low, high, shared, branch = ranges.pop()
        if high - low == 1:
            yield ranked[low], branch
            continue
        cuts = [
            place
            for place in range(low + 1, high)
            if common[place] < shared + max(MIN_SHARED, (shorter[place] - shared) // 2)
        ]
        if not cuts:
            ranges.append((low, high, min(common[low + 1 : high]), branch))
            continue
        parts = sorted(pairwise([low, *cuts, high]), key=lambda part: min(ranked[part[0] : part[1]]))
        rng.shuffle(parts)
        ranges += [(start, end, shared, shared) for start, end in reversed(parts[1:])]
        ranges.append((*parts[0], shared, branch))


def _build_trees(
    samples: Sequence[Sample], members: Iterable[tuple[int, int]], budget: float, *, split: bool = True
) -> Iterator[Tree]:
    """Trees of adjacent samples, each at most `budget` tokens. `split`: a sample that shares nothing starts a tree."""
    tree: Tree = []
    tokens = 0
    for index, shared in members:
        inputs = samples[index].inputs
        if tree and (tokens + inputs - shared > budget or (split and not shared)):
            yield tree
            tree, tokens = [], 0
        branch = shared if tree else 0
        tree.append((index, branch))
        tokens += inputs - branch
    if tree:
        yield tree


def _group_padded(samples: Sequence[Sample], members: Iterable[int], budget: float) -> Iterator[list[Tree]]:
    """Groups of single-sample trees that stay within `budget` tokens when padded to their longest sample."""
    group: list[Tree] = []
    longest = 0
    for index in members:
        tokens = samples[index].inputs
        longest = max(longest, tokens)
        if group and (len(group) + 1) * longest > budget:
            yield group
            group, longest = [], tokens
        group.append([(index, 0)])
    if group:
        yield group


def _size(samples: Sequence[Sample], tree: Tree) -> int:
    return sum(samples[index].inputs - branch for index, branch in tree)


def _fill(samples: Sequence[Sample], trees: Sequence[Tree], budget: int) -> list[list[Tree]]:
    """Group whole trees by best fit, longest first. The groups are in the order of their first trees."""
    sizes = [_size(samples, tree) for tree in trees]
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []
    for number in sorted(range(len(trees)), key=lambda number: -sizes[number]):
        place = bisect_left(rooms, (sizes[number], -1))
        if place == len(rooms):
            bins.append([number])
            insort(rooms, (budget - sizes[number], len(bins) - 1))
        else:
            room, chosen = rooms.pop(place)
            bins[chosen].append(number)
            insort(rooms, (room - sizes[number], chosen))
    return [[trees[number] for number in chosen] for chosen in sorted(bins, key=min)]


def make_pack(samples: Sequence[Sample], trees: Sequence[Tree]) -> Pack:
    """The pack of these trees, in this order."""
    nodes: list[Node] = []
    members: list[tuple[int, int]] = []
    for tree in trees:
        _add_nodes(samples, tree, nodes, members)
    unshared = sum(samples[index].inputs for index, _ in members)
    return Pack(tuple(nodes), tuple(members), sum(_size(samples, tree) for tree in trees), unshared)


def _add_nodes(samples: Sequence[Sample], tree: Tree, nodes: list[Node], members: Tree) -> None:
    """Append the nodes of a tree to `nodes`; a node is split wherever a later sample branches off."""
    path: list[int] = []
    for number, (index, branch) in enumerate(tree):
        path = [node for node in path if nodes[node].end <= branch]
        for start, end in pairwise([branch, *_ends(tree, number, samples[index].inputs)]):
            nodes.append(Node(index, start, end, path[-1] if path else -1))
            path.append(len(nodes) - 1)
        members.append((index, path[-1]))


def _ends(tree: Tree, number: int, inputs: int) -> list[int]:
    """The ends of the nodes that sample `number` adds: wherever a later sample branches off, and its own end."""
    own = tree[number][1]
    branches = accumulate((branch for _, branch in tree[number + 1 :]), min, initial=inputs)
    return sorted(set(takewhile(lambda place: place > own, branches)))
