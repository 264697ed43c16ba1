"""The recipe of a run: one frozen dataclass whose fields are the TOML keys, the `KEY=VALUE` overrides and the docs."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from agentft.content import find_content
from agentft.encoding import learn_rule
from agentft.errors import InputError
from agentft.formats import call_format

__all__ = ["Method", "Recipe", "read_recipe", "read_resolved", "recipe_docs", "write_recipe"]

Method = Literal["qlora", "lora", "full"]
Value = str | int | float | tuple[str, ...] | Mapping[str, float]


def _doc(text: str, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """A recipe key's documentation, and the range in which it must lie."""
    return {"doc": text, "low": low, "high": high}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run does. The run folder keeps it, resolved, as `recipe.toml`."""

    model: str = field(default="smollm2-135m", metadata=_doc("A folder, a hub id or an embedded name"))
    data: tuple[str, ...] = field(default=(), metadata=_doc("Data files: a path, or a list of paths"))
    output: str = field(default="", metadata=_doc("The run folder; empty: a new one in runs/"))
    method: Method = field(
        default="qlora", metadata=_doc("qlora: 4-bit weights and LoRA; lora: LoRA; full: all weights")
    )
    format: str = field(default="msagent", metadata=_doc("How calls are written: msagent or hermes"))
    learn: str = field(default="calls", metadata=_doc("What is learnt: calls, balanced or assistant"))
    weights: Mapping[str, float] = field(
        default_factory=dict, metadata=_doc("A loss weight for single kinds of segment, on top of `learn`")
    )
    epochs: int = field(default=1, metadata=_doc("How often each row is trained on", 1))
    max_steps: int = field(default=0, metadata=_doc("Stop after so many optimizer steps; 0: no limit", 0))
    lr: float = field(default=0.0, metadata=_doc("Peak learning rate; 0: by method and size of the model", 0, 1))
    schedule: Literal["linear", "cosine", "constant"] = field(
        default="cosine", metadata=_doc("How the rate falls after the warm-up")
    )
    warmup: float = field(default=0.05, metadata=_doc("Share of the steps in which the rate rises", 0, 1))
    batch: int = field(default=1, metadata=_doc("Packs for each optimizer step", 1))
    pack_tokens: int = field(
        default=0, metadata=_doc("Tokens of one pack (a longer row gets its own); 0: by the planner, 2048 on a CPU", 0)
    )
    max_length: int = field(
        default=4096, metadata=_doc("Tokens of the longest row; longer ones are cut after a whole turn", 16)
    )
    clip: float = field(default=1.0, metadata=_doc("Largest norm of the gradient; 0: no limit", 0))
    weight_decay: float = field(default=0.0, metadata=_doc("Weight decay of AdamW", 0, 1))
    lora_r: int = field(default=16, metadata=_doc("Rank of the adapters", 1))
    lora_alpha: int = field(default=32, metadata=_doc("Adapters are scaled by lora_alpha / lora_r", 1))
    dora: Literal["on", "off"] = field(
        default="off", metadata=_doc("DoRA: adapters turn a weight's columns and learn their lengths apart; slower")
    )
    lora_layers: int = field(
        default=0,
        metadata=_doc("Adapt only so many of the last layers, below which no gradient is computed; 0: all", 0),
    )
    lora_plus: float = field(
        default=1.0,
        metadata=_doc("LoRA+: the learning rate of the B matrices is so many times lr, which pays in short runs", 1),
    )
    lora_dropout: float = field(
        default=0.0, metadata=_doc("Must be 0: rows that share a prefix cannot be dropped out apart", 0)
    )
    dtype: Literal["auto", "bf16", "fp32"] = field(
        default="auto", metadata=_doc("Number type of the computation; auto: bf16 where it is fast")
    )
    checkpointing: Literal["auto", "on", "off"] = field(
        default="auto", metadata=_doc("Recompute activations to save memory")
    )
    checkpoint_every: int = field(
        default=0,
        metadata=_doc("With checkpointing: recompute each so-many-th layer, keep the others' activations; 0: auto", 0),
    )
    sharing: Literal["auto", "on", "off"] = field(
        default="auto",
        metadata=_doc("Compute what rows share once; auto: unless the model's layers are recurrent or the like"),
    )
    unpack: Literal["auto", "on", "off"] = field(
        default="auto",
        metadata=_doc("qlora: keep what the 4 bits hold unpacked, for 16-bit memory and less time; auto: if it fits"),
    )
    liger: Literal["auto", "on", "off"] = field(
        default="auto", metadata=_doc("Liger's kernels for norms, positions and gates; auto: if they are installed")
    )
    host_embeddings: Literal["auto", "on", "off"] = field(
        default="auto", metadata=_doc("Keep frozen input embeddings in the host's memory; auto: if it helps")
    )
    optimizer: Literal["adamw", "adamw_8bit"] = field(
        default="adamw", metadata=_doc("adamw_8bit: bitsandbytes' paged one, whose state takes a quarter")
    )
    save_steps: int = field(default=50, metadata=_doc("Save a checkpoint after so many steps", 1))
    keep_checkpoints: int = field(default=2, metadata=_doc("How many checkpoints are kept", 1))
    seed: int = field(default=0, metadata=_doc("Seed of order, packs and adapters", 0, 2**32 - 1))

    def __post_init__(self) -> None:
        for name, kind in _kinds().items():
            _check(name, getattr(self, name), kind)
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
    values: dict[str, Any] = {}
    if path is not None:
        values = _from_table(_load_toml(path), str(path))
        values = _located(values, path.parent)
    given: dict[str, Any] = {}
    for text in overrides:
        key, value = _parse_override(text)
        if key.startswith("weights."):
            given.setdefault("weights", {})[key.partition(".")[2]] = value
        else:
            given[key] = value
    given |= {key: value for key, value in (options or {}).items() if value not in (None, (), [])}
    values |= _located(_from_table(given, "the command line"), Path())
    return Recipe(**values)


def read_resolved(path: Path) -> Recipe:
    """The recipe that a run folder keeps."""
    return Recipe(**_from_table(_load_toml(path), str(path)))


def write_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, each key with its documentation."""
    lines = ["# What this run did, every setting resolved. `agentft train recipe.toml` runs it again."]
    for entry in fields(Recipe):
        lines += [f"# {entry.metadata['doc']}.", f"{entry.name} = {_toml(getattr(recipe, entry.name))}"]
    return "\n".join(lines) + "\n"


def recipe_docs() -> list[tuple[str, str, str]]:
    """(key, default, documentation) of each key, for help and docs."""
    default = Recipe()
    return [(entry.name, _toml(getattr(default, entry.name)), entry.metadata["doc"]) for entry in fields(Recipe)]


def _kinds() -> dict[str, Any]:
    return get_type_hints(Recipe)


def _load_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no recipe {path}; give a TOML file, or the settings as KEY=VALUE") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give the TOML file of a recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML file: {error}") from None


def _from_table(table: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Check the keys, and make each value what its field holds."""
    known = [entry.name for entry in fields(Recipe)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the keys are: {', '.join(known)}"
            raise InputError(f"{place}: there is no key {key!r}{hint}")
        try:
            values[key] = _check(key, _coerce(key, value), _kinds()[key])
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    return values


def _coerce(key: str, value: Any) -> Any:
    if key == "data":
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else value
    kind = _kinds()[key]
    if kind is float and type(value) is int:
        return float(value)
    return str(value) if kind is str and isinstance(value, Path) else value


def _check(name: str, value: Any, kind: Any) -> Any:
    """Whether `value` is of the field's kind and inside its range."""
    entry = next(entry for entry in fields(Recipe) if entry.name == name)
    shown = f"{name} = {value!r}"
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{shown} is not known; it is one of: {', '.join(get_args(kind))}")
        return value
    if name == "data":
        fits = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    elif name == "weights":
        fits = isinstance(value, Mapping) and all(type(item) in (int, float) for item in value.values())
    else:
        fits = type(value) is kind
    if not fits:
        raise InputError(f"{shown} is not {_NOUNS.get(name) or _NOUNS[kind.__name__]}")
    low, high = entry.metadata["low"], entry.metadata["high"]
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise InputError(f"{shown} is out of range; it is {low} or more" + (f", and at most {high}" if high else ""))
    return value


_NOUNS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "data": "a path or a list of paths",
    "weights": "a table of kind = number",
}


def _parse_override(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`, where VALUE is TOML, or a bare text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{text!r} is not KEY=VALUE; for example lr=0.001")
    key = key.strip()
    kind = _kinds().get(key)
    if kind is str or get_origin(kind) is Literal:
        return key, value.strip().strip("\"'")
    try:
        return key, tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return key, value.strip()


def _located(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Paths made absolute, so that a run can be resumed from any folder."""
    if "data" in values:
        values["data"] = tuple(_locate(name, base) for name in values["data"])
    if "model" in values and (base / values["model"]).is_dir():
        values["model"] = str((base / values["model"]).resolve())
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
