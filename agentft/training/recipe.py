"""The recipe of a run: one frozen dataclass that defines the TOML keys, the `KEY=VALUE` overrides and the docs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from agentft.content import find_content
from agentft.errors import InputError
from agentft.models.embedded import EMBEDDED
from agentft.rendering import rendering_digest
from agentft.rendering.encoding import learn_rule
from agentft.strict import closest, read_as, read_toml

__all__ = [
    "ELSEWHERE",
    "Method",
    "Recipe",
    "check_places",
    "describe_settings",
    "nearest_setting",
    "read_recipe",
    "read_resolved",
    "read_settings",
    "write_recipe",
]

Method = Literal["qlora", "lora", "full"]
Switch = Literal["auto", "on", "off"]
Value = str | int | float | tuple[str, ...] | Mapping[str, float]
Default = TypeVar("Default")


ELSEWHERE = {
    "lr": "learning_rate peak_lr",
    "epochs": "num_train_epochs num_epochs max_epochs n_epochs",
    "batch": "batch_size train_batch_size per_device_train_batch_size micro_batch_size gradient_accumulation_steps",
    "schedule": "scheduler lr_scheduler lr_scheduler_type lr_schedule",
    "warmup": "warmup_ratio warmup_steps lr_warmup",
    "max_length": "max_seq_length max_seq_len seq_length sequence_len cutoff_len model_max_length context_length",
    "pack_tokens": "pack_length packing pack_to_max_length sample_packing",
    "clip": "max_grad_norm max_norm gradient_clipping grad_clip",
    "lora_r": "r rank lora_rank lora_dim",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "dora": "use_dora",
    "lora_plus": "loraplus_lr_ratio loraplus_ratio",
    "dtype": "bf16 fp16 torch_dtype compute_dtype precision",
    "checkpointing": "gradient_checkpointing activation_checkpointing",
    "liger": "use_liger use_liger_kernel liger_kernel",
    "optimizer": "optim optimizer_type",
    "save_steps": "save_interval save_every checkpoint_steps",
    "keep_checkpoints": "save_total_limit",
    "model": "model_name_or_path model_name base_model pretrained_model_name_or_path",
    "data": "dataset datasets train_file train_data data_path dataset_path",
    "output": "output_dir out_dir work_dir run_dir",
    "method": "finetuning_type train_type tuner adapter peft_type",
    "format": "call_format template",
    "learn": "train_on train_on_inputs loss_on",
    "seed": "data_seed random_seed",
}
"""What other trainers call our settings."""


def _key(default: Default, doc: str, low: float | None = None, high: float | None = None) -> Default:
    """A recipe key: its default, its documentation and its range."""
    return field(default_factory=lambda: default, metadata={"doc": doc, "low": low, "high": high})


@dataclass(frozen=True)
class Recipe:
    """All settings of a run. The run folder stores them, resolved, as `recipe.toml`.

    Raises:
        InputError: a number is out of range, or a name is unknown.
    """

    model: str = _key("smollm2-135m", "The model: a folder, a hub id or an embedded name")
    data: tuple[str, ...] = _key((), "Data files: a path, or a list of paths")
    output: str = _key("", "The run folder. Empty: a new folder in runs/")
    method: Method = _key("qlora", "qlora: 4-bit weights and LoRA; lora: LoRA; full: all weights")
    format: str = _key("msagent", "The call format: msagent, hermes, or native (the chat template's own)")
    learn: str = _key("calls", "Which tokens are supervised: calls, balanced or assistant")
    weights: Mapping[str, float] = _key(
        {}, "Loss weights per segment kind, overriding `learn`; for example weights.answer=0.5"
    )
    epochs: int = _key(1, "Passes over the data", 1)
    max_steps: int = _key(0, "Stop after this many optimizer steps. 0: no limit", 0)
    lr: float = _key(0.0, "Peak learning rate. 0: chosen by method and model size", 0, 1)
    schedule: Literal["linear", "cosine", "constant"] = _key("cosine", "Learning-rate schedule after warm-up")
    warmup: float = _key(0.05, "Fraction of steps used for warm-up", 0, 1)
    loss: Literal["ce", "dft"] = _key(
        "ce",
        "ce: cross-entropy. dft: dynamic fine-tuning, cross-entropy times the token's probability",
    )
    batch: int = _key(1, "Packs per optimizer step over all processes, at least one for each", 1)
    pack_tokens: int = _key(
        0, "Tokens per pack; a longer row gets its own pack. 0: chosen by the planner, 2048 on a CPU", 0
    )
    max_length: int = _key(
        4096, "Maximum tokens per row. A longer row is truncated after its last complete run that fits", 16
    )
    clip: float = _key(1.0, "Clip the gradient to this norm. 0: no clipping", 0)
    weight_decay: float = _key(0.0, "Weight decay of AdamW", 0, 1)
    lora_r: int = _key(16, "Rank of the LoRA adapters", 1)
    lora_alpha: int = _key(32, "The adapters are scaled by lora_alpha / lora_r", 1)
    dora: Literal["on", "off"] = _key("off", "DoRA (separate magnitude and direction); slower")
    lora_layers: int = _key(
        0, "Adapt only this many of the last layers; no gradient is computed below them. 0: all layers", 0
    )
    lora_plus: float = _key(1.0, "LoRA+: ratio of the B matrices' learning rate to lr; above 1 helps in short runs", 1)
    lora_dropout: float = _key(
        0.0, "Must be 0: rows with a shared prefix share its activations, so dropout would change the result", 0
    )
    dtype: Literal["auto", "bf16", "fp32"] = _key(
        "auto", "Compute dtype. auto: bf16 where the hardware supports it natively"
    )
    checkpointing: Switch = _key("auto", "Recompute activations to save memory")
    checkpoint_every: int = _key(
        0, "With checkpointing: recompute every n-th layer and keep the activations of the others. 0: auto", 0
    )
    sharing: Switch = _key(
        "auto",
        "Compute shared prefixes only once. auto: on, unless the architecture (such as recurrent layers) rules it out",
    )
    unpack: Switch = _key(
        "auto", "qlora: keep the weights dequantised; faster, but needs 16-bit memory. auto: if they fit"
    )
    liger: Switch = _key("auto", "Liger's kernels for norms, rotary positions and SwiGLU. auto: if installed")
    host_embeddings: Switch = _key("auto", "Keep frozen input embeddings in host memory. auto: if it helps")
    optimizer: Literal["adamw", "adamw_8bit"] = _key(
        "adamw", "adamw_8bit: bitsandbytes' paged AdamW, with a quarter of the optimizer state"
    )
    save_steps: int = _key(50, "Save a checkpoint every n steps", 1)
    keep_checkpoints: int = _key(2, "Checkpoints to keep", 1)
    seed: int = _key(0, "Random seed for row order, packing and adapter initialization", 0, 2**32 - 1)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, low, high = getattr(self, entry.name), entry.metadata["low"], entry.metadata["high"]
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                most = f" and at most {high}" if high else ""
                raise InputError(f"{entry.name} = {value!r} is out of range; it must be at least {low}{most}")
        learn_rule(self.learn, self.weights)
        rendering_digest(self.format)  # refuses an unknown format
        if self.lora_dropout > 0:
            raise InputError(
                f"lora_dropout = {self.lora_dropout}: dropout is not supported, because rows with a common prefix "
                "share its activations, so packing would change the result; use 0"
            )


def read_recipe(path: Path | None, overrides: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from a TOML file; `KEY=VALUE` overrides replace its values, and the command's options replace both.

    Paths in the file are relative to the file, and paths in overrides and options to the current folder. Either may be
    the name of a shipped data set instead.

    Raises:
        InputError: a setting is invalid; the message has the key, the value and the place.
    """
    if path is not None and _is_data_name(path.name):
        raise InputError(f"{path} is a data file, not a recipe (TOML); write --data {path}")
    changes: dict[str, Any] = {}
    for text in overrides:
        key, value = _parse_override(text)
        if key.startswith("weights."):
            changes.setdefault("weights", {})[key.partition(".")[2]] = value
        else:
            changes[key] = value
    changes |= {key: value for key, value in (options or {}).items() if value not in (None, (), [])}
    values = {} if path is None else _with_absolute_paths(_read(path), str(path), path.parent)
    return Recipe(**values | _with_absolute_paths(changes, "the command line", Path()))


def read_settings(settings: Sequence[str], options: Mapping[str, Any]) -> Recipe:
    """The recipe of a command line: `[RECIPE] [KEY=VALUE]...`, and the command's options as for `read_recipe`."""
    path = Path(settings[0]) if settings and "=" not in settings[0] else None
    return read_recipe(path, settings[1:] if path else settings, options)


def nearest_setting(name: str) -> str | None:
    """The setting that `name` (or `--name`) may stand for: a similar name, or that of another trainer."""
    word = name.lstrip("-").replace("-", "_").lower()
    known = [entry.name for entry in fields(Recipe)]
    names = {key: key for key in known} | {alias: key for key, row in ELSEWHERE.items() for alias in row.split()}
    found = word if word in names else closest(word, known) or closest(word, list(names))
    return names[found] if found else None


def check_places(recipe: Recipe) -> None:
    """Check that the data and the model can be what they should be, without opening them.

    Raises:
        InputError: the message names the place and the remedy.
    """
    if not recipe.data:
        raise InputError("no data given; use --data FILE, or data = [...] in the recipe")
    for path in recipe.data:
        if not Path(path).exists():
            raise InputError(f"{path} does not exist; give a data file, or the name of a shipped one")
    is_folder = Path(recipe.model).expanduser().is_dir()
    if recipe.model.startswith(("/", "./", "../", "~")) and not is_folder:
        raise InputError(f"{recipe.model}: there is no such folder; give a model's folder, hub id or embedded name")
    named = "/" in recipe.model or recipe.model in EMBEDDED or is_folder
    if not named and (near := closest(recipe.model, list(EMBEDDED))):
        raise InputError(f"there is no model {recipe.model!r}; did you mean {near!r}?")


def read_resolved(path: Path) -> Recipe:
    """Read the recipe of a run folder.

    Raises:
        InputError: the file is damaged; a part of it, which would be valid TOML, is refused too.
    """
    table = _read(path)
    if missing := [entry.name for entry in fields(Recipe) if entry.name not in table]:
        raise InputError(
            f"{path}: `{missing[0]}` is missing: the file was cut, or another version wrote it; restore it"
        )
    return read_as(Recipe, table, str(path))


def write_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, each key with its documentation."""
    lines = ["# Every setting of this run, resolved. `agentft train recipe.toml` repeats it."]
    for entry in fields(Recipe):
        lines += [f"# {entry.metadata['doc']}.", f"{entry.name} = {_toml(getattr(recipe, entry.name))}"]
    return "\n".join(lines) + "\n"


def describe_settings() -> str:
    """Every setting with its default and its possible values: a valid recipe, and the text of docs/settings.md."""
    hints, defaults, lines = get_type_hints(Recipe), Recipe(), []
    for entry in fields(Recipe):
        hint, low, high = hints[entry.name], entry.metadata["low"], entry.metadata["high"]
        lines.append(f"# {entry.metadata['doc']}.")
        if get_origin(hint) is Literal:
            lines.append(f"# One of: {', '.join(get_args(hint))}.")
        elif low is not None:
            lines.append(f"# From {low} to {high}." if high is not None else f"# At least {low}.")
        lines += [f"{entry.name} = {_toml(getattr(defaults, entry.name))}", ""]
    return "\n".join(lines[:-1]) + "\n"


def _is_data_name(name: str) -> bool:
    """Whether a file's name looks like that of a data file."""
    return name.removesuffix(".gz").endswith((".jsonl", ".json", ".ndjson", ".parquet", ".csv", ".txt", ".arrow"))


def _read(path: Path) -> dict[str, Any]:
    return read_toml(path, "give a TOML file, or the settings as KEY=VALUE")


def _parse_override(text: str) -> tuple[str, Any]:
    """Parse `KEY=VALUE`, where VALUE is TOML or unquoted text."""
    key, equals, value = text.partition("=")
    if not equals:
        remedy = f"write --data {text}" if _is_data_name(text) else "for example lr=0.001"
        raise InputError(f"{text!r} is not KEY=VALUE; {remedy}")
    key = key.strip()
    kind = get_type_hints(Recipe).get(key)
    if kind is str or get_origin(kind) is Literal:
        return key, value.strip().strip("\"'")
    try:
        return key, tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return key, value.strip()


def _with_absolute_paths(table: dict[str, Any], at: str, base: Path) -> dict[str, Any]:
    """The table's values with absolute paths, so that a run can be resumed from any folder."""
    for key in table:
        if key not in {entry.name for entry in fields(Recipe)} and (near := nearest_setting(key)):
            raise InputError(f"{at}: there is no key {key!r}; did you mean {near!r}?")
    if isinstance(table.get("data"), str):
        table["data"] = [table["data"]]
    recipe = read_as(Recipe, table, at)
    values = {key: getattr(recipe, key) for key in table}
    if "data" in values:
        values["data"] = tuple(_locate(name, base) for name in recipe.data)
    if "model" in values and (base / recipe.model).is_dir():
        values["model"] = str((base / recipe.model).resolve())
    return values


def _locate(name: str, base: Path) -> str:
    beside = base / name
    found = beside if beside.exists() else find_content("datasets", name)
    return str((found or beside).resolve())


def _toml(value: Value) -> str:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        # JSON's escapes are valid in TOML; in addition, TOML requires DEL to be escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(_toml(item) for item in value) + "]"
