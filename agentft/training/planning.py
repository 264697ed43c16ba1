"""The planner's choice for a recipe, its data and this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, Qwen2Config

from agentft.data.packing import Sample, epoch_packs
from agentft.models.embedded import resolve
from agentft.models.tokenizers import located
from agentft.training.planner import CARDS, TAKEN, Card, Choice, Dimensions, Workload, choose, dimensions
from agentft.training.recipe import Recipe
from agentft.training.speed import has_liger

__all__ = [
    "CPU_PACK", "RANDOM_7B", "SEVEN_B", "apply", "choose_for", "even_workload", "explain", "measure_rate",
    "model_dimensions", "plan_cards", "plan_recipe", "this_card", "workload_of",
]  # fmt: skip

RANDOM_7B = "random-7b"
"""Stands for a model of Qwen2.5-7B's shape with random weights, which is as fast and as large as the real one."""
SEVEN_B = {
    "vocab_size": 152_064, "hidden_size": 3_584, "intermediate_size": 18_944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
}  # fmt: skip
CPU_PACK = 2_048
SEEN = 20_000
"""Samples that are packed to foresee a whole epoch."""


def plan_recipe(recipe: Recipe, samples: Sequence[Sample]) -> tuple[Recipe, str, bool]:
    """The recipe with memory's settings chosen, a sentence about them, and whether that is a warning."""
    if not torch.cuda.is_available():
        pack = recipe.pack_tokens or CPU_PACK
        return replace(recipe, pack_tokens=pack), "", False
    model, card, work = model_dimensions(recipe), this_card(), workload_of(samples, recipe)
    choice = choose_for(recipe, model, card, work)
    if choice is not None:
        return apply(recipe, choice), f"plan: {explain(choice, card)}", False
    frugal = replace(
        recipe, pack_tokens=recipe.pack_tokens or CPU_PACK, checkpointing="on", checkpoint_every=1, unpack="off",
        host_embeddings="off" if recipe.method == "full" else "on",
    )  # fmt: skip
    return frugal, (
        f"by the plan nothing fits into the {card.free / 2**30:.1f} GiB that are free (the longest row has "
        f"{work.longest:,} tokens); trying the leanest settings. A lower max_length, or method = qlora, takes less"
    ), True  # fmt: skip


def choose_for(recipe: Recipe, model: Dimensions, card: Card, work: Workload) -> Choice | None:
    """The planner's choice, which leaves what the recipe sets; None if nothing fits."""
    liger = recipe.liger != "off" and has_liger()
    return choose(model, card, work, recipe.method, rank=recipe.lora_r, fixed=_fixed(recipe), liger=liger)


def apply(recipe: Recipe, choice: Choice) -> Recipe:
    """The recipe with a choice's settings."""
    levers = choice.levers
    return replace(
        recipe,
        pack_tokens=levers.pack,
        checkpointing="on" if levers.every else "off",
        checkpoint_every=max(levers.every, 1),
        unpack="on" if levers.unpack else "off",
        host_embeddings="on" if levers.host else "off",
    )


def explain(choice: Choice, card: Card) -> str:
    """What was chosen and why, in words."""
    levers = choice.levers
    kept = {0: "all activations kept", 1: "each layer recomputed"}.get(
        levers.every, f"each {levers.every}th layer recomputed" if levers.every > 2 else "each second layer recomputed"
    )
    words = [f"packs of {levers.pack:,} tokens", kept]
    words += ["4-bit weights kept unpacked"] if levers.unpack else []
    words += ["input embeddings in the host's memory"] if levers.host else []
    return (
        f"{', '.join(words)}: the fastest that fits into {card.free / 2**30:.1f} GiB; predicted "
        f"{choice.estimate.memory / 2**30:.1f} GiB and {choice.samples_per_second:.3g} samples/s"
    )


def plan_cards(recipe: Recipe, work: Workload) -> list[tuple[str, int, Choice | None]]:
    """(card, GiB, the choice for it) of common cards; None where nothing fits. Liger is taken to be installed."""
    model, fixed = model_dimensions(recipe), _fixed(recipe)
    return [
        (name, gib, choose(
            model, Card((1 - TAKEN) * gib * 2**30, rate), work, recipe.method, rank=recipe.lora_r, fixed=fixed,
            liger=recipe.liger != "off",
        ))
        for name, (gib, rate) in CARDS.items()
    ]  # fmt: skip


def even_workload(samples: int, length: int, epochs: int) -> Workload:
    """Samples of one length that share nothing."""
    return Workload(samples, epochs, length, lambda _: samples * length)


def model_dimensions(recipe: Recipe) -> Dimensions:
    """Of the recipe's model.

    Raises:
        MissingError: it is not here and cannot be fetched.
    """
    if recipe.model == RANDOM_7B:
        return dimensions(Qwen2Config(**SEVEN_B))
    return dimensions(located(recipe.model, AutoConfig.from_pretrained, resolve(recipe.model)))


def workload_of(samples: Sequence[Sample], recipe: Recipe) -> Workload:
    """What an epoch of these samples computes, by packing (at most some of) them."""
    seen = samples[:SEEN]

    @cache
    def computed(pack: int) -> int:
        tokens = sum(made.tokens for made in epoch_packs(seen, pack, recipe.seed, 0))
        return tokens * len(samples) // len(seen)

    longest = max(sample.inputs for sample in samples)
    return Workload(len(samples), recipe.epochs, longest, computed)


def this_card() -> Card:
    """The GPU: what is free, and how fast it is."""
    free, _ = torch.cuda.mem_get_info()
    return Card(float(free), measure_rate(torch.bfloat16))


def measure_rate(dtype: torch.dtype) -> float:
    """Operations a second of a large product in this number type."""
    device, size = ("cuda", 8_192) if torch.cuda.is_available() else ("cpu", 1_536)
    one, two = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None
    best = float("inf")
    for _ in range(6):
        wait()
        began = time.perf_counter()
        torch.matmul(one, two)
        wait()
        best = min(best, time.perf_counter() - began)
    return float(2 * size**3 / best)


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """The levers that the user has set."""
    fixed: dict[str, Any] = {}
    if recipe.pack_tokens:
        fixed["pack"] = recipe.pack_tokens
    if recipe.checkpointing == "off":
        fixed["every"] = 0
    elif recipe.checkpoint_every:
        fixed["every"] = recipe.checkpoint_every
    if recipe.unpack != "auto":
        fixed["unpack"] = recipe.unpack == "on"
    if recipe.host_embeddings != "auto":
        fixed["host"] = recipe.host_embeddings == "on"
    return fixed
