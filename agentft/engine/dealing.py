"""Deals the packs of an optimizer step to processes so that all of them have about the same work."""

from __future__ import annotations

from collections.abc import Sequence

from agentft.engine.packing import Pack

__all__ = ["deal", "pack_cost"]

_LINEAR_PER_PAIR = 6
"""A decoder layer of width h has 12 h^2 weights; its attention costs about 2 h a pair of tokens, its weights 12 h^2 a
token. So 6 h pairs cost as much as a token."""


def pack_cost(pack: Pack, width: int) -> float:
    """The work of a pack, in tokens without attention. `width`: the model's hidden size."""
    pairs = sum((node.end * (node.end + 1) - node.start * (node.start + 1)) // 2 for node in pack.nodes)
    return pack.tokens + pairs / (_LINEAR_PER_PAIR * width)


def deal(costs: Sequence[float], hands: int) -> list[list[int]]:
    """The numbers of the packs for each of `hands` processes, each in ascending order.

    The largest pack comes first, each to the process with the least work so far, so that no two processes differ by
    more than one pack's work. The result depends on nothing but the arguments.
    """
    dealt: list[list[int]] = [[] for _ in range(hands)]
    work = [0.0] * hands
    for number in sorted(range(len(costs)), key=lambda number: -costs[number]):
        least = min(range(hands), key=lambda hand: (work[hand], len(dealt[hand]), hand))
        dealt[least].append(number)
        work[least] += costs[number]
    return [sorted(hand) for hand in dealt]
