"""The data that a plan is made for: how many tokens the packs of its samples hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from agentft.engine.packing import Sample, epoch_packs
from agentft.training.recipe import Recipe

__all__ = ["Workload", "even_workload", "workload_of"]

PACKED = 20_000
"""At most this many samples are packed to predict an epoch."""
CONTEXT_PACK = 2_048
"""The pack by which a workload's mean context is computed."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The data. `longest`: tokens of the longest sample. `computed(pack)`: computed tokens of an epoch. `supervised`:
    supervised tokens of an epoch. `context`: how many tokens a token attends to, on average. `fullest(pack)`: tokens of
    the fullest pack; a sample that is longer than a pack is one of its own. `shared`: whether samples share tokens.
    """

    samples: int
    epochs: int
    longest: int
    computed: Callable[[int], int]
    supervised: float
    context: float
    fullest: Callable[[int], int]
    shared: bool


def workload_of(samples: Sequence[Sample], recipe: Recipe) -> Workload:
    """Describe the samples as a workload, by packing at most `PACKED` of them."""
    packed, share = samples[:PACKED], recipe.sharing != "off"

    inputs = [sample.inputs for sample in samples]

    @cache
    def packs(pack: int) -> list[int]:
        return [made.tokens for made in epoch_packs(packed, pack, recipe.seed, 0, share=share)]

    def computed(pack: int) -> int:
        return sum(packs(pack)) * len(samples) // len(packed)

    supervised = sum(len(sample.places) for sample in samples)
    # A token attends to half of its own sample, and to all of what the sample shares.
    once = computed(CONTEXT_PACK) / sum(inputs)
    context = sum(inputs) / len(inputs) * (1 - once / 2)
    longest = max(inputs)

    def fullest(pack: int) -> int:
        return max(longest, *packs(pack))

    return Workload(len(samples), recipe.epochs, longest, computed, supervised, context, fullest, once < 1)


def even_workload(rows: int, epochs: int, length: int, *, shared: int = 0, supervised: float = 0) -> Workload:
    """Rows of equal length with `shared` equal tokens at the start; `supervised` tokens of each (0: a quarter) are."""
    own = length - shared

    def fit(pack: int) -> int:
        return max((pack - shared) // own, 1)

    def computed(pack: int) -> int:
        return rows * (shared // fit(pack) + own)

    total = rows * (supervised or length / 4)
    context = shared + own / 2
    return Workload(
        rows, epochs, length, computed, total, context, lambda pack: shared + own * fit(pack), shared=shared > 0
    )
