"""Trains a tiny model on a few packs and writes what came of it; run by itself or by torchrun in several processes."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from agentft.data.packing import epoch_packs
from agentft.training.arguments import training_arguments
from agentft.training.events import StepDone
from agentft.training.loading import prepare_model
from agentft.training.recipe import Method, Recipe
from agentft.training.trainer import PackTrainer
from tests.tiny import tiny_model
from tests.training.samples import nested

__all__ = ["main"]

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}


def deepspeed(spread: str) -> dict[str, Any]:
    """What DeepSpeed is told; on the CPU it would otherwise compile an optimizer of its own."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": STAGES[spread], "stage3_gather_16bit_weights_on_model_save": True},
    }


def main(spread: str, method: Method, batch: int, target: Path) -> None:
    """Two steps of nested samples; rank 0 writes losses, gradient norms and a sum of each trained tensor."""
    recipe = Recipe(method=method, batch=batch, lr=0.01, schedule="constant", warmup=0.0, dtype="fp32", sharing="on")
    samples = nested()
    packs = [pack for epoch in range(4) for pack in epoch_packs(samples, 60, 0, epoch)]
    assert len(packs) >= 8
    packs = packs[:8]
    settings = deepspeed(spread) if spread in STAGES else None
    arguments = training_arguments(recipe, target.parent / f"checkpoints-{spread}", settings)
    arguments.save_strategy = "no"
    events: list[Any] = []
    model = prepare_model(recipe, tiny_model(), "tiny")
    trainer = PackTrainer(model, arguments, samples, packs, on_event=events.append, recipe=recipe)
    trainer.train()
    steps = [event for event in events if isinstance(event, StepDone)]
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if int(os.environ.get("RANK", "0")) == 0:
        trained = {
            name: float(value.double().square().sum())
            for name, value in weights.items()
            if method == "full" or "lora" in name
        }
        document = {"losses": [s.loss for s in steps], "norms": [s.grad_norm for s in steps], "weights": trained}
        target.write_text(json.dumps(document))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], "full" if sys.argv[2] == "full" else "lora", int(sys.argv[3]), Path(sys.argv[4]))
