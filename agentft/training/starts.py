"""Adapters that start from the weights (PiSSA, LoftQ), tokens that are added, and modules that are trained in full."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agentft.models.tokenizers import load_base
from agentft.training.early import check_modules, check_new
from agentft.training.recipe import Recipe

__all__ = ["START", "add_tokens", "keep_start", "save_plain", "settings_of", "start_loftq", "widen_trained"]

_FAST_SVD = 16
"""Iterations of PiSSA's approximate SVD, as in its paper; the exact one takes minutes for a large model."""
START = "start_of_adapter"


def add_tokens(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Add a recipe's tokens to a tokenizer.

    Raises:
        InputError: it has one of them already.
    """
    from tokenizers import AddedToken

    check_new(tokens, tokenizer.get_vocab())
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])


def settings_of(recipe: Recipe, model: Any, tokenizer: Any) -> dict[str, Any]:
    """peft's settings for the recipe's start, added tokens and modules that are trained in full.

    Raises:
        InputError: the model has no such module.
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    check_modules(recipe.modules_to_save, names, type(model).__name__)
    settings: dict[str, Any] = {"use_rslora": recipe.rslora == "on", "use_dora": recipe.dora == "on"}
    tables = {part: name for name, part in model.named_modules() if isinstance(part, nn.Embedding | nn.Linear)}
    wanted = [model.get_input_embeddings(), model.get_output_embeddings()]
    tied = wanted[1] is None or wanted[1].weight is wanted[0].weight
    if recipe.lora_init == "pissa":
        settings["init_lora_weights"] = f"pissa_niter_{_FAST_SVD}"
    if recipe.modules_to_save:
        settings["modules_to_save"] = list(recipe.modules_to_save)
        named = {tables[part].rpartition(".")[2] for part in wanted if part in tables}
        settings["ensure_weight_tying"] = tied and bool(named & set(recipe.modules_to_save))
    if recipe.add_tokens:
        ids = tokenizer.convert_tokens_to_ids(list(recipe.add_tokens))
        ends = [tables[part].rpartition(".")[2] for part in wanted[: 1 if tied else 2]]
        if not settings.get("ensure_weight_tying"):  # which trains the whole table, by either of its names
            settings["trainable_token_indices"] = {name: ids for name in ends if name not in recipe.modules_to_save}
    return settings


def widen_trained(model: Any, dtype: torch.dtype) -> None:
    """Keep what is trained in fp32, because small updates vanish in bf16, and cast where it meets `dtype`."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if dtype == torch.float32:
        return
    from peft.utils import ModulesToSaveWrapper

    for part in model.modules():
        if isinstance(part, ModulesToSaveWrapper):
            part.register_forward_pre_hook(_cast_inputs)
            part.register_forward_hook(lambda _part, _inputs, output: output.to(dtype))


def _cast_inputs(_part: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.float() if isinstance(one, Tensor) and one.is_floating_point() else one for one in inputs)


def start_loftq(tuned: Any, recipe: Recipe, where: str) -> None:
    """Start the adapters from the largest part of what rounding to 4 bits lost. The weights stay as they are.

    peft's own function needs a GPU and forgets the adapters' scale.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import LoraLayer

    whole = load_base(recipe.model, where, dtype=torch.bfloat16)
    weights = dict(whole.named_parameters())
    for name, layer in tuned.get_base_model().named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        rounded, down, up = layer.get_base_layer().weight, layer.lora_A["default"], layer.lora_B["default"]
        lost = weights[f"{name}.weight"].to(rounded.device, torch.float32)
        lost = lost - dequantize_4bit(rounded.data, rounded.quant_state).float()
        rank = layer.r["default"]
        left, sizes, right = torch.svd_lowrank(lost, min(2 * rank, *lost.shape), niter=4)
        root = (sizes[:rank] / layer.scaling["default"]).sqrt()
        down.weight.data[: len(root)] = root[:, None] * right[:, :rank].t()
        up.weight.data[:, : len(root)] = left[:, :rank] * root


def keep_start(tuned: Any) -> None:
    """Remember where PiSSA's adapters start, so that they can be saved for the original weights."""
    from peft import get_peft_model_state_dict

    start = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    setattr(tuned, START, {name: tensor.detach().to("cpu", copy=True) for name, tensor in start.items()})


def save_plain(tuned: Any, folder: Path) -> None:
    """Save adapters that started by PiSSA as plain LoRA of twice the rank, which fits the original weights."""
    from safetensors.torch import load_file, save_file

    tuned.save_pretrained(str(folder), save_embedding_layers=False)
    config, file = copy.deepcopy(tuned.peft_config["default"]), folder / "adapter_model.safetensors"
    weights, start = load_file(file), getattr(tuned, START)
    for name, tensor in weights.items():
        if ".lora_" in name:
            down = ".lora_A." in name
            weights[name] = torch.cat([tensor, start[name] if down else -start[name]], 0 if down else 1)
    save_file(weights, file, {"format": "pt"})
    config.init_lora_weights, config.inference_mode, config.r = True, True, 2 * config.r
    config.lora_alpha *= 2**0.5 if config.use_rslora else 2
    config.save_pretrained(str(folder))
