"""In 16 and 4 bits, packing changes the trained weights less than another order of the same batches does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from agentft.engine.packing import Pack, pack_in_order
from agentft.training.loading import load_model
from agentft.training.loop import TrainingLoop
from agentft.training.recipe import Recipe
from tests.engine.samples import alone, make
from tests.tiny import save_tiny

STEM = list(range(3, 43))
SAMPLES = [
    make([*STEM, *(44 + (row * place) % 23 for place in range(1, 9))], {46: 1.0, 47: 1.0}, row) for row in range(12)
]
BATCHES = [range(4), range(4, 8), range(8, 12)]


def weights_after(packs: Sequence[Pack], model: Path, **settings: Any) -> torch.Tensor:
    recipe = Recipe(model=str(model), lr=1e-3, warmup=0.0, schedule="constant", dtype="bf16", **settings)
    loop = TrainingLoop(load_model(recipe, str(model)), recipe, SAMPLES, packs, on_event=lambda _: None)
    loop.run()
    return torch.cat([value.detach().float().flatten() for value in loop.model.parameters() if value.requires_grad])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_packing_changes_the_weights_less_than_another_order_of_batches(method: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    save_tiny(model)
    single = alone(SAMPLES)
    together = [pack for batch in BATCHES for pack in pack_in_order(SAMPLES, batch)]
    packed = weights_after(together, model, method=method)
    apart = weights_after([single[row] for batch in BATCHES for row in batch], model, method=method, batch=4)
    other = [single[row] for batch in BATCHES[::-1] for row in batch]
    swapped = weights_after(other, model, method=method, batch=4)

    assert len(together) == 3
    assert 0 < (packed - apart).norm() < (swapped - apart).norm()
