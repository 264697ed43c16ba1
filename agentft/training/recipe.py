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
from agentft.models.embedded import EMBEDDED, check_hub
from agentft.rendering import rendering_digest
from agentft.rendering.encoding import learn_rule
from agentft.strict import closest, read_as, read_toml
from agentft.training.combinations import contradiction, share_of
from agentft.training.early import check_early
from agentft.training.elsewhere import ELSEWHERE, INSTEAD
from agentft.training.installed import TRACKERS, check_trackers

__all__ = [
    "Method",
    "Recipe",
    "check_places",
    "describe_settings",
    "hint_for",
    "read_recipe",
    "read_resolved",
    "read_settings",
    "write_recipe",
]

Method = Literal["qlora", "lora", "full"]
Switch = Literal["auto", "on", "off"]
Schedule = Literal[
    "linear",
    "cosine",
    "constant",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
]
Optimizer = Literal[
    "adamw",
    "adamw_8bit",
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix_8bit",
    "lion_32bit",
    "lion_8bit",
    "paged_lion_8bit",
    "adafactor",
    "adagrad",
    "rmsprop",
    "sgd",
    "muon",
]
Value = str | int | float | tuple[str, ...] | Mapping[str, float]
Default = TypeVar("Default")


_ALIKE, _SAME = 0.75, 0.88
"""How similar a misspelt name must be, from 0 to 1; below, it is rather a setting that agentft does not have.

_SAME is for another trainer's: its advice about something else would mislead.
"""
_LISTS = ("data", "add_tokens", "modules_to_save", "report_to", "score_suite", "score_tools")
"""Settings that may be one name in place of a list."""


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
    bits: int = _key(4, "qlora: bits of the frozen weights, 4 (NF4) or 8 (LLM.int8)", 4, 8)
    format: str = _key("msagent", "The call format: msagent, hermes, or native (the chat template's own)")
    learn: str = _key("calls", "Which tokens are supervised: calls, balanced or assistant")
    weights: Mapping[str, float] = _key({}, "Loss weights per kind, overriding `learn`, such as weights.answer=0.5")
    epochs: int = _key(1, "Passes over the data", 1)
    max_steps: int = _key(0, "Stop after this many optimizer steps. 0: no limit", 0)
    lr: float = _key(0.0, "Peak learning rate. 0: chosen by method and model size", 0, 1)
    schedule: Schedule = _key("cosine", "Learning-rate schedule after warm-up, by transformers' name")
    schedule_args: Mapping[str, float] = _key(
        {}, "The schedule's own arguments; for example schedule_args.num_cycles=2 of cosine_with_restarts"
    )
    warmup: float = _key(0.05, "Fraction of steps used for warm-up", 0, 1)
    loss: Literal["ce", "dft"] = _key(
        "ce", "ce: cross-entropy. dft: dynamic fine-tuning, cross-entropy times the token's probability"
    )
    batch: int = _key(1, "Packs per optimizer step over all processes, at least one for each", 1)
    pack_tokens: int = _key(0, "Tokens per pack; a longer row gets its own pack. 0: planned, 2048 on a CPU", 0)
    max_length: int = _key(4096, "Maximum tokens per row. A longer row ends after its last complete run that fits", 16)
    clip: float = _key(1.0, "Clip the gradient to this norm. 0: no clipping", 0)
    weight_decay: float = _key(0.0, "Weight decay of AdamW", 0, 1)
    lora_r: int = _key(16, "Rank of the LoRA adapters", 1)
    lora_alpha: int = _key(32, "The adapters are scaled by lora_alpha / lora_r", 1)
    rslora: Literal["on", "off"] = _key("off", "Rank-stabilised LoRA: scale by lora_alpha / sqrt(lora_r) instead")
    lora_init: Literal["default", "pissa", "loftq"] = _key(
        "default",
        "pissa: start from the principal components of the weights (method = lora). loftq: start from what rounding to "
        "4 bits lost (method = qlora)",
    )
    modules_to_save: tuple[str, ...] = _key(
        (), "Modules to train in full and save with the adapter, such as embed_tokens and lm_head"
    )
    add_tokens: tuple[str, ...] = _key((), "Tokens to add to the tokenizer; their embeddings are trained and saved")
    neftune_alpha: float = _key(0.0, "NEFTune: noise on the embeddings, such as 5; switches `sharing` off. 0: none", 0)
    dora: Literal["on", "off"] = _key("off", "DoRA (separate magnitude and direction); slower")
    lora_layers: int = _key(0, "Adapt only this many of the last layers; no gradient is computed below. 0: all", 0)
    lora_plus: float = _key(1.0, "LoRA+: ratio of the B matrices' learning rate to lr; above 1 helps in short runs", 1)
    lora_dropout: float = _key(
        0.0, "Must be 0: rows with a shared prefix share its activations, so dropout would change the result", 0
    )
    dtype: Literal["auto", "bf16", "fp32"] = _key("auto", "Compute dtype. auto: bf16 where the hardware has it")
    checkpointing: Switch = _key("auto", "Recompute activations to save memory")
    checkpoint_every: int = _key(
        0, "With checkpointing: recompute every n-th layer and keep the activations of the others. 0: auto", 0
    )
    sharing: Switch = _key(
        "auto",
        "Compute shared prefixes only once. auto: on, unless the architecture (such as recurrent layers) rules it out",
    )
    unpack: Switch = _key("auto", "qlora: keep the weights dequantised; faster, in 16-bit memory. auto: if they fit")
    liger: Switch = _key("auto", "Liger's kernels for norms, rotary positions and SwiGLU. auto: if installed")
    host_embeddings: Switch = _key("auto", "Keep frozen input embeddings in host memory. auto: if it helps")
    optimizer: Optimizer = _key(
        "adamw",
        "By transformers' name; adamw is adamw_torch; adamw_8bit is paged_adamw_8bit, with a quarter of the optimizer "
        "state; muon: torch's Muon for matrices, AdamW for the rest",
    )
    deepspeed: str = _key(
        "",
        "Shard the run over its processes with DeepSpeed: zero1, zero2, zero2-offload, zero3, zero3-offload, or a file "
        "with DeepSpeed's configuration (JSON). Empty: each process holds the whole model",
    )
    save_steps: int = _key(50, "Save a checkpoint every n steps", 1)
    keep_checkpoints: int = _key(2, "Checkpoints to keep; the best one is kept besides", 1)
    eval_data: str = _key(
        "", "Rows for the held-out loss: a data file, or the share of the rows to hold out, such as 0.05. Empty: none"
    )
    eval_steps: int = _key(0, "Measure the held-out loss every n steps. 0: after each epoch", 0)
    eval_rows: int = _key(500, "The most rows to hold out or to take from the file, drawn by `seed`", 1)
    best: Literal["off", "loss", "score"] = _key(
        "off",
        "The result has the weights of the step with the lowest held-out loss (loss), or with the highest tool-call "
        "score (score). off: those of the last step",
    )
    patience: int = _key(0, "Stop early after this many measurements in a row no better than the best. 0: never", 0)
    score_suite: tuple[str, ...] = _key(
        (),
        "Run these suites while it trains, with the weights of the moment: names or folders, as for `agentft eval`. "
        "Empty: none",
    )
    score_tools: tuple[str, ...] = _key(
        (), "Tool worlds of `score_suite`, as for `agentft eval --tools`. Empty: those that the suites name"
    )
    score_cases: int = _key(20, "The most cases that a score has, spread over suites and categories", 1)
    score_steps: int = _key(0, "Score every n steps. 0: as often as less than a tenth of the time allows", 0)
    report_to: tuple[str, ...] = _key(
        (), f"Also send the figures of the run to these trackers: {', '.join(TRACKERS)}. They must be installed"
    )
    seed: int = _key(0, "Random seed for row order, packing and adapter initialization", 0, 2**32 - 1)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, low, high = getattr(self, entry.name), entry.metadata["low"], entry.metadata["high"]
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                most = f" and at most {high}" if high else ""
                raise InputError(f"{entry.name} = {value!r} is out of range; it must be at least {low}{most}")
        if refusal := contradiction(self):
            raise InputError(refusal)
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
        raise InputError(f"{path} is a data file, not a recipe (TOML); write --data {path} (agentft data: one file)")
    changes: dict[str, Any] = {}
    pairs = [_parse_override(text) for text in overrides]
    names = [key for key, _ in pairs]
    if again := next((key for key in names if names.count(key) > 1), None):
        raise InputError(f"{again} is given twice on the command line; give it once")
    for key, value in pairs:
        table, dot, name = key.partition(".")
        if dot and table in ("weights", "schedule_args"):
            changes.setdefault(table, {})[name] = value
        else:
            changes[key] = value
    changes |= {key: value for key, value in (options or {}).items() if value not in (None, (), [])}
    own = {} if path is None else _read(path)
    values = {} if path is None else _with_absolute_paths(own, str(path), path.parent)
    recipe = Recipe(**values | _with_absolute_paths(changes, "the command line", Path(), own))
    given = changes if len(own) == len(fields(Recipe)) else {**own, **changes}  # a file with all settings has defaults
    if "bits" in given and recipe.method != "qlora":
        remedy = f"use method = qlora, or omit it: {recipe.method} does not round the weights"
        raise InputError(f"bits = {recipe.bits} is for method = qlora, and the method is {recipe.method}; {remedy}")
    return recipe


def read_settings(settings: Sequence[str], options: Mapping[str, Any]) -> Recipe:
    """The recipe of a command line: `[RECIPE] [KEY=VALUE]...`, and the command's options as for `read_recipe`."""
    path = Path(settings[0]) if settings and "=" not in settings[0] else None
    return read_recipe(path, settings[1:] if path else settings, options)


def hint_for(name: str, written: str = "did you mean {!r}?") -> str | None:
    """What to write in place of an unknown setting `name` (or `--name`), which may be misspelt or another trainer's.

    `written`: how to say which setting of ours it stands for.
    """
    names = {entry.name: entry.name for entry in fields(Recipe)} | ELSEWHERE
    word = name.lstrip("-").replace("-", "_").lower()
    found = closest(word, [*names, *INSTEAD], _SAME) or closest(word, list(names), _ALIKE)
    return INSTEAD.get(found or "") or (written.format(names[found]) if found else None)


def check_places(recipe: Recipe, at: str = "") -> None:
    """Check that the data and the model can be what they should be, without opening them.

    `at`: the beginning of a message about a place, such as the file that names it.

    Raises:
        InputError: the message names the place and the remedy.
        MissingError: the model is not on this machine, and the hub is out of reach.
    """
    check_trackers(recipe.report_to)
    idle = {"score_tools": recipe.score_tools, "score_steps": recipe.score_steps, "best": recipe.best == "score"}
    for name in [name for name, given in idle.items() if given and not recipe.score_suite]:
        raise InputError(f"{name} = {getattr(recipe, name)!r} needs a suite; add score_suite=basics, or your own suite")
    if not recipe.data:
        raise InputError("no data given; use --data FILE, or data = [...] in the recipe")
    held = [("eval_data", recipe.eval_data)] if recipe.eval_data and share_of(recipe.eval_data) is None else []
    for key, path in [*(("data", path) for path in recipe.data), *held]:
        if (is_folder := Path(path).is_dir()) or not Path(path).exists():
            what = f"is a folder (jq -c . {path}/* > rows.jsonl joins its files)" if is_folder else "does not exist"
            raise InputError(f"{at}{path} {what}; `{key}` must be a data file, or the name of a shipped one")
    is_folder = Path(recipe.model).expanduser().is_dir()
    if recipe.model.startswith(("/", "./", "../", "~")) and not is_folder:
        raise InputError(f"{at}{recipe.model}: there is no such folder; `model` must be a folder or a model's name")
    near = None if "/" in recipe.model or is_folder else closest(recipe.model, list(EMBEDDED))
    if near not in (None, recipe.model):
        raise InputError(f"there is no model {recipe.model!r}; did you mean {near!r}?")
    if not is_folder and near is None:
        check_hub(recipe.model)
    check_early(recipe)


def read_resolved(path: Path) -> Recipe:
    """Read the recipe of a run folder.

    Raises:
        InputError: the file is damaged; a part of it, which would be valid TOML, is refused too.
    """
    table = _read(path)
    if missing := [entry.name for entry in fields(Recipe) if entry.name not in table]:
        raise InputError(f"{path}: `{missing[0]}` is missing: the file is cut, or of another version; restore it")
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
    if path.suffix in (".py", ".yaml", ".yml", ".json", ".sh"):
        raise InputError(f"{path} is not a recipe (TOML); to write one: agentft train --settings > recipe.toml")
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
    except (ValueError, RecursionError):
        return key, value.strip()


def _with_absolute_paths(
    table: dict[str, Any], at: str, base: Path, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The table's values with absolute paths, so that a run can be resumed from any folder.

    `before`: the settings that it changes, with which it must agree.
    """
    for key in table:
        if key not in {entry.name for entry in fields(Recipe)}:
            hint = hint_for(key) or "`agentft train --settings` prints all keys"
            raise InputError(f"{at}: there is no key {key!r}; {hint}")
    table |= {key: [table[key]] for key in _LISTS if isinstance(table.get(key), str)}
    if isinstance(table.get("eval_data"), int | float):
        table["eval_data"] = str(table["eval_data"])
    recipe = read_as(Recipe, {**(before or {}), **table}, at)
    values = {key: getattr(recipe, key) for key in table}
    if "data" in values:
        values["data"] = tuple(_locate(name, base) for name in recipe.data)
    for key in {"score_suite", "score_tools"} & values.keys():
        values[key] = tuple(
            str((base / name).resolve()) if name.startswith((".", "/", "~")) else name for name in values[key]
        )
    if recipe.eval_data and share_of(recipe.eval_data) is None:
        values["eval_data"] = _locate(recipe.eval_data, base)
    if "model" in values and (base / recipe.model).is_dir():
        values["model"] = str((base / recipe.model).resolve())
    if "deepspeed" in values and (base / recipe.deepspeed).is_file():
        values["deepspeed"] = str((base / recipe.deepspeed).resolve())
    return values


def _locate(name: str, base: Path) -> str:
    beside = base / name
    found = beside if beside.exists() else find_content("datasets", name)
    return str(beside if beside.is_fifo() else (found or beside).resolve())  # a pipe of the shell has no other name


def _toml(value: Value) -> str:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        # JSON's escapes are valid in TOML; in addition, TOML requires DEL to be escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(_toml(item) for item in value) + "]"
