"""The recipe of a run: one frozen dataclass whose fields are the TOML keys, the `KEY=VALUE` overrides and the docs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

from agentft.calls import call_format
from agentft.content import find_content
from agentft.errors import InputError
from agentft.rendering.encoding import learn_rule
from agentft.strict import read_as, read_toml

__all__ = ["Method", "Recipe", "read_recipe", "read_resolved", "write_recipe"]

Method = Literal["qlora", "lora", "full"]
Switch = Literal["auto", "on", "off"]
Value = str | int | float | tuple[str, ...] | Mapping[str, float]
T = TypeVar("T")


def _key(default: T, doc: str, low: float | None = None, high: float | None = None) -> T:
    """A recipe key: its default, its documentation, and the range in which it must lie."""
    return field(default_factory=lambda: default, metadata={"doc": doc, "low": low, "high": high})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run does. The run folder keeps it, resolved, as `recipe.toml`.

    Raises:
        InputError: a number out of its range, or a value that nothing knows.
    """

    model: str = _key("smollm2-135m", "A folder, a hub id or an embedded name")
    data: tuple[str, ...] = _key((), "Data files: a path, or a list of paths")
    output: str = _key("", "The run folder; empty: a new one in runs/")
    method: Method = _key("qlora", "qlora: 4-bit weights and LoRA; lora: LoRA; full: all weights")
    format: str = _key("msagent", "How calls are written: msagent or hermes")
    learn: str = _key("calls", "What is learnt: calls, balanced or assistant")
    weights: Mapping[str, float] = _key({}, "A loss weight for single kinds of segment, on top of `learn`")
    epochs: int = _key(1, "How often each row is trained on", 1)
    max_steps: int = _key(0, "Stop after so many optimizer steps; 0: no limit", 0)
    lr: float = _key(0.0, "Peak learning rate; 0: by method and size of the model", 0, 1)
    schedule: Literal["linear", "cosine", "constant"] = _key("cosine", "How the rate falls after the warm-up")
    warmup: float = _key(0.05, "Share of the steps in which the rate rises", 0, 1)
    batch: int = _key(1, "Packs for each optimizer step", 1)
    pack_tokens: int = _key(0, "Tokens of one pack (a longer row gets its own); 0: by the planner, 2048 on a CPU", 0)
    max_length: int = _key(4096, "Tokens of the longest row; longer ones are cut after a whole turn", 16)
    clip: float = _key(1.0, "Largest norm of the gradient; 0: no limit", 0)
    weight_decay: float = _key(0.0, "Weight decay of AdamW", 0, 1)
    lora_r: int = _key(16, "Rank of the adapters", 1)
    lora_alpha: int = _key(32, "Adapters are scaled by lora_alpha / lora_r", 1)
    dora: Literal["on", "off"] = _key(
        "off", "DoRA: adapters turn a weight's columns and learn their lengths apart; slower"
    )
    lora_layers: int = _key(0, "Adapt only so many of the last layers, below which no gradient is computed; 0: all", 0)
    lora_plus: float = _key(
        1.0, "LoRA+: the learning rate of the B matrices is so many times lr, which pays in short runs", 1
    )
    lora_dropout: float = _key(0.0, "Must be 0: rows that share a prefix cannot be dropped out apart", 0)
    dtype: Literal["auto", "bf16", "fp32"] = _key("auto", "Number type of the computation; auto: bf16 where it is fast")
    checkpointing: Switch = _key("auto", "Recompute activations to save memory")
    checkpoint_every: int = _key(
        0, "With checkpointing: recompute each so-many-th layer, keep the others' activations; 0: auto", 0
    )
    sharing: Switch = _key("auto", "Compute what rows share once; auto: unless layers are recurrent or the like")
    unpack: Switch = _key(
        "auto", "qlora: keep what the 4 bits hold unpacked, for 16-bit memory and less time; auto: if it fits"
    )
    liger: Switch = _key("auto", "Liger's kernels for norms, positions and gates; auto: if they are installed")
    host_embeddings: Switch = _key("auto", "Keep frozen input embeddings in the host's memory; auto: if it helps")
    optimizer: Literal["adamw", "adamw_8bit"] = _key(
        "adamw", "adamw_8bit: bitsandbytes' paged one, whose state takes a quarter"
    )
    save_steps: int = _key(50, "Save a checkpoint after so many steps", 1)
    keep_checkpoints: int = _key(2, "How many checkpoints are kept", 1)
    seed: int = _key(0, "Seed of order, packs and adapters", 0, 2**32 - 1)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, low, high = getattr(self, entry.name), entry.metadata["low"], entry.metadata["high"]
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                most = f", and at most {high}" if high else ""
                raise InputError(f"{entry.name} = {value!r} is out of range; it is {low} or more{most}")
        learn_rule(self.learn, self.weights)
        call_format(self.format)
        if self.lora_dropout > 0:
            raise InputError(
                f"lora_dropout = {self.lora_dropout}: dropout is refused, because rows that share a prefix share its "
                "activations and would no longer train as they do one by one; use 0"
            )


def read_recipe(path: Path | None, overrides: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a TOML file, `KEY=VALUE` texts on top of it, and the command's options on top of both.

    Paths in the file are relative to it, paths in overrides and options to the current folder; both may be the name of
    a shipped data set.

    Raises:
        InputError: with the key, the value and the place.
    """
    given: dict[str, Any] = {}
    for text in overrides:
        key, value = _parse_override(text)
        if key.startswith("weights."):
            given.setdefault("weights", {})[key.partition(".")[2]] = value
        else:
            given[key] = value
    given |= {key: value for key, value in (options or {}).items() if value not in (None, (), [])}
    values = {} if path is None else _located(_read(path), str(path), path.parent)
    return Recipe(**values | _located(given, "the command line", Path()))


def read_resolved(path: Path) -> Recipe:
    """The recipe that a run folder keeps."""
    return read_as(Recipe, _read(path), str(path))


def write_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, each key with its documentation."""
    lines = ["# What this run did, every setting resolved. `agentft train recipe.toml` runs it again."]
    for entry in fields(Recipe):
        lines += [f"# {entry.metadata['doc']}.", f"{entry.name} = {_toml(getattr(recipe, entry.name))}"]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any]:
    return read_toml(path, "give a TOML file, or the settings as KEY=VALUE")


def _parse_override(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`, where VALUE is TOML, or a bare text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{text!r} is not KEY=VALUE; for example lr=0.001")
    key = key.strip()
    kind = get_type_hints(Recipe).get(key)
    if kind is str or get_origin(kind) is Literal:
        return key, value.strip().strip("\"'")
    try:
        return key, tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return key, value.strip()


def _located(table: dict[str, Any], at: str, base: Path) -> dict[str, Any]:
    """The values of the table's keys, with paths made absolute, so that a run can be resumed from any folder."""
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
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(_toml(item) for item in value) + "]"
