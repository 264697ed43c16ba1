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
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from agentft.types import Encoded

__all__ = ["Node", "Pack", "PackingReport", "Sample", "epoch_packs", "make_sample", "plant", "report_packing"]

WORTH_SHARING = 16
"""Fewer tokens than these are computed again: each node costs the attention a block of its own."""

LIKE = 64
"""Samples that differ by fewer tokens are of like length."""


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


@dataclass(slots=True)
class _Tree:
    """A tree while it grows: samples with the place where each leaves the one before it."""

    members: list[tuple[int, int]] = field(default_factory=list)
    tokens: int = 0


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
    packs = [_close(samples, trees) for trees in _fill(_grow(samples, _order(samples, dice), budget), budget)]
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
    ranges = [(0, len(ranked), first if first >= WORTH_SHARING else 0, 0)]
    while ranges:
        low, high, shared, branch = ranges.pop()
        if high - low == 1:
            yield ranked[low], branch
            continue
        cuts = [
            place
            for place in range(low + 1, high)
            if common[place] < shared + max(WORTH_SHARING, (shorter[place] - shared) // 2)
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
) -> Iterator[_Tree]:
    """Trees of neighbours, each at most `budget` tokens; `apart`: what shares nothing begins a tree."""
    tree = _Tree()
    for index, shared in members:
        added = samples[index].inputs - shared
        if tree.members and (tree.tokens + added > budget or (apart and not shared)):
            yield tree
            tree = _Tree()
        branch = shared if tree.members else 0
        tree.members.append((index, branch))
        tree.tokens += samples[index].inputs - branch
    if tree.members:
        yield tree


def _alone(samples: Sequence[Sample], members: Iterable[int], budget: int) -> Iterator[list[_Tree]]:
    group: list[_Tree] = []
    longest = 0
    for index in members:
        tokens = samples[index].inputs
        longest = max(longest, tokens)
        if group and (len(group) + 1) * longest > budget:
            yield group
            group, longest = [], tokens
        group.append(_Tree([(index, 0)], tokens))
    if group:
        yield group


def _fill(trees: Iterator[_Tree], budget: int) -> list[list[_Tree]]:
    """Put whole trees together, longest first, each where the least room is left; in the order of their first ones."""
    grown = list(trees)
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []
    for number in sorted(range(len(grown)), key=lambda number: -grown[number].tokens):
        tokens = grown[number].tokens
        place = bisect_left(rooms, (tokens, -1))
        if place == len(rooms):
            bins.append([number])
            insort(rooms, (budget - tokens, len(bins) - 1))
        else:
            room, chosen = rooms.pop(place)
            bins[chosen].append(number)
            insort(rooms, (room - tokens, chosen))
    return [[grown[number] for number in chosen] for chosen in sorted(bins, key=min)]


def _close(samples: Sequence[Sample], trees: Sequence[_Tree]) -> Pack:
    nodes: list[Node] = []
    members: list[tuple[int, int]] = []
    for tree in trees:
        _add_nodes(samples, tree, nodes, members)
    unshared = sum(samples[index].inputs for index, _ in members)
    return Pack(tuple(nodes), tuple(members), sum(tree.tokens for tree in trees), unshared)


def _add_nodes(samples: Sequence[Sample], tree: _Tree, nodes: list[Node], members: list[tuple[int, int]]) -> None:
    """The nodes of a tree, each cut where a later sample leaves it, appended to `nodes`."""
    path: list[int] = []
    for number, (index, branch) in enumerate(tree.members):
        path = [node for node in path if nodes[node].end <= branch]
        start = branch
        for cut in [*_cuts(tree.members, number, samples[index].inputs), samples[index].inputs]:
            if cut > start:
                nodes.append(Node(index, start, cut, path[-1] if path else -1))
                path.append(len(nodes) - 1)
                start = cut
        members.append((index, path[-1]))


def _cuts(members: Sequence[tuple[int, int]], number: int, inputs: int) -> list[int]:
    """Where later samples leave the tokens that the `number`-th one adds."""
    own, cuts, reach = members[number][1], set[int](), inputs
    for _, branch in members[number + 1 :]:
        reach = min(reach, branch)
        if reach <= own:
            break
        cuts.add(reach)
    return sorted(cuts)
