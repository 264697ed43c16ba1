"""BFCL entries as cases: tools as JSON Schema, names without dots, and the reference calls as expectations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from agentft.metrics.bfcl import BfclEntry
from agentft.types import CallExpectation, Json

__all__ = ["expected_calls"]

_MOST_VALUES = 1000  # of one argument; combinations of an object's values


def expected_calls(entry: BfclEntry) -> tuple[CallExpectation, ...]:
    """The reference calls as `exact_call` compares them, with every accepted value that BFCL lists."""
    functions = {function["name"]: function["parameters"] for function in entry.functions}
    return tuple(
        _expected(name, accepted, functions[name]) for answer in entry.answers for name, accepted in answer.items()
    )


def _expected(name: str, accepted: Mapping[str, list[Any]], schema: Mapping[str, Any]) -> CallExpectation:
    arguments: dict[str, Json] = {}
    optional: dict[str, Json] = {}
    alternatives: dict[str, tuple[Json, ...]] = {}
    for key, options in accepted.items():
        declared, required = schema["properties"].get(key, {}), key in schema["required"]
        usable = [option for option in options if option != ""]
        values = [value for option in usable for value in _values(option, declared)]
        if required and not values and "" in options:
            values = [""]
        if values:
            place = optional if "" in options and not required else arguments
            place[key], alternatives[key] = values[0], tuple(values[1:_MOST_VALUES])
    return CallExpectation(name, arguments, {key: rest for key, rest in alternatives.items() if rest}, optional)


def _values(option: Any, declared: Mapping[str, Any]) -> list[Any]:
    """An object, or the objects of a list, has alternatives for each of its values: all combinations."""
    kind, inner = declared.get("type"), declared.get("items", {}).get("type")
    if kind == "dict" and isinstance(option, dict):
        return list(_combinations(option))
    if kind in ("array", "tuple") and inner == "dict" and isinstance(option, list):
        parts = itertools.product(*map(_combinations, option))
        return [list(part) for part in itertools.islice(parts, _MOST_VALUES)]
    return [option]


def _combinations(option: Mapping[str, list[Any]]) -> Iterable[dict[str, Any]]:
    chosen = itertools.product(*option.values())
    for values in itertools.islice(chosen, _MOST_VALUES):
        yield {key: value for key, value in zip(option, values, strict=True) if value != ""}
