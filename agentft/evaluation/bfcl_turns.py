"""The multi-turn categories of BFCL v4: entries with several user turns, whose calls run in its simulators."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from agentft.agent import Job
from agentft.errors import InputError
from agentft.evaluation.bfcl_data import describe_tool, read_file, read_objects
from agentft.evaluation.plan import Setup
from agentft.evaluation.simulators import Simulators
from agentft.metrics.bfcl import BfclEntry
from agentft.strict import own_table
from agentft.types import CallExpectation, Case, CaseTurn, Category

__all__ = ["read_functions", "read_turns", "reference_call"]

_FILES = own_table(__file__, str)
_CATEGORIES: dict[str, Category] = {
    "multi_turn_miss_func": "missing_tool",
    "multi_turn_miss_param": "missing_parameter",
}
_MORE = "I have updated some more functions you can choose from. What about now?"  # the official sentence


def read_functions(source: Path) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """The function documents of each simulator, and the SHA-256 of their files.

    Raises:
        InputError: a file is missing or is not what it should be.
    """
    names = {simulator: f"multi_turn_func_doc/{stem}.json" for simulator, stem in _FILES.items()}
    texts = {simulator: read_file(source, name) for simulator, name in names.items()}
    needed = {"name": str, "description": str, "parameters": dict}
    found = {name: [*read_objects(text, f"{source}/{names[name]}", needed)] for name, text in texts.items()}
    return found, hashlib.sha256(b"\0".join(texts.values())).hexdigest()


def read_turns(
    source: Path, category: str, functions: Mapping[str, list[dict[str, Any]]], simulators: Simulators, trials: int
) -> tuple[list[tuple[Case, Setup]], str]:
    """The entries of a multi-turn category, and the SHA-256 of their files. Arguments and errors: see `read_category`.

    `functions`: the documents of each simulator. `simulators`: learn what the sessions of the cases start with.
    """
    name = f"BFCL_v4_{category}.json"
    asked, answered = read_file(source, name), read_file(source, f"possible_answer/{name}")
    rows = read_objects(answered, f"{source}/possible_answer/{name}", {"id": str, "ground_truth": list})
    answers = {row["id"]: row["ground_truth"] for row in rows}
    needed = {"id": str, "question": list, "initial_config": dict, "involved_classes": list}
    found = []
    for row in read_objects(asked, f"{source}/{name}", needed):
        wanted, classes = answers.get(row["id"], ()), row["involved_classes"]
        if len(wanted) != len(row["question"]) or not set(classes) <= set(_FILES):
            raise InputError(f"{source}/{name}: {row['id']!r} has no answer for each turn, or an unknown simulator")
        offered = [one for simulator in classes for one in functions[simulator]]
        named = {one["name"]: one for one in offered if one["name"] not in row.get("excluded_function", ())}
        users = ("\n\n".join(one["content"] for one in turn) or _MORE for turn in row["question"])
        calls = (tuple(reference_call(text, named) for text in turn) for turn in wanted)
        case = Case(
            row["id"], category, _CATEGORIES.get(category, "multi_round"), "en", (), tuple(map(CaseTurn, users, calls))
        )
        classes = {simulator: _FILES[simulator] for simulator in classes}
        start = {"classes": classes, "config": row["initial_config"], "long": "long_context" in category}
        for trial in range(trials):
            simulators.entries[Job(case, "", (), trial).session("").rpartition(".")[2]] = start
        entry = BfclEntry(category, tuple(named.values()), check=partial(simulators.check, start, wanted))
        held = {one: int(turn) for turn, names in row.get("missed_function", {}).items() for one in names}
        found.append((case, Setup(tuple(map(describe_tool, named.values())), entry, held=held)))
    return found, hashlib.sha256(asked + b"\0" + answered).hexdigest()


def reference_call(text: str, functions: Mapping[str, Mapping[str, Any]]) -> CallExpectation:
    """A reference call, written in Python with literals: `sort("a.txt")`. `functions`: the documents by name."""
    call: Any = ast.parse(text, mode="eval").body
    name = call.func.id
    names = functions[name]["parameters"]["properties"]
    values = dict(zip(names, call.args, strict=False)) | {word.arg: word.value for word in call.keywords}
    return CallExpectation(name, {key: ast.literal_eval(value) for key, value in values.items()})
