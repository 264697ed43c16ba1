"""DeepSpeed's configuration: short forms, what the recipe fills in, and what is refused before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentft.errors import InputError, MissingError
from agentft.files import json_of
from agentft.strict import nearest, own_table
from agentft.training.recipe import Method, Recipe

__all__ = ["Sharding", "Way", "complete_settings", "doubts", "is_weights_sharded", "settle", "sharding_of", "ways_of"]

FORMS = ("zero1", "zero2", "zero2-offload", "zero3", "zero3-offload")
AUTO = "auto"
REMOVED = {
    **dict.fromkeys(("nebula", "compression_training", "quantize_training", "eigenvalue", "sparse_attention"), ""),
    **dict.fromkeys(("graph_harvesting", "progressive_layer_drop", "sparse_gradients"), ""),
    "amp": "bf16 follows from the recipe's dtype",
    "elasticity": "the batch follows from the recipe's batch",
    "curriculum_learning": "agentft orders and packs the rows itself",
    "zero_optimization.mics_shard_size": "",
    "zero_optimization.mics_hierarchical_params_gather": "",
    "zero_optimization.zeropp_loco_param": "",
}
"""Keys of older tutorials that DeepSpeed 0.19 refuses, each with what replaces it here."""
NOT_HERE = {
    "tensor_parallel": "agentft gives each process a part of the packs; ZeRO-3 shards the weights",
    "sequence_parallel_size": "agentft gives each process a part of the packs; a long row needs checkpointing = on",
    "pipeline": "agentft gives each process a part of the packs; ZeRO-3 shards the weights",
}
SCHEDULERS = {"WarmupLR": "constant", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}
LIVE = 2e9
"""Gathered weights that ZeRO-3 holds at once, in bytes: its defaults allow 1e9 bf16 weights."""
BUCKET = 1e9
"""DeepSpeed's bucket of 5e8 gradients in bf16, in bytes."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """How DeepSpeed shards a model over `processes`. `offload`: the optimizer is on the host; with stage 3 the weights
    are, too.
    """

    stage: int
    processes: int = 1
    offload: bool = False

    def held(self, trained: float, frozen: float) -> float:
        """Bytes on each GPU for `trained` parameters (bf16, with fp32 copies and moments) and `frozen` bytes."""
        share = 1 / self.processes
        state = 0.0 if self.offload else 16 * trained * share  # fp32: weight, two moments, gradient while stepping
        gradients = 2 * trained * (1 if self.stage == 1 else share) * (not self.offload or self.stage == 1)
        weights = 2 * trained + frozen
        if self.stage == 3:
            weights = min(weights, LIVE) + (0.0 if self.offload else weights * share)
        return state + gradients + weights + min(BUCKET, 2 * trained)


@dataclass(frozen=True, slots=True)
class Way:
    """How a run is spread over several GPUs. `form`: DeepSpeed's, or empty: each has the whole model. `tried`: the
    faster ways that do not fit.
    """

    form: str
    tried: tuple[str, ...] = ()

    def describe(self) -> str:
        """The way and the reason for it, as a phrase."""
        name = f"--deepspeed {self.form}" if self.form else "--gpus alone"
        missed = f"; {', '.join(form or '--gpus alone' for form in self.tried)} would not fit" if self.tried else ""
        return f"{name}: {_REASONS[self.form]}{missed}" if self.form in _REASONS else f"{name}{missed}"


_REASONS = own_table(__file__, str)


def ways_of(recipe: Recipe, gpus: int) -> tuple[str, ...]:
    """The ways to spread a run over the GPUs, the fastest first; only the recipe's, if it names one."""
    if recipe.deepspeed or gpus == 1 or recipe.method == "qlora":
        return (recipe.deepspeed,)
    return tuple(form for form in _REASONS if recipe.method == "full" or not form.startswith("zero2"))


def settle(recipe: Recipe) -> Recipe:
    """The recipe with DeepSpeed's configuration checked; a file's content takes the place of its path.

    Raises:
        InputError: the configuration has a key that DeepSpeed refuses, contradicts the recipe, or cannot work with it.
        MissingError: DeepSpeed is not installed.
    """
    name = recipe.deepspeed
    if not name:
        return recipe
    where = "deepspeed"
    if name not in FORMS and not name.startswith("{"):
        where = name
        recipe = replace(recipe, deepspeed=json.dumps(_read(Path(name))))
    if find_spec("deepspeed") is None:
        raise MissingError("--deepspeed needs DeepSpeed; install it with: pip install 'agentft-suite[deepspeed]'")
    complete_settings(recipe, None, where)
    _refuse(recipe, sharding_of(recipe))
    return recipe


def sharding_of(recipe: Recipe, processes: int = 1) -> Sharding | None:
    """How the recipe's `deepspeed` shards the model; None without it."""
    if not recipe.deepspeed:
        return None
    zero = _settings(recipe.deepspeed)["zero_optimization"]
    return Sharding(zero["stage"], processes, (zero.get("offload_optimizer") or {}).get("device", "none") != "none")


def is_weights_sharded(recipe: Recipe) -> bool:
    """Whether each process holds only its share of the weights (ZeRO-3)."""
    sharding = sharding_of(recipe)
    return sharding is not None and sharding.stage == 3


def complete_settings(recipe: Recipe, processes: int | None, where: str = "deepspeed") -> dict[str, Any]:
    """DeepSpeed's configuration, filled from the recipe.

    Args:
        recipe: what it leaves to be chosen (`auto`, or an lr of 0) contradicts nothing.
        processes: how many there are; None: not known yet.
        where: the configuration's place, for messages.

    Raises:
        InputError: a key that DeepSpeed refuses, or a value that contradicts the recipe's.
    """
    settings = _settings(recipe.deepspeed)
    for key, instead in (REMOVED | NOT_HERE).items():
        if _find(settings, key) is not None:
            who = "DeepSpeed has removed this feature" if key in REMOVED else "not supported"
            raise InputError(f"{where}: {key}: {who}; remove the key" + (f": {instead}" if instead else ""))
    if (stage := _find(settings, "zero_optimization.stage")) not in (1, 2, 3):
        raise InputError(
            f"{where}: zero_optimization.stage = {json.dumps(stage)} shards nothing; give 1, 2 or 3, or leave out "
            "--deepspeed: --gpus alone is the fast way for a model that fits"
        )
    for key, value, ours in _expected(recipe, processes):
        given = _find(settings, key)
        if given not in (None, AUTO) and given != value:
            raise InputError(
                f"{where}: {key} = {json.dumps(given)}, but the recipe has {ours}, which makes it {json.dumps(value)}; "
                f'change one of them, or write "{AUTO}"'
            )
    for part in ("optimizer", "scheduler", "train_batch_size", "fp16"):
        settings.pop(part, None)
    accumulation = -(-recipe.batch // (processes or 1))
    settings |= {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": accumulation}
    settings |= {"gradient_clipping": recipe.clip, "steps_per_print": 1 << 30}
    settings |= {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
    settings["bf16"] = {**settings.get("bf16", {}), "enabled": recipe.dtype == "bf16"}
    filled: dict[str, Any] = _without_auto(settings)
    return filled


def _expected(recipe: Recipe, processes: int | None) -> Iterator[tuple[str, Any, str]]:
    """DeepSpeed's keys that the recipe decides: the key, its value, and the recipe's setting."""
    yield "train_micro_batch_size_per_gpu", 1, "packs, of which each process takes one at a time"
    yield "train_batch_size", recipe.batch, f"batch = {recipe.batch}"
    if processes is not None:
        steps, text = -(-recipe.batch // processes), f"batch = {recipe.batch} in {processes} processes"
        yield "gradient_accumulation_steps", steps, text
    yield "gradient_clipping", recipe.clip, f"clip = {recipe.clip}"
    yield "fp16.enabled", False, f"dtype = {recipe.dtype}"
    if recipe.dtype != AUTO:
        yield "bf16.enabled", recipe.dtype == "bf16", f"dtype = {recipe.dtype}"
    yield "optimizer.type", "AdamW", f"optimizer = {recipe.optimizer}"
    if recipe.lr:
        yield "optimizer.params.lr", recipe.lr, f"lr = {recipe.lr}"
    yield "optimizer.params.weight_decay", recipe.weight_decay, f"weight_decay = {recipe.weight_decay}"
    yield "optimizer.params.betas", [0.9, 0.999], "AdamW's usual betas"
    yield "optimizer.params.eps", 1e-8, "AdamW's usual eps"
    kinds = {schedule: kind for kind, schedule in SCHEDULERS.items()}
    yield "scheduler.type", kinds.get(recipe.schedule), f"schedule = {recipe.schedule}"
    for key in ("warmup_num_steps", "total_num_steps"):
        yield f"scheduler.params.{key}", AUTO, f"warmup = {recipe.warmup} of its steps"


def _refuse(recipe: Recipe, sharding: Sharding | None) -> None:
    """Refuse what cannot work together, naming what does."""
    if sharding is None:
        return
    weights_sharded = sharding.stage == 3
    for wrong, problem in (
        (
            weights_sharded and recipe.method == "qlora",
            "method = qlora: ZeRO-3 does not shard 4-bit weights; --gpus alone is the fast way for them, "
            "and --method lora can be sharded",
        ),
        (
            recipe.best != "off",
            f"best = {recipe.best}: DeepSpeed's checkpoints hold shards, of which none is chosen; use best = off",
        ),
        (
            weights_sharded and bool(recipe.score_suite),
            "score_suite: no process has the whole model to score; use zero2, or evaluate the result",
        ),
        (weights_sharded and recipe.dora == "on", "dora = on reads weights that ZeRO-3 has sharded; use zero2"),
        (
            recipe.optimizer not in ("adamw", "adamw_torch", "adamw_torch_fused"),
            f"optimizer = {recipe.optimizer}: DeepSpeed shards the state of AdamW; use optimizer = adamw",
        ),
        (
            recipe.lora_init != "default" or bool(recipe.modules_to_save or recipe.add_tokens),
            "lora_init, modules_to_save or add_tokens: not supported together; use --gpus alone",
        ),
        (
            recipe.host_embeddings == "on",
            "host_embeddings = on is for processes with a whole model; use auto, or zero3-offload",
        ),
    ):
        if wrong:
            raise InputError(f"--deepspeed (ZeRO-{sharding.stage}) and {problem}")


def doubts(method: Method, sharding: Sharding) -> Iterator[str]:
    """What a user should know about a combination that works, but saves little or nothing."""
    if sharding.processes == 1 and not sharding.offload:
        yield "DeepSpeed shards nothing with one process; use --gpus, or an -offload form"
    if method != "full" and sharding.stage < 3:
        yield (
            f"with method = {method}, ZeRO-{sharding.stage} shards only the adapters' gradients and optimizer state, "
            "some tens of MB; --gpus without --deepspeed is faster"
        )


def _settings(name: str) -> dict[str, Any]:
    """The configuration that `deepspeed` stands for: a short form, or JSON."""
    if name not in FORMS:
        settings: dict[str, Any] = json.loads(name)
        return settings
    stage, _, offload = name.removeprefix("zero").partition("-")
    zero: dict[str, Any] = {"stage": int(stage), "overlap_comm": True, "contiguous_gradients": True}
    host = {"device": "cpu", "pin_memory": True}
    if offload:
        zero |= {"offload_optimizer": host} | ({"offload_param": host} if stage == "3" else {})
    return {"zero_optimization": zero}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        form = path.name.removeprefix("deepspeed_")  # as XTuner calls them
        raise InputError(f"--deepspeed {path}: no such file or form; {nearest(form, FORMS)}")
    try:
        settings = json_of(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); give DeepSpeed's configuration, or {FORMS[1]}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("zero_optimization"), dict):
        raise InputError(f"{path} lacks `zero_optimization`; give DeepSpeed's configuration, or {FORMS[1]}")
    return settings


def _find(settings: Any, key: str) -> Any:
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, dict) else None
    return settings


def _without_auto(value: Any) -> Any:
    """The settings without every other "auto", so that DeepSpeed takes its default."""
    if isinstance(value, dict):
        return {key: _without_auto(item) for key, item in value.items() if item != AUTO}
    return value
