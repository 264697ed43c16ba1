"""The optimizer and the learning-rate schedule of a recipe."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from agentft.training.recipe import Recipe

__all__ = ["make_optimizer", "make_schedule", "rate_factor"]

BETAS, EPSILON = (0.9, 0.999), 1e-8


def make_optimizer(model: Any, recipe: Recipe) -> Optimizer:
    """AdamW over the trainable parameters of `model`: torch's, or bitsandbytes' paged 8-bit AdamW.

    Weight decay applies to matrices, not to vectors (biases, norms, DoRA magnitudes). With `lora_plus`, peft groups the
    parameters so that the B matrices get a higher learning rate.
    """
    kind, settings = _adamw(recipe)
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


def _adamw(recipe: Recipe) -> tuple[type[Optimizer], dict[str, Any]]:
    settings = {"lr": recipe.lr, "betas": BETAS, "eps": EPSILON}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW, settings | ({"fused": True} if torch.cuda.is_available() else {})
    from bitsandbytes.optim import PagedAdamW8bit

    return PagedAdamW8bit, settings


def make_schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> LambdaLR:
    """The recipe's schedule over `steps` optimizer steps, see `rate_factor`."""
    return LambdaLR(optimizer, lambda step: rate_factor(recipe.schedule, recipe.warmup, steps, step))


def rate_factor(schedule: str, warmup: float, steps: int, step: int) -> float:
    """The learning rate at `step` (from 0) of `steps`, as a fraction of the peak.

    transformers' schedules start at 0 and so waste the first step, which matters in short runs.
    """
    warmup_steps = math.ceil(warmup * steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    remaining = (steps - step) / max(steps - warmup_steps, 1)
    return {"constant": 1.0, "linear": remaining, "cosine": 0.5 - 0.5 * math.cos(math.pi * remaining)}[schedule]
