"""Checks of settings against the files of a local model and this machine, before anything heavy is imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from contextlib import suppress
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from agentft.errors import InputError, MissingError
from agentft.files import read_object
from agentft.models.embedded import EMBEDDED, model_folder
from agentft.strict import closest

if TYPE_CHECKING:
    from agentft.training.recipe import Recipe

__all__ = [
    "LIGER",
    "NEEDED_ARGS",
    "SCHEDULE_ARGS",
    "check_early",
    "check_layers",
    "check_modules",
    "check_new",
    "may_have_gpu",
]

LIGER = "liger = on needs an NVIDIA GPU and `pip install liger-kernel`; or set liger = auto"
_LOW = ("num_cycles", "min_lr", "min_lr_rate")
SCHEDULE_ARGS = {
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "cosine_with_min_lr": _LOW,
    "cosine_warmup_with_min_lr": (*_LOW, "warmup_lr_rate"),
    "polynomial": ("lr_end", "power"),
    "inverse_sqrt": ("timescale",),
    "warmup_stable_decay": ("num_decay_steps", "num_stable_steps", "min_lr_ratio", "num_cycles"),
}
"""The numeric arguments of transformers' schedules; schedules that are not listed take none."""
NEEDED_ARGS = {
    "cosine_with_min_lr": _LOW[1:],
    "cosine_warmup_with_min_lr": _LOW[1:],
    "warmup_stable_decay": ("num_decay_steps",),
}
"""Arguments of which a schedule needs at least one."""
_DEVICES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")  # NVIDIA's, those of Jetson, AMD's and WSL's
_PLAIN = re.compile(
    r"model|layers|\d+|self_attn|mlp|(?:[qkvo]|qkv|gate|up|down|gate_up)_proj|embed_tokens|lm_head|rotary_emb|(?:\w+_)?(?:layer)?norm"
)
"""Modules of the layout that most models have. transformers may load a model with others under other names."""


def check_early(recipe: Recipe) -> None:
    """Refuse settings that the files of the model contradict, if they are on this machine, or the machine itself.

    Raises:
        InputError: see `check_modules`, `check_layers` and `check_new`, which are called again with the model itself;
            or the schedule does not take the recipe's `schedule_args`, or lacks one.
        MissingError: `liger = on`, without a GPU or Liger.
    """
    _check_schedule(recipe.schedule, recipe.schedule_args)
    if recipe.liger == "on" and not (may_have_gpu() and find_spec("liger_kernel")):
        raise MissingError(LIGER)
    folder = model_folder(recipe.model) if recipe.model in EMBEDDED else Path(recipe.model).expanduser()
    config = read_object(folder / "config.json")
    text: Any = config.get("text_config", config)
    if isinstance(text, dict) and isinstance(layers := text.get("num_hidden_layers"), int):
        check_layers(recipe.lora_layers, layers)
    if recipe.add_tokens:
        check_new(recipe.add_tokens, _tokens(folder))
    if recipe.modules_to_save and (known := _modules(folder)):
        check_modules(recipe.modules_to_save, known | {"lm_head"}, recipe.model)  # a tied head has no weights


def check_modules(wanted: Collection[str], known: Collection[str], model: str) -> None:
    """Check `modules_to_save`. Raises InputError: the model has no such module."""
    if unknown := [name for name in wanted if name.rpartition(".")[2] not in known]:
        near = closest(unknown[0], sorted(known))
        hint = f"did you mean {near!r}?" if near else "name modules such as embed_tokens and lm_head"
        raise InputError(f"modules_to_save: {model} has no module {unknown[0]!r}; {hint}")


def check_layers(last: int, layers: int) -> None:
    """Check `lora_layers`. Raises InputError: the model has fewer layers."""
    if last > layers:
        raise InputError(f"lora_layers = {last}: the model has {layers} layers; give at most {layers}, or 0 for all")


def check_new(tokens: Collection[str], known: Collection[str]) -> None:
    """Check `add_tokens`. Raises InputError: the tokenizer has one of them already, or one is blank."""
    if present := [token for token in tokens if token in known or not token.strip()]:
        raise InputError(f"add_tokens: the tokenizer already has {present[0]!r}; remove it from the list")


def _check_schedule(schedule: str, given: Collection[str]) -> None:
    takes = SCHEDULE_ARGS.get(schedule, ())
    if unknown := next((name for name in given if name not in takes), None):
        what = f"it takes {', '.join(takes)}" if takes else "it takes no arguments"
        raise InputError(f"schedule = {schedule}: no argument {unknown!r}; {what}")
    needed = NEEDED_ARGS.get(schedule, ())
    if needed and not any(name in given for name in needed):
        raise InputError(f"schedule = {schedule} needs an argument; add schedule_args.{needed[-1]}=NUMBER")


def may_have_gpu() -> bool:
    """False if PyTorch cannot find a GPU here, since there are neither devices nor a driver."""
    devices = (any(Path("/dev").glob(pattern)) for pattern in _DEVICES)
    return sys.platform != "linux" or any(devices) or find_library("cuda") is not None


def _tokens(folder: Path) -> set[str]:
    """The tokens of a folder's tokenizer.json, as far as they can be read."""
    content = read_object(folder / "tokenizer.json")
    added, model = content.get("added_tokens"), content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    listed = added if isinstance(added, list) else []
    return {str(one.get("content")) for one in listed if isinstance(one, dict)} | set(
        vocabulary if isinstance(vocabulary, dict) else ()
    )


def _modules(folder: Path) -> set[str]:
    """The names of the modules with weights; empty if they cannot be read, or may not be those of the loaded model."""
    index = read_object(folder / "model.safetensors.index.json").get("weight_map")
    tensors = [*index] if isinstance(index, dict) else []
    with suppress(OSError, SafetensorError), safe_open(folder / "model.safetensors", "numpy") as weights:
        tensors += weights.keys()
    names = {name for tensor in tensors for name in tensor.split(".")[:-1]}
    return names if all(map(_PLAIN.fullmatch, names)) else set()
