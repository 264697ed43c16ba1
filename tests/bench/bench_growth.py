"""CPU seconds of each reader for 10 thousand to 1 million characters of hostile text, and how they grow.

The target is at most 1 second for a megabyte, and an exponent of at most 1.2. `make bench` runs it. Imports of API
descriptions and traffic are among them (`--imports`: only these).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from math import log
from typing import Any

from agentft.display.terminal import say
from agentft.errors import AgentftError
from tests.imports.growth import DESCRIPTIONS, TRAFFIC, read_description, read_traffic
from tests.records.test_growth import HEADS, READERS, UNITS, seconds

SIZES = (10_000, 100_000, 1_000_000)
SHORT = 0.02
"""Seconds below which an exponent says nothing: other work of the machine takes as long."""


def measure(name: str, head: str, unit: str) -> tuple[float, float]:
    """(seconds for a megabyte, the larger exponent of the two steps)."""
    spent = [min(seconds(READERS[name], head + unit * (size // len(unit))) for _ in range(2)) for size in SIZES]
    return spent[-1], max(log(later / max(earlier, SHORT), 10) for earlier, later in pairwise(spent))


def measure_import(read: Callable[[Any], object], make: Callable[[int], Any]) -> tuple[float, float]:
    """(seconds for a megabyte, the larger exponent of the two steps)."""
    spent = []
    for size in SIZES:
        made, start = make(size), time.process_time()
        with suppress(AgentftError):
            read(made)
        spent.append(time.process_time() - start)
    return spent[-1], max(log(later / max(earlier, SHORT), 10) for earlier, later in pairwise(spent))


def main() -> None:
    """Measure every reader with every text, and print the slowest and the steepest of each reader."""
    for kind, name in [("openapi", name) for name in DESCRIPTIONS] + [("traffic", name) for name in TRAFFIC]:
        read, make = (read_description, DESCRIPTIONS[name]) if kind == "openapi" else (read_traffic, TRAFFIC[name])
        seconds_taken, exponent = measure_import(read, make)
        say(f"{kind:12} {name}: {seconds_taken:.2f} s a megabyte, exponent {exponent:.2f}")
    for name in READERS if "--imports" not in sys.argv else ():
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
