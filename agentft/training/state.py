"""Saves and restores a checkpoint's weights, optimizer, schedule, random generators and step.

checkpoint-<step>/  the adapter (or the model, for `full`) as peft and transformers save it  optimizer.pt  state.pt
                    digests.json
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from agentft.errors import InputError
from agentft.files import write_digests
from agentft.training.checkpoints import complete_folder

__all__ = ["load_state", "save_state", "save_weights"]


def save_weights(model: Any, folder: Path) -> None:
    """Save the adapter, or the whole model if it has none."""
    # Otherwise peft would ask the hub whether the vocabulary has changed.
    settings = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(str(folder), **settings)


def save_state(target: Path, model: Any, optimizer: Optimizer, *, schedule: LRScheduler, step: int) -> None:
    """Write the checkpoint `target`. One process writes it for all, and any number of processes can continue from it.

    Args:
        target: the folder; it is written atomically.
        model: the unwrapped model.
        optimizer: its state must be the same in all processes.
        schedule: the optimizer's schedule.
        step: number of finished optimizer steps.

    Raises:
        OSError: the disk is full.
    """
    with complete_folder(target) as partial:
        save_weights(model, partial)
        torch.save(optimizer.state_dict(), partial / "optimizer.pt")
        state = {"step": step, "schedule": schedule.state_dict(), "generators": [_generators()]}
        torch.save(state, partial / "state.pt")
        write_digests(partial)


def load_state(checkpoint: Path, model: Any, optimizer: Optimizer, schedule: LRScheduler) -> int:
    """Restore the checkpoint that `save_state` wrote; return the number of finished steps.

    Raises:
        InputError: the checkpoint does not fit this model or optimizer.
    """
    try:
        _load_weights(model, checkpoint)
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True))
        state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
        schedule.load_state_dict(state["schedule"])
        _set_generators(state["generators"][0])
        return int(state["step"])
    except (RuntimeError, ValueError, LookupError, EOFError, SafetensorError) as error:
        why = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{checkpoint} does not fit this run ({type(error).__name__}: {why}); start a new run"
        ) from error


def _load_weights(model: Any, checkpoint: Path) -> None:
    if hasattr(model, "peft_config"):
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(checkpoint), device="cpu"))
        return
    tensors = {name: value for file in checkpoint.glob("*.safetensors") for name, value in load_file(file).items()}
    # A tied head is saved only once, under the same name that `named_parameters` uses.
    if missing := [name for name, value in model.named_parameters() if value.requires_grad and name not in tensors]:
        raise InputError(f"{checkpoint} lacks weights of this model ({missing[0]}, ...); start a new run")
    model.load_state_dict(tensors, strict=False)


def _generators() -> dict[str, Any]:
    """The states of the random generators that a model or a library may use."""
    state = {"python": random.getstate(), "torch": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_generators(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
