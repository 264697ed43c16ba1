"""Loads the model to train: weights in 4-bit, bf16 or fp32, with new adapters."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from agentft.engine.lora import fuse_lora
from agentft.engine.noise import EmbeddingNoise
from agentft.engine.speed import HostEmbedding, embed_on_host, recompute_gates, use_liger
from agentft.engine.tree_attention import TREE_ATTENTION, unshareable
from agentft.errors import InputError
from agentft.models.hf import dequantise, quantisation
from agentft.models.tokenizers import fit_embeddings, load_base
from agentft.training.early import check_layers
from agentft.training.encoder import open_encoder
from agentft.training.ranks import join_ranks
from agentft.training.recipe import Recipe
from agentft.training.sharding import is_weights_sharded
from agentft.training.starts import keep_start, settings_of, start_loftq, widen_trained
from agentft.training.zero import sharded_loading

__all__ = ["count_parameters", "expert_notes", "load_model", "prepare_model"]


def load_model(recipe: Recipe, where: str, config: Any = None, tokenizer: Any = None) -> Any:
    """Load the model of a resolved recipe, and add adapters (seeded by the recipe) unless all weights are trained.

    Weights have 4 or 8 bits (qlora), the dtype of the recipe (lora, DeepSpeed), or are fp32 (full; the computation is
    in the recipe's dtype). With ZeRO-3, each process keeps its share.

    Args:
        recipe: resolved, without `auto`.
        where: a folder or a hub id.
        config: the model's config, if it was read before.
        tokenizer: the model's tokenizer with the recipe's `add_tokens`; None: load it if there are some.

    Raises:
        MissingError: the model is not on this machine and cannot be downloaded.
        InputError: sharing is on, but the model cannot isolate the samples of a pack.
    """
    half = recipe.dtype == "bf16" and (recipe.method != "full" or bool(recipe.deepspeed))
    dtype = torch.bfloat16 if half else torch.float32
    zero3 = is_weights_sharded(recipe)
    with sharded_loading(recipe, join_ranks()) if zero3 else nullcontext():
        model = load_base(
            recipe.model,
            where,
            config=config,
            dtype=dtype,
            quantization_config=quantisation(recipe.bits, dtype) if recipe.method == "qlora" else None,
            attn_implementation=None if recipe.sharing == "off" else TREE_ATTENTION,
            device_map={"": torch.cuda.current_device()} if torch.cuda.is_available() and not zero3 else None,
        )
    if recipe.method == "full" and getattr(model, "is_quantized", False):
        raise InputError(f"the weights of {recipe.model} are quantised, so they cannot be trained; use --method lora")
    if recipe.method == "qlora" and recipe.unpack == "on":
        model = dequantise(model)
    if recipe.add_tokens:
        tokenizer = tokenizer or open_encoder(recipe).tokenizer
        fit_embeddings(model, tokenizer)
    return prepare_model(recipe, model, where, tokenizer)


def prepare_model(recipe: Recipe, model: Any, where: str, tokenizer: Any = None) -> Any:
    """Add adapters to a loaded model and set it up for training. `tokenizer`: only needed for `add_tokens`."""
    if recipe.sharing != "off" and (reason := unshareable(model)):
        raise InputError(f"{where}: {type(model).__name__} {reason}; train it with sharing = off")
    if recipe.liger == "on":
        use_liger(model)
    tuned = model if recipe.method == "full" else _add_adapters(model, recipe, where, tokenizer)
    if recipe.method != "full" and recipe.host_embeddings == "on":
        embed_on_host(model)
    if recipe.checkpointing == "on":
        every = max(recipe.checkpoint_every, 1)
        settings = {"use_reentrant": False, "preserve_rng_state": False}
        model.activation_checkpointing_enable(settings, every_n_layers=every)
    if recipe.liger == "on" and recipe.method != "full":
        recompute_gates(model)
    if recipe.neftune_alpha:
        model.embedding_noise = EmbeddingNoise(recipe.neftune_alpha)
        model.get_input_embeddings().register_forward_hook(model.embedding_noise)
    return tuned.train()  # peft's wrapper is already in training mode, but the layers inside it are not


def count_parameters(model: Any) -> tuple[int, int]:
    """The numbers of (trainable, all) parameters. 4-bit matrices count with all their elements."""
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    trainable = sum(size for size, trained in sizes if trained)
    known = int(model.num_parameters()) if hasattr(model, "num_parameters") else trainable
    known = max(known, sum(size for size, _ in sizes))  # ZeRO-3 leaves empty tensors
    return trainable, known + sum(part.table.numel() for part in model.modules() if isinstance(part, HostEmbedding))


def expert_notes(recipe: Recipe, model: Any) -> Iterator[str]:
    """What adapters and 4 or 8 bits do not reach: in a mixture of experts, a layer's experts are one tensor."""
    found = sorted(model.get_base_model().get_decoder().named_parameters(), key=lambda one: -one[1].numel())
    parts = {name: p for name, p in found if name[:7] == "layers." and p.dim() > 1 and "lora_" not in name}
    loose = {name: p for name, p in parts.items() if recipe.method == "qlora" and p.dim() == 3}
    bare = {name: p for name, p in parts.items() if not recipe.lora_layers and "base_layer" not in name}
    for fate, some in (("quantised by bitsandbytes", loose), ("adapted by peft", bare)):
        if (left := sum(map(torch.numel, some.values()))) > (whole := sum(map(torch.numel, parts.values()))) / 10:
            yield f"{left / whole:.0%} of the weights of the layers are not {fate}, such as {next(iter(some))}"


_MAMBA = {"bamba", "falcon_h1", "granitemoehybrid", "nemotron_h"}


def _add_adapters(model: Any, recipe: Recipe, where: str, tokenizer: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        **settings_of(recipe, model, tokenizer),
        **_target_layers(model, recipe.lora_layers),
        exclude_modules=_not_adapted(model),
    )
    torch.manual_seed(recipe.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads a deprecated property of transformers
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys")  # peft's own, for experts
        try:
            tuned = get_peft_model(model, config)  # the adapters stay fp32
        except ValueError as error:
            raise InputError(f"{type(model).__name__} does not support adapters ({error}); use method = full") from None
    tuned.create_or_update_model_card = lambda _: None  # it would be all placeholders, in every checkpoint
    if recipe.lora_init == "pissa":
        keep_start(tuned)
    elif recipe.lora_init == "loftq":
        start_loftq(tuned, recipe, where)
    widen_trained(tuned, model.dtype)
    if not is_weights_sharded(recipe):  # ZeRO-3 gathers the weights of a layer when its own forward pass begins
        fuse_lora(tuned)
    return tuned


def _not_adapted(model: Any) -> str | None:
    """A pattern of the parts that see or hear, which text does not train and where servers refuse adapters, and of the
    Mamba layers' output, whose weights a kernel reads past the adapter.
    """
    decoder = next(name for name, part in model.named_modules() if part is model.get_decoder())
    patterns = [] if model.config.get_text_config() is model.config else [rf"(?!{re.escape(decoder)}\.).*"]
    patterns += [r".*\.(?:mamba|mixer)\.out_proj"] if model.config.get_text_config().model_type in _MAMBA else []
    return "|".join(patterns) or None


def _target_layers(model: Any, last: int) -> dict[str, Any]:
    """peft's settings that adapt the linear layers of the last `last` decoder layers (0: of all layers)."""
    if not last:
        return {"target_modules": "all-linear"}
    layers = model.config.get_text_config().num_hidden_layers
    check_layers(last, layers)
    decoder = model.get_decoder().layers
    names = sorted({name.split(".")[-1] for name, part in decoder.named_modules() if isinstance(part, nn.Linear)})
    return {"target_modules": names, "layers_to_transform": list(range(layers - last, layers))}
