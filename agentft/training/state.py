"""Saves and restores a checkpoint's weights, optimizer, schedule, random generators and step.

checkpoint-<step>/  the adapter (or the model, for `full`) as peft and transformers save it  optimizer.pt  state.pt
                    digests.json
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from agentft.errors import InputError
from agentft.files import write_digests
from agentft.training.checkpoints import complete_folder
from agentft.training.monitor import Monitor
from agentft.training.starts import START, save_plain

__all__ = [
    "fitting",
    "load_adapter",
    "load_progress",
    "load_state",
    "load_weights",
    "save_progress",
    "save_result",
    "save_state",
    "save_weights",
]


def save_weights(model: Any, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Save the adapter, or the whole model if it has none. `weights`: instead of the model's own, by their names."""
    # Otherwise peft would ask the hub whether the vocabulary has changed.
    settings = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(str(folder), state_dict=weights, **settings)


def save_result(model: Any, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Save the result of a run, which fits the original weights also if the adapters' start has changed them."""
    if hasattr(model, START):
        save_plain(model, folder)
    else:
        save_weights(model, folder, weights)


def save_state(
    target: Path,
    model: Any,
    optimizer: dict[str, Any],
    *,
    schedule: LRScheduler,
    monitor: Monitor,
    step: int,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write the checkpoint `target`. One process writes it for all, and any number of processes can continue from it.

    Args:
        target: the folder; it is written atomically.
        model: the unwrapped model.
        optimizer: the optimizer's state, which must be the same in all processes.
        schedule: the optimizer's schedule.
        monitor: what is known of the best step.
        step: number of finished optimizer steps.
        weights: see `save_weights`.

    Raises:
        OSError: the disk is full.
    """
    with complete_folder(target) as partial:
        save_weights(model, partial, weights)
        torch.save(optimizer, partial / "optimizer.pt")
        save_progress(partial, schedule, monitor, step)
        write_digests(partial)


def save_progress(folder: Path, schedule: LRScheduler, monitor: Monitor, step: int) -> None:
    """Write `state.pt`: the step, the schedule, what is known of the best step, and the random generators."""
    state = {"step": step, "schedule": schedule.state_dict(), "monitor": monitor.state_dict()}
    state |= {"generators": [_generators()]}
    torch.save(state, folder / "state.pt")


def load_progress(checkpoint: Path, schedule: LRScheduler, monitor: Monitor) -> int:
    """Restore what `save_progress` wrote; return the number of finished steps."""
    state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
    schedule.load_state_dict(state["schedule"])
    monitor.load_state_dict(state["monitor"])
    _set_generators(state["generators"][0])
    return int(state["step"])


def load_state(checkpoint: Path, model: Any, optimizer: Optimizer, schedule: LRScheduler, monitor: Monitor) -> int:
    """Restore the checkpoint that `save_state` wrote; return the number of finished steps.

    Raises:
        InputError: the checkpoint does not fit this model or optimizer.
    """
    with fitting(checkpoint):
        load_weights(model, checkpoint)
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True))
        return load_progress(checkpoint, schedule, monitor)


@contextmanager
def fitting(checkpoint: Path) -> Iterator[None]:
    """Turns what PyTorch raises for a checkpoint's unreadable, foreign or malicious content into an InputError."""
    try:
        yield
    except (RuntimeError, ValueError, LookupError, EOFError, UnpicklingError, SafetensorError) as error:
        why = str(error).strip().partition("\n")[0]
        raise InputError(f"{checkpoint} does not fit this run ({type(error).__name__}: {why}); train anew") from error


def load_adapter(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The adapter's weights by their names in the file, and the optimizer's state, of a checkpoint of `save_state`.

    Raises:
        InputError: a file cannot be read.
    """
    from peft import load_peft_weights

    with fitting(checkpoint):
        optimizer = torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
        return load_peft_weights(str(checkpoint), device="cpu"), optimizer


def load_weights(model: Any, checkpoint: Path) -> None:
    """Load the weights of a checkpoint into the model.

    Raises:
        InputError: it lacks some of the trained weights.
    """
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
