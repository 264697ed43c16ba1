"""Packs are dealt to processes completely, evenly and reproducibly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentft.engine.dealing import deal, pack_cost
from agentft.engine.packing import Node, Pack

COSTS = st.lists(st.floats(1, 1e6), max_size=40)


@given(COSTS, st.integers(1, 8))
def test_every_pack_is_dealt_once_and_no_two_hands_differ_by_more_than_a_pack(costs: list[float], hands: int) -> None:
    dealt = deal(costs, hands)

    assert len(dealt) == hands
    assert sorted(number for hand in dealt for number in hand) == list(range(len(costs)))
    assert all(hand == sorted(hand) for hand in dealt)
    work = [sum(costs[number] for number in hand) for hand in dealt]
    assert max(work) - min(work) <= max(costs, default=0) * (1 + 1e-9)
    assert dealt == deal(costs, hands)
    if len(costs) >= hands:
        assert all(dealt), "a process is idle although there is a pack for it"


def test_the_largest_packs_are_dealt_first() -> None:
    assert deal([1, 2, 3, 4, 9], 2) == [[0, 4], [1, 2, 3]]
    assert deal([5, 5, 5, 5], 2) == [[0, 2], [1, 3]]
    assert deal([7], 3) == [[0], [], []]


def test_attention_counts_as_much_as_it_costs() -> None:
    """Four branches of 10 tokens behind 100 shared ones: each token attends to all before it in its own sample."""
    stem = Node(0, 0, 100, -1)
    branches = [Node(number, 100, 110, 0) for number in range(4)]
    pack = Pack((stem, *branches), tuple((n, n + 1) for n in range(4)), 140, 440)
    pairs = sum(range(1, 101)) + 4 * sum(range(101, 111))
    assert pack_cost(pack, 64) == 140 + pairs / (6 * 64)
