"""A sweep over learning rates on a run's own data: exponential rates, one a step, until the loss diverges.

Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

from agentft.engine.packing import Pack, epoch_packs
from agentft.errors import AgentftError
from agentft.models.embedded import resolve
from agentft.training.encoder import open_encoder
from agentft.training.events import Event, Note, OnEvent, StepDone, Waiting
from agentft.training.heldout import prepare_apart
from agentft.training.loading import load_model
from agentft.training.loop import TrainingLoop
from agentft.training.machine import deterministic, measure_machine
from agentft.training.recipe import Recipe, check_places
from agentft.training.resolve import resolve_recipe

__all__ = ["RULE", "Sweep", "find_lr"]

LOWEST, HIGHEST, STEPS = 1e-7, 1.0, 100
DIVERGED = 3.0
"""The sweep ends when the smoothed loss is this many times its lowest value."""
KEPT = 0.9
"""Smoothing: the share of the mean so far that each step keeps."""
BELOW_LOWEST = 10
RULE = f"a tenth of the rate at which the smoothed loss is lowest (losses of {STEPS} steps, mean with weight {KEPT})"


@dataclass(frozen=True, slots=True)
class Sweep:
    """The loss at each rate. `suggestion`: see RULE; 0 if no step was finished."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float


def find_lr(recipe: Recipe, on_event: OnEvent, should_stop: Callable[[], bool] = lambda: False) -> Sweep:
    """Train with growing rates, and forget the weights.

    Raises:
        InputError: the settings, the data or the model cannot be used.
        MissingError: the model is not on this machine and cannot be downloaded.
    """
    check_places(recipe)
    on_event(Waiting(f"reading {', '.join(recipe.data)} and loading {recipe.model}"))
    encoder = open_encoder(recipe)
    prepared, _ = prepare_apart(recipe, encoder)
    resolved = resolve_recipe(recipe, prepared.samples, measure_machine())
    recipe = replace(resolved.recipe, lr=LOWEST)
    for note in resolved.notes:
        on_event(note)
    packs: list[Pack] = []
    epoch, share = 0, recipe.sharing == "on"
    while len(packs) < STEPS * recipe.batch:
        packs += epoch_packs(prepared.samples, recipe.pack_tokens, recipe.seed, epoch, share=share)
        epoch += 1
    steps: list[StepDone] = []

    def record(event: Event) -> None:
        if isinstance(event, StepDone):
            steps.append(event)
        elif isinstance(event, Note):
            on_event(event)

    def ended() -> bool:
        values = _smooth([step.loss for step in steps])
        return should_stop() or (bool(values) and values[-1] > DIVERGED * min(values))

    model = load_model(recipe, resolve(recipe.model), resolved.architecture.config, encoder.tokenizer)
    chosen, growth = packs[: STEPS * recipe.batch], (HIGHEST / LOWEST) ** (1 / (STEPS - 1))
    loop = TrainingLoop(
        model, recipe, prepared.samples, chosen, on_event=record, should_stop=ended, rate=lambda step: growth**step
    )
    try:
        with deterministic():
            loop.run()
    except AgentftError:
        if not steps:  # otherwise the loss was no longer finite, which ends the sweep
            raise
    return _sweep([step.lr for step in steps], [step.loss for step in steps])


def _sweep(rates: list[float], losses: list[float]) -> Sweep:
    smoothed = _smooth(losses)
    best = rates[smoothed.index(min(smoothed))] if smoothed else 0.0
    suggestion = best / BELOW_LOWEST
    digits = -math.floor(math.log10(suggestion)) + 1 if suggestion else 0
    return Sweep(tuple(rates), tuple(losses), tuple(smoothed), round(suggestion, digits))


def _smooth(losses: list[float]) -> list[float]:
    """The exponential moving mean, with the bias of its start corrected."""
    means = accumulate(losses, lambda mean, loss: KEPT * mean + (1 - KEPT) * loss, initial=0.0)
    return [mean / (1 - KEPT**number) for number, mean in enumerate(means) if number]
