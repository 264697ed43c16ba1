"""CPU seconds of each reader for 10 thousand to 1 million characters of hostile text, and how they grow.

The target is at most 1 second for a megabyte, and an exponent of at most 1.2. `make bench` runs it.
"""

from __future__ import annotations

from itertools import pairwise
from math import log

from agentft.display.terminal import say
from tests.records.test_growth import HEADS, READERS, UNITS, seconds

SIZES = (10_000, 100_000, 1_000_000)
SHORT = 0.02
"""Seconds below which an exponent says nothing: other work of the machine takes as long."""


def measure(name: str, head: str, unit: str) -> tuple[float, float]:
    """(seconds for a megabyte, the larger exponent of the two steps)."""
    spent = [min(seconds(READERS[name], head + unit * (size // len(unit))) for _ in range(2)) for size in SIZES]
    return spent[-1], max(log(later / max(earlier, SHORT), 10) for earlier, later in pairwise(spent))


def main() -> None:
    """Measure every reader with every text, and print the slowest and the steepest of each reader."""
    for name in READERS:
        found = sorted((*measure(name, head, text), head[:12], unit) for head in HEADS for unit, text in UNITS.items())
        slowest, steepest = found[-1], max(found, key=lambda one: one[1])
        where, edge = (f"{one[3]} after {one[2]!r}" for one in (slowest, steepest))
        over = sum(one[0] > 1 or one[1] > 1.2 for one in found)
        say(
            f"{name:12} {len(found)} texts, {over} over the target; slowest {slowest[0]:.2f} s a megabyte ({where}), "
            f"steepest exponent {steepest[1]:.2f} ({edge})"
        )


if __name__ == "__main__":
    main()
