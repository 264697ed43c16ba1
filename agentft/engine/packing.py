"""Packs: samples that open with the same tokens share the computation of those tokens, to any depth.

A pack is one row for the model and holds prefix trees: a node's tokens are computed once for all samples below it. The
same system text and tools, the rounds of one conversation and the samples of its turns nest. No token sees a token
outside its own sample, so loss and gradient are those of the samples trained one by one.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from typing import TypeAlias

import numpy as np

from agentft.types import Encoded

__all__ = ["Node", "Pack", "PackingReport", "Sample", "epoch_packs", "make_sample", "plant", "report_packing"]

Tree: TypeAlias = list[tuple[int, int]]
"""Samples with the place where each leaves the one before it."""

MIN_SHARED = 16
"""Shorter shared prefixes are computed again: each node costs the attention a block of its own."""

LIKE = 64
"""Samples whose lengths differ by fewer tokens count as equally long."""


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
class Node:
    """Tokens `[start, end)` of `sample`, and of every sample below. `parent`: its index in the pack; -1: a root."""

    sample: int
    start: int
    end: int
    parent: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Trees that are computed as one row of `tokens` tokens; apart, the samples would be `unshared` tokens.

    `nodes`: in preorder, which is how their tokens stand in the row. `members`: (sample, the node that it ends in), in
    that order too.
    """

    nodes: tuple[Node, ...]
    members: tuple[tuple[int, int], ...]
    tokens: int
    unshared: int


@dataclass(frozen=True, slots=True)
class PackingReport:
    """What packing came to. `fill`: mean share of the budget that is used. `sharing`: unshared / computed tokens."""

    samples: int
    packs: int
    tokens: int
    unshared: int
    fill: float
    sharing: float


def make_sample(row: int, name: str, encoded: Encoded, stem: int = 0) -> Sample | None:
    """Cut `encoded` after its last supervised token; None if nothing that can be predicted is supervised."""
    places = [place for place, weight in enumerate(encoded.loss_weights) if weight > 0 and place > 0]
    if not places:
        return None
    end = places[-1] + 1
    weights = array("d", (encoded.loss_weights[place] for place in places))
    return Sample(row, name, array("i", encoded.input_ids[:end]), array("i", places), weights, min(stem, end))


def epoch_packs(samples: Sequence[Sample], budget: int, seed: int, epoch: int, *, share: bool = True) -> list[Pack]:
    """All samples, each exactly once, in packs of at most `budget` tokens, in the order of `seed` and `epoch`.

    A sample that is longer than the budget gets a pack of its own. Without `share`, see `plant`.
    """
    dice = random.Random(f"agentft/{seed}/{epoch}")
    if not share:
        order = sorted(range(len(samples)), key=lambda index: (samples[index].inputs // LIKE, dice.random()))
        packs = plant(samples, order, budget, share=False)
        dice.shuffle(packs)
        return packs
    trees = list(_grow(samples, _order(samples, dice), budget))
    packs = [_close(samples, filled) for filled in _fill(samples, trees, budget)]
    dice.shuffle(packs)
    return packs


def plant(
    samples: Sequence[Sample], members: Sequence[int], budget: int = 1 << 60, *, share: bool = True
) -> list[Pack]:
    """Packs of these samples in this order, which share all they can; a new one where the next does not fit.

    Without `share`, each is a root, and the budget holds as many as there are with all filled up to the longest.
    """
    if not share:
        return [_close(samples, trees) for trees in _alone(samples, members, budget)]
    shared = [0, *(_common(samples[one], samples[two]) for one, two in pairwise(members))]
    return [_close(samples, [tree]) for tree in _grow(samples, zip(members, shared, strict=True), budget, apart=False)]


def report_packing(packs: Sequence[Pack], budget: int) -> PackingReport:
    """Sum up `packs` that were made for `budget`."""
    tokens = sum(pack.tokens for pack in packs)
    unshared = sum(pack.unshared for pack in packs)
    room = sum(max(budget, pack.tokens) for pack in packs)
    members = sum(len(pack.members) for pack in packs)
    return PackingReport(members, len(packs), tokens, unshared, tokens / max(room, 1), unshared / max(tokens, 1))


def _common(one: Sample, two: Sample) -> int:
    """How many leading inputs two samples share."""
    most = min(one.inputs, two.inputs)
    unlike = np.frombuffer(one.tokens, np.intc, most) != np.frombuffer(two.tokens, np.intc, most)
    return int(unlike.argmax()) if unlike.any() else most


def _order(samples: Sequence[Sample], dice: random.Random) -> Iterator[tuple[int, int]]:
    """The samples in an order of the dice, with how much each is to share with the one before.

    Those with one stem stand together, and among them those that share at least half of what is left, as the turns of
    one conversation do. Others do not, though they may open alike: a step should see samples as they come.
    """
    stems: dict[bytes, list[int]] = {}
    for index, sample in enumerate(samples):
        stems.setdefault(sample.tokens[: sample.stem].tobytes(), []).append(index)
    for alike in stems.values():
        yield from _order_group(samples, alike, dice)


def _order_group(samples: Sequence[Sample], members: Sequence[int], dice: random.Random) -> Iterator[tuple[int, int]]:
    ranked = sorted(members, key=lambda index: samples[index].tokens)
    common = [0, *(_common(samples[one], samples[two]) for one, two in pairwise(ranked))]
    shorter = [0, *(min(samples[one].inputs, samples[two].inputs) for one, two in pairwise(ranked))]
    # Ranges of samples that share `shared` tokens; the first of them leaves what stands before at `branch`.
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
        dice.shuffle(parts)
        ranges += [(start, end, shared, shared) for start, end in reversed(parts[1:])]
        ranges.append((*parts[0], shared, branch))


def _grow(
    samples: Sequence[Sample], members: Iterable[tuple[int, int]], budget: int, *, apart: bool = True
) -> Iterator[Tree]:
    """Trees of neighbours, each at most `budget` tokens; `apart`: what shares nothing begins a tree."""
    tree: Tree = []
    tokens = 0
    for index, shared in members:
        inputs = samples[index].inputs
        if tree and (tokens + inputs - shared > budget or (apart and not shared)):
            yield tree
            tree, tokens = [], 0
        branch = shared if tree else 0
        tree.append((index, branch))
        tokens += inputs - branch
    if tree:
        yield tree


def _alone(samples: Sequence[Sample], members: Iterable[int], budget: int) -> Iterator[list[Tree]]:
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
    """Put whole trees together, longest first, each where the least room is left; in the order of their first ones."""
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


def _close(samples: Sequence[Sample], trees: Sequence[Tree]) -> Pack:
    nodes: list[Node] = []
    members: list[tuple[int, int]] = []
    for tree in trees:
        _add_nodes(samples, tree, nodes, members)
    unshared = sum(samples[index].inputs for index, _ in members)
    return Pack(tuple(nodes), tuple(members), sum(_size(samples, tree) for tree in trees), unshared)


def _add_nodes(samples: Sequence[Sample], tree: Tree, nodes: list[Node], members: Tree) -> None:
    """The nodes of a tree, each cut where a later sample leaves it, appended to `nodes`."""
    path: list[int] = []
    for number, (index, branch) in enumerate(tree):
        path = [node for node in path if nodes[node].end <= branch]
        for start, end in pairwise([branch, *_ends(tree, number, samples[index].inputs)]):
            nodes.append(Node(index, start, end, path[-1] if path else -1))
            path.append(len(nodes) - 1)
        members.append((index, path[-1]))


def _ends(tree: Tree, number: int, inputs: int) -> list[int]:
    """Where later samples leave the tokens that the `number`-th one adds, and where these end."""
    own = tree[number][1]
    reach = accumulate((branch for _, branch in tree[number + 1 :]), min, initial=inputs)
    return sorted(set(takewhile(lambda place: place > own, reach)))
