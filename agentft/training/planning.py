"""The planner's choice for a recipe, its data and this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, Qwen2Config

from agentft.engine.packing import Sample, epoch_packs
from agentft.engine.speed import has_liger
from agentft.errors import InputError
from agentft.models.embedded import resolve
from agentft.models.tokenizers import located
from agentft.training.planner import CARDS, Card, Choice, Dimensions, Levers, Workload, choose, dimensions
from agentft.training.recipe import Recipe

__all__ = [
    "CPU_PACK",
    "RANDOM_7B",
    "SEVEN_B",
    "apply",
    "choose_for",
    "describe",
    "measure_rate",
    "model_dimensions",
    "plan_cards",
    "plan_recipe",
    "this_card",
    "workload_of",
]

RANDOM_7B = "random-7b"
"""Stands for a model of Qwen2.5-7B's shape with random weights, which is as fast and as large as the real one."""
SEVEN_B = {
    "vocab_size": 152_064,
    "hidden_size": 3_584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
CPU_PACK = 2_048
FP32_SLOWER = 8
"""Products in fp32 on the tensor cores' scale: roughly what makers' figures give."""
SEEN = 20_000
"""Samples that are packed to foresee a whole epoch."""


def plan_recipe(recipe: Recipe, samples: Sequence[Sample]) -> tuple[Recipe, str, bool]:
    """The recipe with memory's settings chosen, a sentence about them, and whether that is a warning."""
    if not torch.cuda.is_available():
        pack = recipe.pack_tokens or CPU_PACK
        return replace(recipe, pack_tokens=pack), "", False
    leanest = {"pack": CPU_PACK, "every": 1, "unpack": False, "host": recipe.method != "full"} | _fixed(recipe)
    frugal = apply(recipe, Levers(**leanest))
    try:
        model = model_dimensions(recipe)
    except InputError as error:
        return frugal, f"no plan: {error}; trying the leanest settings", True
    card, work = this_card(torch.float32 if recipe.dtype == "fp32" else torch.bfloat16), workload_of(samples, recipe)
    choice = choose_for(recipe, model, card, work)
    if choice is not None:
        return apply(recipe, choice.levers), f"plan, the fastest of what fits: {describe(choice)}", False
    return (
        frugal,
        (
            f"by the plan nothing fits into the {card.free / 2**30:.1f} GiB that are free (the longest row has "
            f"{work.longest:,} tokens); trying the leanest settings. A lower max_length, or method = qlora, takes less"
        ),
        True,
    )


def choose_for(recipe: Recipe, model: Dimensions, card: Card, work: Workload) -> Choice | None:
    """The planner's choice, which leaves what the recipe sets; None if nothing fits."""
    return choose(model, card, work, recipe.method, **_settings(recipe, liger=recipe.liger != "off" and has_liger()))


def apply(recipe: Recipe, levers: Levers) -> Recipe:
    """The recipe with these settings."""
    return replace(
        recipe,
        pack_tokens=levers.pack,
        checkpoint_every=max(levers.every, 1),
        checkpointing="on" if levers.every else "off",
        unpack="on" if levers.unpack else "off",
        host_embeddings="on" if levers.host else "off",
    )


def describe(choice: Choice) -> str:
    """What was chosen, and what it is predicted to take."""
    levers = choice.levers
    which = {1: "each", 2: "each 2nd", 3: "each 3rd"}.get(levers.every, f"each {levers.every}th")
    words = [f"packs of {levers.pack:,}", f"{which} layer recomputed" if levers.every else "nothing recomputed"]
    words += ["weights unpacked"] if levers.unpack else []
    words += ["embeddings on the host"] if levers.host else []
    memory = choice.estimate.memory / 2**30
    return f"{memory:.1f} GiB, {choice.samples_per_second:.3g} samples/s with {', '.join(words)}"


def plan_cards(recipe: Recipe, work: Workload) -> list[tuple[str, int, Choice | None]]:
    """(card, GiB, the choice for it or None) of common cards, of which the system takes a twentieth; with Liger."""
    model, settings = model_dimensions(recipe), _settings(recipe, liger=recipe.liger != "off")
    slower = FP32_SLOWER if recipe.dtype == "fp32" else 1
    cards = [(name, gib, Card(0.95 * gib * 2**30, rate / slower)) for name, (gib, rate) in CARDS.items()]
    return [(name, gib, choose(model, card, work, recipe.method, **settings)) for name, gib, card in cards]


def model_dimensions(recipe: Recipe) -> Dimensions:
    """Of the recipe's model; MissingError if it is not here and cannot be fetched."""
    if recipe.model == RANDOM_7B:
        return dimensions(Qwen2Config(**SEVEN_B))
    return dimensions(located(recipe.model, AutoConfig.from_pretrained, resolve(recipe.model)))


def workload_of(samples: Sequence[Sample], recipe: Recipe) -> Workload:
    """What an epoch of these samples computes, by packing (at most some of) them."""
    seen, share = samples[:SEEN], recipe.sharing != "off"

    @cache
    def computed(pack: int) -> int:
        tokens = sum(made.tokens for made in epoch_packs(seen, pack, recipe.seed, 0, share=share))
        return tokens * len(samples) // len(seen)

    longest = max(sample.inputs for sample in samples)
    return Workload(len(samples), recipe.epochs, longest, computed)


def this_card(dtype: torch.dtype = torch.bfloat16) -> Card:
    """The GPU: what is free, and how fast it is with numbers of this type."""
    free, _ = torch.cuda.mem_get_info()
    return Card(float(free), measure_rate(dtype))


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


def _settings(recipe: Recipe, *, liger: bool) -> dict[str, Any]:
    width = 4 if recipe.dtype == "fp32" else 2
    return {
        "rank": recipe.lora_r,
        "optimizer": recipe.optimizer,
        "fixed": _fixed(recipe),
        "liger": liger,
        "width": width,
    }


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """The levers that the user has set."""
    fixed: dict[str, Any] = {}
    if recipe.pack_tokens:
        fixed["pack"] = recipe.pack_tokens
    if recipe.checkpointing == "off":
        fixed["every"] = 0
    elif recipe.checkpoint_every or recipe.checkpointing == "on":
        fixed["every"] = max(recipe.checkpoint_every, 1)
    if recipe.unpack != "auto":
        fixed["unpack"] = recipe.unpack == "on"
    if recipe.host_embeddings != "auto":
        fixed["host"] = recipe.host_embeddings == "on"
    return fixed
