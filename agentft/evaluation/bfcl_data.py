"""The data of BFCL v4: read from the pinned wheel of `bfcl-eval`, which is never installed or imported, or a folder."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentft.errors import InputError
from agentft.metrics.bfcl import BfclEntry
from agentft.models.wheels import Wheel
from agentft.strict import nearest, read_json_line
from agentft.types import Json, ToolDefinition

__all__ = [
    "BFCL_CATEGORIES",
    "BFCL_WHEEL",
    "MULTI_TURN",
    "UNSOLVABLE",
    "Question",
    "choose_categories",
    "describe_tool",
    "json_schema",
    "read_category",
    "read_file",
    "read_objects",
]

BFCL_WHEEL = Wheel(
    package="bfcl-eval",
    version="2026.3.23",
    sha256="3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
    size=1_925_664,
)

_NON_LIVE = ("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance")
_LIVE = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance")
BFCL_CATEGORIES = (*_NON_LIVE, *_LIVE, "live_relevance")
"""The single-turn categories in Python, by their official names."""

MULTI_TURN = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
"""The multi-turn categories, whose calls run in BFCL's simulators."""

UNSOLVABLE = ("live_simple_106-63-0", "live_simple_112-68-0", "live_multiple_862-181-3", "live_multiple_964-207-0")
"""Entries that no answer passes in this version, because their annotation contradicts their function."""

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "list": "array", "str": "string", "int": "integer"}
_TYPES |= {"bool": "boolean", "double": "number"}
_HINT = " Note that the provided function is in Python 3 syntax."  # in every official prompt
_GROUPS = {
    "simple": ("simple_python",),
    "non_live": _NON_LIVE,
    "live": (*_LIVE, "live_relevance"),
    "multi_turn": MULTI_TURN,
    "all": BFCL_CATEGORIES,
}


@dataclass(frozen=True, slots=True)
class Question:
    """An entry with its id and messages, each `{"role", "content"}`."""

    id: str
    messages: tuple[dict[str, str], ...]
    entry: BfclEntry


def choose_categories(text: str | None) -> tuple[str, ...]:
    """The categories of a comma-separated list of names and groups, in the official order; None: all of one turn.

    Raises:
        InputError: there is no such category, or it cannot be run here.
    """
    chosen: set[str] = set()
    for name in (part.strip() for part in ("all" if text is None else text).split(",")):
        known = _GROUPS | {one: (one,) for one in (*BFCL_CATEGORIES, *MULTI_TURN)}
        if name not in known:
            raise InputError(f"--categories: {name!r} is no Python category that runs here; {nearest(name, [*known])}")
        chosen.update(known[name])
    return tuple(name for name in (*BFCL_CATEGORIES, *MULTI_TURN) if name in chosen)


def read_category(source: Path, category: str) -> tuple[tuple[Question, ...], str]:
    """The entries of a category, and the SHA-256 of their files.

    Args:
        source: the wheel, or a folder of `BFCL_v4_*.json` files with a folder `possible_answer`.

    Raises:
        InputError: a file is missing or is not what it should be.
    """
    name = f"BFCL_v4_{category}.json"
    asked, answered = read_file(source, name), b""
    answers: dict[str, Any] = {}
    if "relevance" not in category:
        answered = read_file(source, f"possible_answer/{name}")
        rows = read_objects(answered, f"{source}/possible_answer/{name}", {"id": str, "ground_truth": list})
        answers = {row["id"]: row["ground_truth"] for row in rows}
    questions = []
    for row in read_objects(asked, f"{source}/{name}", {"id": str, "question": list, "function": list}):
        if "relevance" not in category and row["id"] not in answers:
            raise InputError(f"{source}/possible_answer/{name}: there is no answer for {row['id']!r}")
        entry = BfclEntry(category, tuple(row["function"]), tuple(answers.get(row["id"], ())))
        questions.append(Question(row["id"], tuple(row["question"][0]), entry))
    return tuple(questions), hashlib.sha256(asked + b"\0" + answered).hexdigest()


def describe_tool(document: Mapping[str, Any]) -> ToolDefinition:
    """A function document as a tool."""
    return ToolDefinition(document["name"], document["description"] + _HINT, json_schema(document["parameters"]))


def json_schema(declared: Mapping[str, Any]) -> dict[str, Json]:
    """Parameters with Python's types as JSON Schema.

    BFCL's can be told back from it: a tuple has a `format`, `any` has no type.
    """
    schema = {key: value for key, value in declared.items() if key not in ("type", "properties", "items")}
    kind = declared.get("type", "any")
    if kind != "any":
        schema = {"type": _TYPES.get(kind, kind), **schema}
    if kind == "tuple":
        schema["format"] = "tuple"
    if "properties" in declared:
        schema["properties"] = {name: json_schema(inner) for name, inner in declared["properties"].items()}
    if "items" in declared:
        schema["items"] = json_schema(declared["items"])
    return schema


def read_file(source: Path, name: str) -> bytes:
    """A file of the data. Raises InputError if it cannot be read."""
    remedy = "give the folder `data` of bfcl-eval, or its wheel"
    try:
        if source.is_dir():
            return (source / name).read_bytes()
        with zipfile.ZipFile(source) as archive:
            return archive.read(f"bfcl_eval/data/{name}")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or str(error).strip("\"'")
        raise InputError(f"{source}: {name} cannot be read ({why}); {remedy}") from None


def read_objects(text: bytes, path: str, needed: Mapping[str, type]) -> Sequence[dict[str, Any]]:
    """The objects of a JSONL file. Raises InputError if one of them lacks a `needed` key."""
    rows = []
    for number, line in enumerate(text.split(b"\n"), start=1):
        if line.strip():
            row = read_json_line(line, f"{path}:{number}")
            for key, kind in needed.items():
                if not isinstance(row.get(key), kind):
                    raise InputError(f"{path}:{number}: `{key}` is missing; the file is not one of BFCL v4")
            rows.append(row)
    return rows
