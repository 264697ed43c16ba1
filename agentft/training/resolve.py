"""Resolves every `auto` of a recipe in one place, from the model's config, the samples and the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from agentft.engine.packing import Sample
from agentft.engine.tree_attention import unshareable
from agentft.errors import InputError, MissingError
from agentft.models.embedded import resolve
from agentft.models.tokenizers import check_vocabulary, config_of, located
from agentft.training.combinations import unplanned
from agentft.training.early import LIGER
from agentft.training.events import Note
from agentft.training.machine import Machine, measure_machine, measure_rate
from agentft.training.optimizer import check_schedule
from agentft.training.planner import (
    CARDS,
    GIB,
    Card,
    Choice,
    Levers,
    choose,
    cpu_seconds,
    describe_choice,
    dimensions,
)
from agentft.training.recipe import Recipe
from agentft.training.sharding import Sharding, Way, sharding_of, ways_of
from agentft.training.workload import Workload, workload_of

__all__ = ["RANDOM_7B", "Architecture", "CardPlan", "Resolved", "plan_cards", "read_architecture", "resolve_recipe"]

RANDOM_7B = "random-7b"
"""A model with Qwen2.5-7B's shape and random weights for plans and benchmarks: as fast and as large as the real one."""
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
"""Models with fewer parameters get a higher learning rate for LoRA, and no checkpointing on a CPU."""
CPU_PACK = 2_048
FP32_SLOWER = 8
"""Speed of bf16 matrix products relative to fp32, roughly, by the vendors' figures."""
_PLANNED = ("adamw", "adamw_8bit", "adamw_torch", "paged_adamw_8bit")
"""Optimizers whose memory the planner knows."""
SYSTEM_SHARE = 0.05
"""Fraction of a GPU's memory that the system uses."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model's architecture, read from its config.

    `parameters`: number of parameters without adapters. `adapters`: number of parameters in adapters of rank 1.
    `unshareable`: why samples of a pack cannot share computation in this model; empty if they can.
    """

    config: Any
    name: str
    parameters: int
    adapters: int
    unshareable: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe without `auto`. `choice`: the planner's choice; None without a GPU or if nothing fits."""

    recipe: Recipe
    architecture: Architecture
    choice: Choice | None
    notes: tuple[Note, ...]


def read_architecture(recipe: Recipe) -> Architecture:
    """Read the config of the recipe's model, without loading weights.

    Raises:
        MissingError: the model is not on this machine and cannot be downloaded.
    """
    if recipe.model == RANDOM_7B:
        config: Any = Qwen2Config(**SEVEN_B)
    else:
        config = config_of(recipe.model, resolve(recipe.model))
    with torch.device("meta"):
        model = located(recipe.model, AutoModelForCausalLM.from_config, config, trust_remote_code=False)
    linear = [part for part in model.get_decoder().modules() if isinstance(part, nn.Linear)]
    return Architecture(
        config=config,
        name=type(model).__name__,
        parameters=int(model.num_parameters()),
        adapters=sum(part.in_features + part.out_features for part in linear),
        unshareable=unshareable(model),
    )


def resolve_recipe(
    recipe: Recipe,
    samples: Sequence[Sample] | Workload,
    machine: Machine,
    architecture: Architecture | None = None,
    processes: int = 1,
) -> Resolved:
    """Replace every `auto` of a recipe by a value.

    Args:
        recipe: settings that are not `auto` do not change.
        samples: the data, or its description as a workload.
        machine: see `measure_machine`.
        architecture: the model's architecture, if it was read before.
        processes: the processes of the run, over which DeepSpeed shards the model.

    Raises:
        MissingError: the model is not on this machine, or `liger = on` but Liger is not installed.
    """
    model = architecture or read_architecture(recipe)
    _check_tokens(recipe, samples, model)
    if recipe.liger == "on" and not machine.liger:
        raise MissingError(LIGER)
    check_schedule(recipe)
    recipe, notes = _resolve_sharing(_settle(recipe), model)
    dtype = ("bf16" if machine.bf16 else "fp32") if recipe.dtype == "auto" else recipe.dtype
    liger: Literal["on", "off"] = "on" if recipe.liger != "off" and machine.liger else "off"
    recipe = replace(recipe, dtype=dtype, liger=liger, lr=recipe.lr or _default_rate(recipe, model))
    if machine.device == "cpu":
        # Memory is rarely short on a CPU.
        levers = Levers(**{"pack": CPU_PACK, "every": int(_parameters(recipe, model) >= SMALL), **_fixed(recipe)})
        return Resolved(_apply(recipe, levers), model, None, tuple(notes))
    work = samples if isinstance(samples, Workload) else workload_of(samples, recipe)
    if uncovered := _uncovered(recipe):
        notes.append(Note(f"the memory plan is measured with plain LoRA and AdamW; it may be off for {uncovered}"))
    recipe, choice, note = _plan(recipe, model, machine, work, sharding_of(recipe, processes))
    return Resolved(recipe, model, choice, (*notes, note))


@dataclass(frozen=True, slots=True)
class CardPlan:
    """Predictions. `here`: the choice for this machine's GPU, or the seconds of the run on its CPU, or None if nothing
    fits. `cards`: (name, GiB, choice or None if nothing fits) of common GPUs. `ways`: with several GPUs, how the run is
    spread over cards of each name.
    """

    work: Workload
    here: Choice | float | None
    cards: tuple[tuple[str, int, Choice | None], ...]
    notes: tuple[Note, ...]
    ways: Mapping[str, Way]


def plan_cards(recipe: Recipe, samples: Sequence[Sample] | Workload, gpus: int = 1) -> CardPlan:
    """The planner's choices for common GPUs, or `gpus` of them, with Liger unless the recipe turns it off.

    Raises:
        InputError: the planner does not cover the model or the method.
        MissingError: the model is not on this machine.
    """
    model, found, ways = read_architecture(recipe), [], {}
    _check_tokens(recipe, samples, model)
    if unknown := unplanned(recipe):
        raise InputError(f"the planner cannot predict {unknown}; measure it: `agentft bench train {unknown}`")
    dimensions(model.config)
    recipe, notes = _resolve_sharing(_settle(recipe), model)
    if uncovered := _uncovered(recipe):
        notes.append(Note(f"the plan is measured with plain LoRA and AdamW; it may be off for {uncovered}"))
    work = samples if isinstance(samples, Workload) else workload_of(samples, recipe)
    for name, (gib, rate, bandwidth) in CARDS.items():
        free = (1 - SYSTEM_SHARE) * gib * GIB
        machine = Machine("cuda", True, True, free, rate, rate / FP32_SLOWER, bandwidth)
        choice, ways[name] = _first_way(
            recipe, gpus, partial(resolve_recipe, samples=work, machine=machine, architecture=model, processes=gpus)
        )
        found.append((name, gib, choice))
    return CardPlan(work, _plan_here(recipe, model, work), tuple(found), tuple(notes), ways if gpus > 1 else {})


def _first_way(recipe: Recipe, gpus: int, plan: Callable[[Recipe], Resolved]) -> tuple[Choice | None, Way]:
    """The first way to spread a run over the GPUs that fits: they are ordered by what they cost."""
    tried: list[str] = []
    for form in ways_of(recipe, gpus):
        choice = plan(replace(recipe, deepspeed=form)).choice
        if choice:
            share = replace(
                choice,
                seconds=choice.seconds / gpus,
                total_seconds=choice.total_seconds / gpus,
                samples_per_second=choice.samples_per_second * gpus,
            )
            return share, Way(form, tuple(tried))
        tried.append(form)
    return None, Way("", tuple(tried))


def _plan_here(recipe: Recipe, model: Architecture, work: Workload) -> Choice | float | None:
    machine = measure_machine()
    resolved = resolve_recipe(recipe, work, machine, model)
    if machine.device == "cuda":
        return resolved.choice
    rate = measure_rate(torch.bfloat16 if resolved.recipe.dtype == "bf16" else torch.float32)
    return cpu_seconds(dimensions(model.config), work, recipe.method, resolved.recipe.pack_tokens, rate)


def _check_tokens(recipe: Recipe, samples: Sequence[Sample] | Workload, model: Architecture) -> None:
    if not isinstance(samples, Workload):
        text = model.config.get_text_config()
        check_vocabulary((row.tokens for row in samples), text.vocab_size + len(recipe.add_tokens), recipe.model)
        longest = max((len(row.tokens) for row in samples), default=0)
        if longest > (places := getattr(text, "max_position_embeddings", None) or longest):
            remedy = f"with max_length={places}, longer rows are cut after their last complete run that fits"
            raise InputError(f"a row has {longest:,} tokens, but {recipe.model} has positions for {places:,}; {remedy}")


def _settle(recipe: Recipe) -> Recipe:
    """Switch off the fast paths that the method rules out."""
    if recipe.unpack == "auto" and (recipe.bits == 8 or recipe.lora_init == "loftq"):
        recipe = replace(recipe, unpack="off")
    if recipe.host_embeddings == "auto" and (recipe.modules_to_save or recipe.add_tokens or recipe.deepspeed):
        recipe = replace(recipe, host_embeddings="off")
    return recipe


def _uncovered(recipe: Recipe) -> str:
    """What the planner was not measured with, and may be off for."""
    named = {
        "modules_to_save": bool(recipe.modules_to_save),
        "add_tokens": bool(recipe.add_tokens),
        "neftune_alpha": recipe.neftune_alpha > 0,
        f"optimizer = {recipe.optimizer}": recipe.optimizer not in _PLANNED,
    }
    return ", ".join(name for name, used in named.items() if used)


def _resolve_sharing(recipe: Recipe, model: Architecture) -> tuple[Recipe, list[Note]]:
    if recipe.sharing != "auto":
        return recipe, []
    if recipe.neftune_alpha:
        text = "neftune_alpha: the noise is drawn for each sample, so samples do not share prefixes, which takes longer"
        return replace(recipe, sharing="off"), [Note(text, warning=True)]
    if not model.unshareable:
        return replace(recipe, sharing="on"), []
    text = f"{model.name} {model.unshareable}, so samples in a pack do not share computation"
    return replace(recipe, sharing="off"), [Note(text, warning=True)]


def _default_rate(recipe: Recipe, model: Architecture) -> float:
    """For adapters 1e-3 on a small model, 2e-4 on a larger one; for full training a tenth of that."""
    rate = 1e-3 if _parameters(recipe, model) < SMALL else 2e-4
    return rate / 10 if recipe.method == "full" else rate


def _parameters(recipe: Recipe, model: Architecture) -> int:
    return model.parameters + (0 if recipe.method == "full" else recipe.lora_r * model.adapters)


def _plan(
    recipe: Recipe, model: Architecture, machine: Machine, work: Workload, sharding: Sharding | None
) -> tuple[Recipe, Choice | None, Note]:
    """The fastest settings that fit the GPU, or else those that need the least memory."""
    fixed = _fixed(recipe)
    lean = _apply(recipe, Levers(**{"pack": CPU_PACK, "every": 1, "host": recipe.method != "full", **fixed}))
    half = recipe.dtype == "bf16"
    if unknown := unplanned(recipe):
        text = f"no plan: the planner cannot predict {unknown}; using the settings that need the least memory"
        return lean, None, Note(text, warning=True)
    try:
        choice = choose(
            dimensions(model.config),
            Card(machine.free, machine.rate if half else machine.fp32_rate, machine.bandwidth, machine.launch),
            work,
            recipe.method,
            rank=recipe.lora_r,
            optimizer="adamw_8bit" if "8bit" in recipe.optimizer else "adamw",
            fixed=fixed,
            liger=recipe.liger == "on",
            width=2 if half else 4,
            sharding=sharding,
        )
    except InputError as error:
        return lean, None, Note(f"no plan: {error}; using the settings that need the least memory", warning=True)
    if choice is not None:
        text = f"plan, the fastest settings that fit: {describe_choice(choice)}"
        return _apply(recipe, choice.levers), choice, Note(text)
    text = (
        f"the plan predicts that nothing fits into {machine.free / GIB:.1f} GiB of free memory (the longest row has "
        f"{work.longest:,} tokens); using the settings that need the least memory. Lower max_length, or use method = "
        f"qlora{'' if sharding else ' or, on several GPUs, --deepspeed'}, to need less"
    )
    return lean, None, Note(text, warning=True)


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """The levers that the recipe sets, by name."""
    every = None
    if recipe.checkpointing == "off":
        every = 0
    elif recipe.checkpoint_every or recipe.checkpointing == "on":
        every = max(recipe.checkpoint_every, 1)
    switches = {"unpack": recipe.unpack, "host": recipe.host_embeddings}
    return {
        **({"pack": recipe.pack_tokens} if recipe.pack_tokens else {}),
        **({} if every is None else {"every": every}),
        **{name: switch == "on" for name, switch in switches.items() if switch != "auto"},
    }


def _apply(recipe: Recipe, levers: Levers) -> Recipe:
    return replace(
        recipe,
        pack_tokens=levers.pack,
        checkpoint_every=max(levers.every, 1),
        checkpointing="on" if levers.every else "off",
        unpack="on" if levers.unpack else "off",
        host_embeddings="on" if levers.host else "off",
    )
