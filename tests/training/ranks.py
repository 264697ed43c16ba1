"""Trains a tiny model in one process and in several, under DDP and ZeRO, and writes the results.

Imports happen once and each run is a fork, because the imports take longer than all runs together.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentft.engine.packing import epoch_packs
from agentft.errors import InputError
from agentft.training.events import StepDone
from agentft.training.loading import prepare_model
from agentft.training.loop import TrainingLoop
from agentft.training.machine import deterministic
from agentft.training.recipe import Method, Recipe
from agentft.training.sharding import FORMS
from tests.engine.samples import nested
from tests.tiny import tiny_model
from tests.training.forks import Fork, join

__all__ = ["RUNS", "fork", "main", "train"]

RUNS: list[tuple[str, Method]] = [
    ("alone", "lora"),
    ("alone", "full"),
    ("ddp", "lora"),
    ("zero2-offload", "full"),
    ("zero3", "full"),
    ("zero2", "lora"),
    ("zero3", "lora"),
]
RESUMED: list[tuple[str, Method, str, int]] = [
    ("zero3", "full", "zero3", 2),
    ("zero3", "full", "zero3", 1),
    ("zero2-offload", "full", "zero2-offload", 2),
    ("zero2", "lora", "zero2", 2),
    ("zero3", "lora", "zero3", 1),
    ("zero3", "lora", "alone", 1),
    ("ddp", "lora", "zero3", 2),
]
"""A run that is stopped after its first step: how, the method, how it goes on, and in how many processes."""


def train(spread: str, method: Method, target: Path, checkpoints: Path | None, stop: bool) -> None:
    """Two steps of four packs, or one; rank 0 writes losses, gradient norms and digests of each trained tensor."""
    recipe = Recipe(method=method, batch=4, lr=0.01, schedule="linear", warmup=0.0, dtype="fp32", sharing="on")
    recipe = replace(recipe, deepspeed=spread if spread in FORMS else "")
    samples = nested()
    packs = [pack for epoch in range(4) for pack in epoch_packs(samples, 60, 0, epoch)][:8]
    events: list[Any] = []
    model = prepare_model(recipe, tiny_model(), "tiny")
    loop = TrainingLoop(
        model,
        recipe,
        samples,
        packs,
        on_event=events.append,
        should_stop=lambda: stop,
        checkpoints=checkpoints,
    )
    found = sorted(checkpoints.glob("checkpoint-1")) if checkpoints and not stop else []
    with deterministic():
        loop.run(found[0] if found else None)
    weights = loop.weights() or dict(model.named_parameters())
    if int(os.environ.get("RANK", "0")) == 0:
        steps = [event for event in events if isinstance(event, StepDone)]
        trained = {
            name: [float(value.double().square().sum()), float(value.double().sum())]
            for name, value in weights.items()
            if method == "full" or "lora" in name
        }
        document = {"losses": [s.loss for s in steps], "norms": [s.grad_norm for s in steps], "weights": trained}
        target.write_text(json.dumps(document))


def fork(
    spread: str, method: Method, target: Path, world: int, checkpoints: Path | None = None, stop: bool = False
) -> None:
    """Train in `world` processes. Raises RuntimeError if one of them fails in another way than by refusing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def work() -> int:
        try:
            train(spread, method, target, checkpoints, stop)
        except InputError as error:
            target.write_text(json.dumps({"refused": str(error)}))
        return 0

    shared = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {} for rank in range(world)]
    codes = join([Fork(rank, work) for rank in ranks])
    if any(codes):
        raise RuntimeError(f"{spread}, {method}: the processes ended with {codes}")


def main(folder: Path) -> None:
    """Do all runs; each writes `<spread>-<method>.json`, or `<spread>-<method>-then-<spread>-<processes>.json`."""
    import deepspeed  # noqa: F401  (before the forks)

    for spread, method in RUNS:
        fork(spread, method, folder / f"{spread}-{method}.json", 1 if spread == "alone" else 2)
    for first, method, second, world in RESUMED:
        name = f"{first}-{method}-then-{second}-{world}"
        fork(first, method, folder / "stopped", 2, folder / name, stop=True)
        fork(second, method, folder / f"{name}.json", world, folder / name)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
