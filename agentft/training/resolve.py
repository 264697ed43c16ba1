"""Resolves every `auto` of a recipe, once: from the model's config, the samples and the machine."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from agentft.engine.packing import Sample
from agentft.errors import InputError, MissingError
from agentft.models.embedded import resolve
from agentft.models.tokenizers import located
from agentft.training.events import Note
from agentft.training.machine import Machine
from agentft.training.planner import (
    CARDS,
    GIB,
    Card,
    Choice,
    Levers,
    Workload,
    choose,
    describe_choice,
    dimensions,
    workload_of,
)
from agentft.training.recipe import Recipe

__all__ = [
    "RANDOM_7B",
    "Architecture",
    "CardPlan",
    "Resolved",
    "plan_cards",
    "read_architecture",
    "resolve_recipe",
    "unshareable",
]

RANDOM_7B = "random-7b"
"""A model of Qwen2.5-7B's shape with random weights, as fast and as large as the real one, for plans and benches."""
SEVEN_B = {
    "vocab_size": 152_064,
    "hidden_size": 3_584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
SMALL = 500_000_000
"""Parameters below which LoRA likes a higher learning rate, and checkpointing buys nothing on a CPU."""
CPU_PACK = 2_048
FP32_SLOWER = 8
"""How much slower fp32 products are than bf16 ones, roughly, by the vendors' figures."""
SYSTEM_SHARE = 0.05
"""Share of a card's memory that the system takes."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a model's config says. `parameters`: without adapters. `adapters`: parameters of adapters of rank 1.

    `unshareable`: why samples of one pack cannot share computation in this model; empty if they can.
    """

    config: Any
    name: str
    parameters: int
    adapters: int
    unshareable: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe in which nothing is `auto`. `choice`: the planner's, None without a GPU or if nothing fits."""

    recipe: Recipe
    architecture: Architecture
    choice: Choice | None
    notes: tuple[Note, ...]


def read_architecture(recipe: Recipe) -> Architecture:
    """Open the config of the recipe's model; no weights are loaded.

    Raises:
        MissingError: the model is not here and cannot be fetched.
    """
    if recipe.model == RANDOM_7B:
        config: Any = Qwen2Config(**SEVEN_B)
    else:
        config = located(recipe.model, AutoConfig.from_pretrained, resolve(recipe.model))
    with torch.device("meta"):
        model = located(recipe.model, AutoModelForCausalLM.from_config, config)
    linear = [part for part in model.get_decoder().modules() if isinstance(part, nn.Linear)]
    return Architecture(
        config=config,
        name=type(model).__name__,
        parameters=int(model.num_parameters()),
        adapters=sum(part.in_features + part.out_features for part in linear),
        unshareable=unshareable(model),
    )


def resolve_recipe(
    recipe: Recipe, samples: Sequence[Sample] | Workload, machine: Machine, architecture: Architecture | None = None
) -> Resolved:
    """The recipe with every `auto` replaced by what it means here.

    Args:
        recipe: settings that are not `auto` stay as they are.
        samples: the data, or what is known of it.
        machine: see `measure_machine`.
        architecture: the recipe's, if it was read already.

    Raises:
        MissingError: the model is not here, or `liger = on` and Liger is not.
    """
    model = architecture or read_architecture(recipe)
    if recipe.liger == "on" and not machine.liger:
        raise MissingError("liger = on needs an NVIDIA GPU and `pip install liger-kernel`; liger = auto goes without")
    recipe, notes = _resolve_sharing(recipe, model)
    dtype = ("bf16" if machine.bf16 else "fp32") if recipe.dtype == "auto" else recipe.dtype
    liger: Literal["on", "off"] = "on" if recipe.liger != "off" and machine.liger else "off"
    recipe = replace(recipe, dtype=dtype, liger=liger, lr=recipe.lr or _rate(recipe, model))
    if machine.device == "cpu":
        return Resolved(_for_cpu(recipe, model), model, None, tuple(notes))
    work = samples if isinstance(samples, Workload) else workload_of(samples, recipe)
    recipe, choice, note = _plan(recipe, model, machine, work)
    return Resolved(recipe, model, choice, (*notes, note))


@dataclass(frozen=True, slots=True)
class CardPlan:
    """What training would take on common cards. `cards`: (name, GiB, choice or None if nothing fits)."""

    work: Workload
    cards: tuple[tuple[str, int, Choice | None], ...]
    notes: tuple[Note, ...]


def plan_cards(recipe: Recipe, samples: Sequence[Sample] | Workload) -> CardPlan:
    """The planner's choices for common cards, with Liger unless the recipe turns it off.

    Raises:
        InputError: the planner does not cover the model.
        MissingError: the model is not here.
    """
    model, found = read_architecture(recipe), []
    dimensions(model.config)
    recipe, notes = _resolve_sharing(recipe, model)
    work = samples if isinstance(samples, Workload) else workload_of(samples, recipe)
    for name, (gib, rate) in CARDS.items():
        free = (1 - SYSTEM_SHARE) * gib * GIB
        machine = Machine("cuda", bf16=True, liger=True, free=free, rate=rate, fp32_rate=rate / FP32_SLOWER)
        found.append((name, gib, resolve_recipe(recipe, work, machine, model).choice))
    return CardPlan(work, tuple(found), tuple(notes))


def _resolve_sharing(recipe: Recipe, model: Architecture) -> tuple[Recipe, list[Note]]:
    if recipe.sharing != "auto":
        return recipe, []
    if not model.unshareable:
        return replace(recipe, sharing="on"), []
    text = f"{model.name} {model.unshareable}, so samples of a pack share no computation"
    return replace(recipe, sharing="off"), [Note(text, warning=True)]


def _rate(recipe: Recipe, model: Architecture) -> float:
    """2e-5 for all weights; for adapters 1e-3 on a small model, 2e-4 on a larger one."""
    if recipe.method == "full":
        return 2e-5
    return 1e-3 if _parameters(recipe, model) < SMALL else 2e-4


def _parameters(recipe: Recipe, model: Architecture) -> int:
    return model.parameters + (0 if recipe.method == "full" else recipe.lora_r * model.adapters)


def _for_cpu(recipe: Recipe, model: Architecture) -> Recipe:
    """Plain settings: memory is seldom short beside a CPU."""
    large = _parameters(recipe, model) >= SMALL
    return replace(
        recipe,
        pack_tokens=recipe.pack_tokens or CPU_PACK,
        checkpointing=("on" if large else "off") if recipe.checkpointing == "auto" else recipe.checkpointing,
        checkpoint_every=max(recipe.checkpoint_every, 1),
        unpack="on" if recipe.unpack == "on" else "off",
        host_embeddings="on" if recipe.host_embeddings == "on" else "off",
    )


def _plan(recipe: Recipe, model: Architecture, machine: Machine, work: Workload) -> tuple[Recipe, Choice | None, Note]:
    """The fastest memory settings that fit the GPU, or else those that take the least memory."""
    fixed = _fixed(recipe)
    leanest = {"pack": CPU_PACK, "every": 1, "unpack": False, "host": recipe.method != "full"} | fixed
    lean = _apply(recipe, Levers(**leanest))
    half = recipe.dtype == "bf16"
    try:
        choice = choose(
            dimensions(model.config),
            Card(machine.free, machine.rate if half else machine.fp32_rate),
            work,
            recipe.method,
            rank=recipe.lora_r,
            optimizer=recipe.optimizer,
            fixed=fixed,
            liger=recipe.liger == "on",
            width=2 if half else 4,
        )
    except InputError as error:
        return lean, None, Note(f"no plan: {error}; using the settings that take the least memory", warning=True)
    if choice is not None:
        text = f"plan, the fastest settings that fit: {describe_choice(choice)}"
        return _apply(recipe, choice.levers), choice, Note(text)
    text = (
        f"the plan predicts that nothing fits into the {machine.free / GIB:.1f} GiB that are free (the longest row has "
        f"{work.longest:,} tokens); using the settings that take the least memory. A lower max_length, or method = "
        "qlora, takes less"
    )
    return lean, None, Note(text, warning=True)


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """The fields of `Levers` that the recipe sets."""
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


def _apply(recipe: Recipe, levers: Levers) -> Recipe:
    return replace(
        recipe,
        pack_tokens=levers.pack,
        checkpoint_every=max(levers.every, 1),
        checkpointing="on" if levers.every else "off",
        unpack="on" if levers.unpack else "off",
        host_embeddings="on" if levers.host else "off",
    )


def unshareable(model: Any) -> str:
    """Why samples of one pack cannot share computation in this model, or would not stay apart; empty if they can."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or [])
    if other := kinds - {"full_attention", "sliding_attention"}:
        return f"has layers of the kinds {', '.join(sorted(other))}"
    if model._is_stateful:
        return "carries a state from token to token"
    if any(hasattr(part, "sinks") for part in model.modules()):
        return "has attention sinks"
    if not model._supports_attention_backend or "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return "has attention of its own, or cannot compute its head on chosen rows"
    return ""
