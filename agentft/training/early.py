"""Checks of settings against the files of a local model and this machine, before anything heavy is imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from contextlib import suppress
from ctypes.util import find_library
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from agentft.errors import InputError
from agentft.files import read_object
from agentft.models.embedded import EMBEDDED, model_folder
from agentft.strict import closest

if TYPE_CHECKING:
    from agentft.training.recipe import Recipe

__all__ = ["check_early", "check_modules", "may_have_gpu"]

_DEVICES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")  # NVIDIA's, those of Jetson, AMD's and WSL's
_PLAIN = re.compile(
    r"model|layers|\d+|self_attn|mlp|(?:[qkvo]|qkv|gate|up|down|gate_up)_proj|embed_tokens|lm_head|rotary_emb|(?:\w+_)?(?:layer)?norm"
)
"""Modules of the layout that most models have. transformers may load a model with others under other names."""


def check_early(recipe: Recipe) -> None:
    """Refuse modules that the files of the model do not have, if they are on this machine.

    Raises:
        InputError: see `check_modules`, which is called again with the model itself.
    """
    folder = model_folder(recipe.model) if recipe.model in EMBEDDED else Path(recipe.model).expanduser()
    if recipe.modules_to_save and (known := _modules(folder)):
        check_modules(recipe.modules_to_save, known | {"lm_head"}, recipe.model)  # a tied head has no weights


def check_modules(wanted: Collection[str], known: Collection[str], model: str) -> None:
    """Check `modules_to_save`. Raises InputError: the model has no such module."""
    if unknown := [name for name in wanted if name.rpartition(".")[2] not in known]:
        near = closest(unknown[0], sorted(known))
        hint = f"did you mean {near!r}?" if near else "name modules such as embed_tokens and lm_head"
        raise InputError(f"modules_to_save: {model} has no module {unknown[0]!r}; {hint}")


def may_have_gpu() -> bool:
    """False if PyTorch cannot find a GPU here, since there are neither devices nor a driver."""
    devices = (any(Path("/dev").glob(pattern)) for pattern in _DEVICES)
    return sys.platform != "linux" or any(devices) or find_library("cuda") is not None


def _modules(folder: Path) -> set[str]:
    """The names of the modules with weights; empty if they cannot be read, or may not be those of the loaded model."""
    index = read_object(folder / "model.safetensors.index.json").get("weight_map")
    tensors = [*index] if isinstance(index, dict) else []
    with suppress(OSError, SafetensorError), safe_open(folder / "model.safetensors", "numpy") as weights:
        tensors += weights.keys()
    names = {name for tensor in tensors for name in tensor.split(".")[:-1]}
    return names if all(map(_PLAIN.fullmatch, names)) else set()
