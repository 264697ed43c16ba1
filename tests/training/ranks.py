"""Trains a tiny model in one process and in two processes under DDP and ZeRO, and writes the results.

Imports happen once and each run is a fork, because the imports take longer than all runs together.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import deepspeed.comm.torch

from agentft.engine.packing import epoch_packs
from agentft.training.events import StepDone
from agentft.training.loading import prepare_model
from agentft.training.loop import TrainingLoop
from agentft.training.recipe import Method, Recipe
from tests.engine.samples import nested
from tests.tiny import tiny_model

__all__ = ["RUNS", "main"]

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}
RUNS: list[tuple[str, Method]] = [
    ("alone", "lora"),
    ("alone", "full"),
    ("ddp", "lora"),
    ("zero2", "lora"),
    ("zero3", "full"),
]


def deepspeed_settings(spread: str) -> dict[str, Any]:
    """DeepSpeed's configuration; by default, it would compile its own optimizer on the CPU."""
    return {
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": STAGES[spread], "stage3_gather_16bit_weights_on_model_save": True},
    }


def train(spread: str, method: Method, target: Path) -> None:
    """Two steps of four packs; rank 0 writes losses, gradient norms and a sum of each trained tensor."""
    batch = 4
    recipe = Recipe(method=method, batch=batch, lr=0.01, schedule="constant", warmup=0.0, dtype="fp32", sharing="on")
    samples = nested()
    packs = [pack for epoch in range(4) for pack in epoch_packs(samples, 60, 0, epoch)][:8]
    settings = deepspeed_settings(spread) if spread in STAGES else None
    events: list[Any] = []
    model = prepare_model(recipe, tiny_model(), "tiny")
    loop = TrainingLoop(model, recipe, samples, packs, on_event=events.append, deepspeed=settings)
    loop.run()
    steps = [event for event in events if isinstance(event, StepDone)]
    weights = loop.accelerator.get_state_dict(loop.wrapped)
    if int(os.environ.get("RANK", "0")) == 0:
        trained = {
            name: float(value.double().square().sum())
            for name, value in weights.items()
            if method == "full" or "lora" in name
        }
        document = {"losses": [s.loss for s in steps], "norms": [s.grad_norm for s in steps], "weights": trained}
        target.write_text(json.dumps(document))


def fork(spread: str, method: Method, target: Path) -> None:
    """Train in one process, or in two if `spread` is not "alone". Raises RuntimeError if one of them fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = 1 if spread == "alone" else 2
    children = []
    for rank in range(world):
        if child := os.fork():
            children.append(child)
            continue
        if world > 1:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
        status = 1
        try:
            train(spread, method, target)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        raise RuntimeError(f"{spread}, {method}: {len(failed)} of {world} processes failed")


def main(folder: Path) -> None:
    """Do all runs; each writes `<spread>-<method>.json`."""
    # DeepSpeed's operator for shared memory would take over a minute to compile.
    deepspeed.comm.torch.build_shm_op = lambda: None
    for spread, method in RUNS:
        fork(spread, method, folder / f"{spread}-{method}.json")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
