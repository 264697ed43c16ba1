"""What transformers is told of a run, and how its learning rate goes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from agentft.training.recipe import Recipe

__all__ = ["rate_factor", "training_arguments"]


def training_arguments(recipe: Recipe, checkpoints: Path, deepspeed: dict[str, Any] | None = None) -> TrainingArguments:
    """A recipe as transformers wants it: one pack a micro-batch, no reports, no progress bars."""
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=recipe.batch,
        num_train_epochs=1,  # the packs of all epochs stand in one list
        learning_rate=recipe.lr,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip,
        optim=_optimizer(recipe),
        seed=recipe.seed,
        save_strategy="steps",
        save_steps=recipe.save_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        deepspeed=deepspeed,
    )
    # In one process transformers would split batches over all GPUs in sight, and a pack is one row.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _optimizer(recipe: Recipe) -> str:
    """transformers' name of it."""
    if recipe.optimizer == "adamw_8bit":
        return "paged_adamw_8bit"
    return "adamw_torch_fused" if torch.cuda.is_available() else "adamw_torch"


def rate_factor(schedule: str, warmup: float, steps: int, step: int) -> float:
    """The share of the peak rate at `step` (from 0) of `steps`.

    transformers' schedules begin at 0, which makes the first step a loss of time; in a short run that matters.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    left = (steps - step) / max(steps - rising, 1)
    return {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[schedule]
