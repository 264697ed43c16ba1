"""Settings of a recipe that contradict each other, each refused before anything is loaded, or that nobody measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentft.training.recipe import Recipe

__all__ = ["contradiction", "share_of", "unplanned"]

_OF_ADAPTERS: dict[str, object] = {"lora_r": 16, "lora_alpha": 32, "lora_layers": 0, "lora_plus": 1, "dora": "off"}
_OF_ADAPTERS |= {"lora_init": "default", "rslora": "off", "modules_to_save": ()}
"""Settings of adapters, with the values that change nothing."""
_LARGEST_SHARE = 0.5


def contradiction(recipe: Recipe) -> str | None:
    """Why these settings cannot be combined; None if they can."""
    return next((reason for wrong, reason in _rules(recipe) if wrong), None)


def share_of(eval_data: str) -> float | None:
    """The share of the rows that `eval_data` stands for; None if it is a file or empty."""
    try:
        return float(eval_data)
    except ValueError:
        return None


def unplanned(recipe: Recipe) -> str:
    """What the planner cannot predict, if anything.

    8 bits took 2.5 times the memory that 4 bits take with the same settings, and DoRA has not been measured.
    """
    return "bits=8" if recipe.bits == 8 else "dora=on" if recipe.dora == "on" else ""


def _rules(recipe: Recipe) -> Iterator[tuple[bool, str]]:
    quantised, start = recipe.method == "qlora", recipe.lora_init
    for name, idle in _OF_ADAPTERS.items():
        value = getattr(recipe, name)
        yield (
            recipe.method == "full" and value != idle,
            f"{name} = {value!r} is for adapters, and method = full has none; omit it, or use method = lora",
        )
    yield recipe.bits not in (4, 8), f"bits = {recipe.bits} is not supported; use 4 or 8"
    yield recipe.bits == 8 and not quantised, "bits = 8 needs method = qlora; other methods do not quantise the weights"
    yield (
        recipe.unpack == "on" and (recipe.bits == 8 or not quantised),
        "unpack = on keeps 4-bit weights dequantised, and there are none; omit it, or use method = qlora with bits = 4",
    )
    yield (
        start == "pissa" and quantised,
        "lora_init = pissa takes the principal components out of the weights, which quantised weights do not allow; "
        "use method = lora, or lora_init = loftq",
    )
    yield (
        start == "loftq" and (not quantised or recipe.bits != 4),
        "lora_init = loftq starts from what rounding to 4 bits lost; it needs method = qlora with bits = 4",
    )
    checkpointed = recipe.checkpoint_every < 2 or recipe.checkpointing != "off"
    yield not checkpointed, "checkpoint_every needs checkpointing, which is off; use checkpointing = on, or omit it"
    yield (
        start == "loftq" and recipe.unpack == "on",
        "lora_init = loftq needs the 4-bit weights, which unpack = on replaces; omit unpack",
    )
    yield (
        start != "default" and recipe.dora == "on",
        f"dora = on learns magnitudes of the original weights, which lora_init = {start} changes; omit one of them",
    )
    yield (
        recipe.neftune_alpha > 0 and recipe.sharing == "on",
        "neftune_alpha: the noise is drawn for each sample, so samples cannot share a prefix; omit sharing = on",
    )
    yield (
        recipe.host_embeddings == "on" and bool(recipe.method == "full" or recipe.modules_to_save or recipe.add_tokens),
        "host_embeddings = on is for frozen embeddings; omit it with method = full, modules_to_save or add_tokens",
    )
    yield from _held_out(recipe)
    yield (
        recipe.optimizer == "muon" and recipe.lora_plus != 1,
        "lora_plus needs an optimizer with one learning rate for each group, not muon; omit lora_plus",
    )


def _held_out(recipe: Recipe) -> Iterator[tuple[bool, str]]:
    remedy = "add --eval-data FILE, or eval_data=0.05 to hold out a share of the rows"
    yield recipe.best == "loss" and not recipe.eval_data, f"best = loss needs held-out rows; {remedy}"
    for name, idle in {"eval_steps": 0, "eval_rows": 500}.items():
        value = getattr(recipe, name)
        yield value != idle and not recipe.eval_data, f"{name} = {value} needs held-out rows; {remedy}"
    yield (
        recipe.patience > 0 and recipe.best in ("off", "loss") and not recipe.eval_data,
        f"patience = {recipe.patience} needs held-out rows; {remedy}",
    )
    share = share_of(recipe.eval_data)
    yield (
        share is not None and not 0 < share <= _LARGEST_SHARE,
        f"eval_data = {recipe.eval_data} is out of range; a share is above 0 and at most {_LARGEST_SHARE}",
    )
