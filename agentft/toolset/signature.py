"""From a function's type hints and Google-style docstring to a tool definition."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from agentft.errors import InputError
from agentft.toolset.marks import Handler, Range
from agentft.toolset.models import is_model, model_schema, plain
from agentft.toolset.schemas import nullable
from agentft.types import Json, ToolDefinition

__all__ = ["Docstring", "define", "parse_docstring"]

_TYPES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
_SECTION = re.compile(r"^(Args|Example|Returns|Raises):\s*$")
_ENTRY = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring's parts: what precedes the sections, the arguments' descriptions, the example's JSON text."""

    summary: str
    arguments: dict[str, str] = field(default_factory=dict)
    example: str = ""


def define(function: Handler, place: str, endpoint: str) -> tuple[ToolDefinition, dict[str, Json]]:
    """The definition of the tool that `function` is, and the arguments of its documented example.

    Args:
        function: its first parameter is the state; the others are the tool's arguments.
        place: where the function stands, for messages.
        endpoint: the tool's URL.

    Raises:
        InputError: a hint or a docstring that a model could not be told about.
    """
    doc = parse_docstring(inspect.getdoc(function) or "")
    if not doc.summary:
        raise InputError(f"{place}: no docstring; say in its first line what the tool does, a model reads it")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise InputError(f"{place}: no parameters; the first one must be the state")
    hints = _hints(function, place)
    properties: dict[str, Json] = {}
    for parameter in parameters[1:]:
        properties[parameter.name] = _property(parameter, hints, doc, f"{place}: {parameter.name}")
    if strangers := set(doc.arguments) - set(properties):
        raise InputError(f"{place}: the docstring describes {sorted(strangers)[0]!r}, which is not a parameter")
    required: list[Json] = [item.name for item in parameters[1:] if item.default is inspect.Parameter.empty]
    schema: dict[str, Json] = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return ToolDefinition(function.__name__, doc.summary, schema, (endpoint,)), _example(doc, place)


def _hints(function: Handler, place: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise InputError(f"{place}: a type hint cannot be read: {error}") from None


def _property(parameter: inspect.Parameter, hints: dict[str, Any], doc: Docstring, place: str) -> dict[str, Json]:
    if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
        raise InputError(f"{place}: *args, **kwargs and positional-only parameters cannot be tool arguments")
    if parameter.name not in hints:
        raise InputError(f"{place}: no type hint; give it one such as `{parameter.name}: str`")
    schema = _schema(hints[parameter.name], place)
    if description := doc.arguments.get(parameter.name):
        schema["description"] = description
    if parameter.default is not parameter.empty and parameter.default is not None:
        schema["default"] = plain(parameter.default)
    return schema


def _schema(hint: Any, place: str) -> dict[str, Json]:
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if is_model(hint):
        return model_schema(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        types = sorted({_TYPES[type(value)] for value in arguments})
        return {"type": types[0] if len(types) == 1 else [*types], "enum": list(arguments)}
    if origin is Annotated:
        return _schema(arguments[0], place) | _bounds(arguments[1:])
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], place)}
    if origin in {Union, UnionType} and NoneType in arguments and len(arguments) == 2:
        return nullable(_schema(next(item for item in arguments if item is not NoneType), place))
    raise InputError(
        f"{place}: the type {hint} has no JSON Schema here; use str, int, float, bool, list[...], Literal[...], "
        "X | None, Annotated[int, Range(1, 7)] or a pydantic model"
    )


def _bounds(extras: tuple[Any, ...]) -> dict[str, Json]:
    bounds: dict[str, Json] = {}
    for extra in extras:
        if isinstance(extra, Range):
            limits = {"minimum": extra.low, "maximum": extra.high}
            bounds |= {key: value for key, value in limits.items() if value is not None}
    return bounds


def _example(doc: Docstring, place: str) -> dict[str, Json]:
    if not doc.example:
        return {}
    try:
        example = json.loads(doc.example)
    except ValueError as error:
        raise InputError(f"{place}: the docstring's Example is not JSON: {error}") from None
    if not isinstance(example, dict):
        raise InputError(f"{place}: the docstring's Example must be a JSON object of arguments")
    return example


def parse_docstring(text: str) -> Docstring:
    """Read a Google-style docstring; sections other than `Args` and `Example` are left out."""
    lines: dict[str, list[str]] = {"": []}
    section = ""
    for line in text.splitlines():
        if heading := _SECTION.match(line):
            section = heading[1]
            lines[section] = []
        else:
            lines[section].append(line)
    summary = " ".join(" ".join(lines[""]).split())
    return Docstring(summary, _entries(lines.get("Args", [])), "\n".join(lines.get("Example", [])).strip())


def _entries(lines: list[str]) -> dict[str, str]:
    entries: dict[str, str] = {}
    text = inspect.cleandoc("\n".join(["", *lines]))
    name = ""
    for line in text.splitlines():
        entry = _ENTRY.match(line)
        if entry and not line.startswith(" "):
            name = entry[1]
            entries[name] = entry[2].strip()
        elif name and line.strip():
            entries[name] = f"{entries[name]} {line.strip()}"
    return entries
