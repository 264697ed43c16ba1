"""The optimizer and the learning-rate schedule of a recipe, by transformers' names."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from agentft.errors import InputError
from agentft.training.recipe import Recipe

__all__ = ["check_schedule", "make_optimizer", "make_schedule"]

BETAS, EPSILON = (0.9, 0.999), 1e-8
_ALIASES = {"adamw": "adamw_torch", "adamw_8bit": "paged_adamw_8bit"}
_SLOW_DECAY = 10_000
"""transformers' timescale of `inverse_sqrt` without warm-up."""


def make_optimizer(model: Any, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over the trainable parameters of `model`.

    Weight decay applies to matrices, not to vectors (biases, norms, DoRA magnitudes). With `lora_plus`, peft groups the
    parameters so that the B matrices get a higher learning rate.
    """
    if recipe.optimizer == "muon":
        return _MuonAdamW(model, recipe)
    kind, settings = _named(recipe)
    if recipe.method != "full" and recipe.lora_plus != 1:
        from peft.optimizers import create_loraplus_optimizer

        optimizer: Optimizer = create_loraplus_optimizer(
            model, kind, loraplus_lr_ratio=recipe.lora_plus, loraplus_weight_decay=recipe.weight_decay, **settings
        )
        return optimizer
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return kind([group for group in groups if group["params"]], **settings)


def _named(recipe: Recipe) -> tuple[Callable[..., Optimizer], dict[str, Any]]:
    name = _ALIASES.get(recipe.optimizer, recipe.optimizer)
    if name == "adamw_torch":
        settings = {"lr": recipe.lr, "betas": BETAS, "eps": EPSILON}
        return torch.optim.AdamW, settings | ({"fused": True} if torch.cuda.is_available() else {})
    from transformers import Trainer
    from transformers.training_args import OptimizerNames

    given = {"adam_beta1": BETAS[0], "adam_beta2": BETAS[1], "adam_epsilon": EPSILON, "optim_args": None}
    arguments: Any = SimpleNamespace(optim=OptimizerNames(name), learning_rate=recipe.lr, **given)
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    if settings.get("is_paged"):  # a CPU has nothing to page out to
        settings["is_paged"] = torch.cuda.is_available()
    return kind, settings


class _MuonAdamW(Optimizer):  # type: ignore[misc]
    """torch's Muon for the matrices inside the layers, and AdamW for vectors, embeddings and the head."""

    def __init__(self, model: Any, recipe: Recipe) -> None:
        tables = [model.get_input_embeddings(), model.get_output_embeddings()]
        outside = {id(parameter) for table in tables if table is not None for parameter in table.parameters()}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        inner = [one for one in trained if one.ndim == 2 and id(one) not in outside]
        rest = [one for one in trained if one.ndim != 2 or id(one) in outside]
        super().__init__(trained, {"lr": recipe.lr})
        muon, decay = torch.optim.Muon, recipe.weight_decay
        parts = [muon(inner, recipe.lr, decay, adjust_lr_fn="match_rms_adamw")] if inner else []
        parts += [torch.optim.AdamW(rest, recipe.lr, BETAS, EPSILON, weight_decay=0.0)] if rest else []
        self._parts: list[Optimizer] = parts
        self._join()

    def _join(self) -> None:
        """A schedule changes the rates of these groups, which are the parts' own."""
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:
        """Step both optimizers."""
        for part in self._parts:
            part.step(closure)

    def state_dict(self) -> dict[str, Any]:
        """The states of both optimizers."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._join()


def make_schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """The recipe's schedule over `steps` optimizer steps, from transformers.

    Its schedules start at 0 and so waste the first step, which matters in short runs; here they start one step later,
    and the warm-up takes `warmup` of the steps all the same.

    Raises:
        InputError: the schedule does not take the recipe's `schedule_args`, or lacks one.
    """
    warmup = math.ceil(recipe.warmup * steps)
    name = "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule
    late = name != "cosine_warmup_with_min_lr"  # which starts above 0 by itself
    given: dict[str, Any] = {
        key: int(one) if float(one).is_integer() else one for key, one in recipe.schedule_args.items()
    }
    if name == "inverse_sqrt" and not warmup:
        given = {"timescale": _SLOW_DECAY} | given
    try:
        if given and recipe.schedule == "constant":
            raise TypeError("constant takes no arguments")
        schedule: LRScheduler = get_scheduler(name, optimizer, warmup + late, steps + late, given)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*lr_scheduler.step.*before.*optimizer.step", UserWarning)
            if late:
                schedule.step()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"schedule = {recipe.schedule} with schedule_args = {dict(recipe.schedule_args)}: "
            f"{str(error).removeprefix('get_')}; see transformers' get_scheduler for its arguments"
        ) from None
    return schedule


def check_schedule(recipe: Recipe) -> None:
    """Check the recipe's schedule without a model.

    Raises:
        InputError: see `make_schedule`.
    """
    make_schedule(torch.optim.SGD([torch.zeros(1)], lr=recipe.lr or 1.0), recipe, 100)
