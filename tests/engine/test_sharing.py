"""Which prefixes are shared, and how trees fill packs, with the constants of training."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, fields

import pytest

from agentft.engine.packing import (
    Node,
    Pack,
    PackingReport,
    Sample,
    epoch_packs,
    make_sample,
    pack_in_order,
    report_packing,
)
from agentft.types import Encoded
from tests.engine.samples import make


def branching(shared: int, more: Sequence[int], first: int = 1000, stem: int = 0) -> list[Sample]:
    """Samples that share `shared` tokens, followed by `more` inputs of their own."""
    common = list(range(first, first + shared))
    own = [[first + 100 * (row + 1) + at for at in range(count + 1)] for row, count in enumerate(more)]
    return [make([*common, *rest], {shared + len(rest) - 1: 1.0}, row, stem) for row, rest in enumerate(own)]


def spans(pack: Pack) -> list[tuple[int, int, int]]:
    """(start, end, parent) of the nodes, sorted among those with the same parent."""
    return sorted((node.start, node.end, node.parent) for node in pack.nodes)


def sizes(packs: Sequence[Pack]) -> list[list[int]]:
    """The members of each pack."""
    return sorted(sorted(member for member, _ in pack.members) for pack in packs)


@pytest.mark.parametrize(("shared", "nodes"), [(15, [(0, 65, -1)] * 3), (16, [(0, 16, -1), *[(16, 66, 0)] * 3])])
def test_a_prefix_of_16_tokens_is_shared_and_a_shorter_one_is_computed_again(
    shared: int, nodes: list[tuple[int, int, int]]
) -> None:
    (pack,) = epoch_packs(branching(shared, [50, 50, 50]), 1000, 0, 0)
    assert spans(pack) == nodes


@pytest.mark.parametrize("other", [100, 5000], ids=["sorted before", "sorted after"])
@pytest.mark.parametrize("second", [40, 41])
@pytest.mark.parametrize(("shared", "together"), [(19, False), (20, True)])
def test_two_samples_get_a_node_if_they_share_half_of_the_shorter_ones_remaining_tokens(
    other: int, second: int, shared: int, together: bool
) -> None:
    inside = branching(20 + shared, [90, second - shared], 1000)
    apart = make([*range(1000, 1020), *range(other, other + 71)], {90: 1.0}, 2)
    (pack,) = epoch_packs([*inside, apart], 1000, 0, 0)
    assert (0, 20, -1) in spans(pack)
    assert ((20, 20 + shared, 0) in spans(pack)) is together
    assert sum(node.parent == 0 for node in pack.nodes) == (2 if together else 3)


@pytest.mark.parametrize(("shared", "together"), [(15, False), (16, True)])
def test_a_node_within_a_tree_has_16_tokens_or_more(shared: int, together: bool) -> None:
    inside = branching(20 + shared, [9, 8], 1000)
    apart = branching(20, [70, 70], 1000)[1]
    (pack,) = epoch_packs([*inside, apart], 1000, 0, 0)
    assert sum(node.parent == 0 for node in pack.nodes) == (2 if together else 3)


def test_samples_with_different_stems_are_in_different_trees() -> None:
    one, two = branching(30, [20, 20], 1000, stem=30), branching(30, [20, 20], 5000, stem=30)
    for seed in range(4):
        (pack,) = epoch_packs([*one, *two], 1000, seed, 0)
        assert spans(pack)[:2] == [(0, 30, -1)] * 2
        assert [node.end - node.start for node in pack.nodes] == [30, 20, 20, 30, 20, 20]
        assert pack.tokens == 140


def test_one_sample_is_one_root() -> None:
    (pack,) = epoch_packs(branching(0, [30]), 1000, 0, 0)
    assert pack == Pack((Node(0, 0, 30, -1),), ((0, 0),), 30, 30)


def test_the_order_depends_on_the_epoch_and_the_seed() -> None:
    samples = [sample for first in range(1000, 9000, 1000) for sample in branching(20, [9, 9], first)]
    orders = [epoch_packs(samples, 50, seed, epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0), (0, 0)]]
    assert orders[0] == orders[3]
    assert len({tuple(pack.members for pack in packs) for packs in orders}) == 3
    assert [sizes(packs) for packs in orders] == [sizes(orders[0])] * 4
    alone = [epoch_packs(samples, 100, seed, epoch, share=False) for seed, epoch in [(0, 0), (0, 1), (1, 0), (0, 0)]]
    assert alone[0] == alone[3]
    assert len({tuple(pack.members for pack in packs) for packs in alone}) == 3


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(59, [[0], [1], [2], [3]]), (60, [[0, 1], [2, 3]]), (79, [[0, 1], [2, 3]]), (80, [[0, 1, 2], [3]])],
)
def test_a_tree_takes_the_next_sample_if_its_new_tokens_fit(budget: int, expected: list[list[int]]) -> None:
    samples = branching(20, [20] * 4)
    packs = pack_in_order(samples, range(4), budget)
    assert [[member for member, _ in pack.members] for pack in packs] == expected
    assert [pack.tokens for pack in packs] == [20 + 20 * len(pack) for pack in expected]
    assert all(pack.nodes[0].start == 0 for pack in packs)


def test_planted_samples_that_share_nothing_are_roots_of_one_pack() -> None:
    samples = [sample for first in range(1000, 5000, 1000) for sample in branching(0, [10], first)]
    (pack,) = pack_in_order(samples, range(4))
    assert spans(pack) == [(0, 10, -1)] * 4
    (pack,) = pack_in_order(samples, [2])
    assert pack.members == ((2, 0),)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(29, [[0, 1], [2], [3, 4], [5]]), (30, [[0, 1], [2], [3, 4, 5]]), (8, [[0], [1], [2], [3], [4], [5]])],
)
def test_without_sharing_samples_count_as_long_as_the_longest_of_their_pack(
    budget: int, expected: list[list[int]]
) -> None:
    lengths = [9, 10, 20, 10, 9, 8]
    samples = [sample for row, count in enumerate(lengths) for sample in branching(0, [count], 1000 * row)]
    packs = pack_in_order(samples, range(6), budget, share=False)
    assert [[member for member, _ in pack.members] for pack in packs] == expected
    assert all(node.parent == -1 and node.start == 0 for pack in packs for node in pack.nodes)


def test_without_sharing_equal_samples_are_roots_too() -> None:
    samples = branching(20, [20] * 3)
    (pack,) = pack_in_order(samples, range(3), 120, share=False)
    (other,) = epoch_packs(samples, 120, 0, 0, share=False)
    assert spans(pack) == spans(other) == [(0, 40, -1)] * 3
    assert pack.tokens == pack.unshared == 120


@pytest.mark.parametrize(("one", "two", "mixed"), [(63, 64, False), (64, 127, True), (127, 128, False)])
def test_without_sharing_samples_within_64_tokens_count_as_equally_long(one: int, two: int, mixed: bool) -> None:
    samples = [sample for row in range(40) for sample in branching(0, [(one, two)[row % 2]], 1000 * row)]
    packs = epoch_packs(samples, 5 * two, 0, 0, share=False)
    found = [{samples[member].inputs for member, _ in pack.members} for pack in packs]
    assert ({one, two} in found) is mixed


@pytest.mark.parametrize(
    ("counts", "packs"),
    [
        ([7, 5, 3, 5], [[0, 2], [1, 3]]),
        ([6, 5, 4], [[0, 2], [1]]),
        ([6, 5, 5, 4, 3], [[0, 3], [1, 2], [4]]),
        ([9, 8, 7, 3, 2, 1], [[0, 5], [1, 4], [2, 3]]),
        ([9, 8, 2], [[0], [1, 2]]),
        ([7, 6, 3], [[0, 2], [1]]),
        ([10, 12, 1], [[0], [1], [2]]),
        ([5, 5, 1], [[0, 1], [2]]),
    ],
)
def test_trees_are_packed_by_best_fit_the_largest_first(counts: list[int], packs: list[list[int]]) -> None:
    samples = [sample for row, count in enumerate(counts) for sample in branching(0, [count], 1000 * row)]
    found = epoch_packs(samples, 10, 0, 0)
    assert sizes(found) == packs
    assert sorted(pack.tokens for pack in found) == sorted(sum(counts[row] for row in pack) for pack in packs)


def test_the_report_counts_unused_tokens_and_an_oversized_pack_as_full() -> None:
    one, two = Pack((), ((0, 0), (1, 0)), 8, 12), Pack((), ((2, 0),), 24, 24)
    assert report_packing([one], 10) == PackingReport(2, 1, 8, 12, 0.8, 1.5)
    assert report_packing([one, two], 16) == PackingReport(3, 2, 32, 36, 0.8, 1.125)
    assert report_packing([Pack((), ((0, 0),), 1, 1)], 1) == PackingReport(1, 1, 1, 1, 1.0, 1.0)
    assert report_packing([], 10) == PackingReport(0, 0, 0, 0, 0.0, 0.0)


@pytest.mark.parametrize(("stem", "kept"), [(0, 0), (2, 2), (3, 3), (9, 3)])
def test_a_sample_ends_with_its_last_supervised_token_and_so_does_its_stem(stem: int, kept: int) -> None:
    encoded = Encoded(array("i", (5, 6, 7, 8)), (0.5, 0.25, 2.0, 0.0), (0,) * 4)
    made = make_sample(3, "x", encoded, stem)
    assert made == Sample(3, "x", array("i", [5, 6, 7]), array("i", [1, 2]), array("d", [0.25, 2.0]), kept)
    assert make_sample(3, "x", encoded) == make_sample(3, "x", encoded, 0)


def test_without_sharing_samples_of_one_length_bucket_are_shuffled() -> None:
    samples = [make([row + 1, *range(60 + row % 4)], {40: 1.0}, row) for row in range(12)]
    (pack,) = epoch_packs(samples, 10_000, 0, 0, share=False)
    lengths = [samples[index].inputs for index, _ in pack.members]
    assert lengths != sorted(lengths)


def test_packs_and_their_samples_cannot_be_changed() -> None:
    sample = make([1, 2, 3], {2: 1.0}, 0)
    (pack,) = pack_in_order([sample], [0])
    for record in (sample, pack, pack.nodes[0], report_packing([pack], 8)):
        with pytest.raises(FrozenInstanceError):
            setattr(record, fields(record)[0].name, None)
