"""Loading what is trained: weights (4-bit, bf16 or fp32) and fresh adapters."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from agentft.engine.lora import use_lean_products
from agentft.engine.speed import HostEmbedding, embed_on_host, has_liger, recompute_gates, use_liger
from agentft.engine.tree_attention import TREE_ATTENTION
from agentft.errors import InputError, MissingError
from agentft.models.embedded import resolve
from agentft.models.hf import native_bf16, quantisation
from agentft.models.tokenizers import located
from agentft.training.recipe import Recipe

__all__ = ["count_parameters", "load_model", "pick_dtype", "pick_liger", "pick_lr", "pick_sharing", "prepare_model"]

SMALL = 500_000_000
"""Parameters below which LoRA likes a higher learning rate, and checkpointing buys nothing on a CPU."""


def load_model(recipe: Recipe, where: str) -> Any:
    """The model of a resolved recipe, with adapters unless all of it is trained, seeded by the recipe.

    Weights are 4-bit (qlora), in the recipe's dtype (lora), or fp32 (full, computed in the recipe's dtype).

    Raises:
        MissingError: it is not here and cannot be fetched.
        InputError: sharing is on, and the model cannot keep the samples of a pack apart.
    """
    dtype = torch.bfloat16 if recipe.dtype == "bf16" and recipe.method != "full" else torch.float32
    model = located(
        recipe.model,
        AutoModelForCausalLM.from_pretrained,
        where,
        dtype=dtype,
        quantization_config=quantisation(4, dtype) if recipe.method == "qlora" else None,
        attn_implementation=None if recipe.sharing == "off" else TREE_ATTENTION,
        device_map={"": 0} if torch.cuda.is_available() else None,
    )
    if recipe.method == "qlora" and recipe.unpack == "on":
        model = model.dequantize()
    return prepare_model(recipe, model, where)


def prepare_model(recipe: Recipe, model: Any, where: str) -> Any:
    """Put adapters on a loaded model and set it up for training."""
    if recipe.sharing != "off" and (reason := _unshareable(model)):
        raise InputError(f"{where}: {type(model).__name__} {reason}; train it with sharing = off")
    model.config.use_cache = False
    if recipe.liger == "on":
        use_liger(model)
    tuned = model if recipe.method == "full" else _add_adapters(model, recipe)
    if recipe.method != "full" and recipe.host_embeddings == "on":
        embed_on_host(model)
    if _wants_checkpointing(recipe, tuned):
        every = max(recipe.checkpoint_every, 1)
        how = {"use_reentrant": False, "preserve_rng_state": False}
        model.activation_checkpointing_enable(how, every_n_layers=every)
    if recipe.liger == "on" and recipe.method != "full":
        recompute_gates(model)
    return tuned.train()  # peft's wrapper says that it is training when the layers below it are not


def pick_dtype(recipe: Recipe) -> Literal["bf16", "fp32"]:
    """`auto` is bf16 where this machine multiplies it natively."""
    if recipe.dtype != "auto":
        return recipe.dtype
    return "bf16" if native_bf16() else "fp32"


def pick_liger(recipe: Recipe) -> Literal["on", "off"]:
    """`auto` is on where Liger is; MissingError if it is to be on and cannot."""
    if recipe.liger == "on" and not has_liger():
        raise MissingError("liger = on needs an NVIDIA GPU and `pip install liger-kernel`; liger = auto goes without")
    return "on" if recipe.liger != "off" and has_liger() else "off"


def pick_sharing(recipe: Recipe) -> tuple[Recipe, str]:
    """The recipe with `sharing` on or off, and why `auto` means off, if it does."""
    if recipe.sharing != "auto":
        return recipe, ""
    config = located(recipe.model, AutoConfig.from_pretrained, resolve(recipe.model))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    reason = _unshareable(model)
    if not reason:
        return replace(recipe, sharing="on"), ""
    return replace(recipe, sharing="off"), (
        f"{type(model).__name__} {reason}: each sample is computed by itself, and nothing that samples share is "
        "computed once"
    )


def pick_lr(recipe: Recipe, model: Any) -> float:
    """0 is 1e-3 for adapters on a small model, 2e-4 on a larger one, and 2e-5 for all weights."""
    if recipe.lr:
        return recipe.lr
    if recipe.method == "full":
        return 2e-5
    return 1e-3 if count_parameters(model)[1] < SMALL else 2e-4


def count_parameters(model: Any) -> tuple[int, int]:
    """(trainable, all), with a 4-bit matrix counted by its elements."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    known = int(model.num_parameters()) if hasattr(model, "num_parameters") else trainable
    return trainable, known + sum(part.table.numel() for part in model.modules() if isinstance(part, HostEmbedding))


def _add_adapters(model: Any, recipe: Recipe) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=0.0,
        use_dora=recipe.dora == "on",
        task_type="CAUSAL_LM",
        **_adapted(model, recipe.lora_layers),
    )
    torch.manual_seed(recipe.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a property by its old name
        try:
            tuned = get_peft_model(model, config)  # the adapters themselves stay fp32
        except ValueError as error:
            raise InputError(f"{type(model).__name__} takes no adapters ({error}); use method = full") from None
    use_lean_products(tuned)
    return tuned


def _adapted(model: Any, last: int) -> dict[str, Any]:
    """peft's settings for all linear layers inside the last `last` decoder layers; 0: inside all."""
    if not last:
        return {"target_modules": "all-linear"}
    layers = model.config.num_hidden_layers
    if last > layers:
        raise InputError(
            f"lora_layers = {last}, but the model has {layers} layers; give at most {layers}, or 0 for all"
        )
    decoder = model.get_decoder().layers
    names = sorted({name.split(".")[-1] for name, part in decoder.named_modules() if isinstance(part, nn.Linear)})
    return {"target_modules": names, "layers_to_transform": list(range(layers - last, layers))}


def _wants_checkpointing(recipe: Recipe, model: Any) -> bool:
    if recipe.checkpointing != "auto":
        return recipe.checkpointing == "on"
    return torch.cuda.is_available() or count_parameters(model)[1] >= SMALL


def _unshareable(model: Any) -> str:
    """Why samples of a pack would not stay apart in this model, or could not share what they have in common."""
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
