"""Checks a call's arguments against a tool's schema, with messages that tell a model how to correct its call."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from agentft.errors import InputError, ToolError
from agentft.types import Json, ToolDefinition

__all__ = ["ArgumentCheck", "Validator"]

# The order in which violations are reported: missing arguments, unknown ones, wrong types, then values.
_ORDER: dict[object, int] = {"required": 0, "additionalProperties": 1, "type": 2}
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_DATA = frozenset({"const", "default", "enum", "example", "examples"})  # a `$ref` in them is data
_NOUNS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def _is_number(_: object, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_integer(_: object, value: object) -> bool:
    return _is_number(_, value) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _pattern(_: object, pattern: str, value: object, __: object) -> Iterator[ValidationError]:
    """Match with a time limit, because neither the pattern nor the text can be trusted."""
    try:
        found = not isinstance(value, str) or regex.search(pattern, value, timeout=0.2)
    except (TimeoutError, regex.error):
        found = None
    if not found:
        yield ValidationError(f"does not match {pattern!r}")


Validator: type[Draft202012Validator] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"pattern": _pattern},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", _is_number).redefine("integer", _is_integer),
)


class ArgumentCheck:
    """Checks arguments of one tool. Remote `$ref`s are never followed: the registry is empty.

    Raises:
        InputError: the tool's schema is not a valid JSON Schema (2020-12).
    """

    def __init__(self, definition: ToolDefinition) -> None:
        self._name = definition.name
        try:
            Draft202012Validator.check_schema(definition.parameters)
            _check_inside(definition.parameters)
        except (SchemaError, RecursionError) as error:
            why = error.message if isinstance(error, SchemaError) else "it is nested too deeply"
            raise InputError(f"tool {definition.name}: its schema is not valid: {why}") from None
        except Unresolvable as error:
            raise InputError(
                f"tool {definition.name}: its schema refers to {error.ref!r}, which is not in it"
            ) from None
        self._properties: dict[str, Any] = dict(definition.parameters.get("properties", {}))  # type: ignore[arg-type]
        self._validator = Validator(definition.parameters, registry=Registry())

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments that the tool takes."""
        return tuple(self._properties)

    def __call__(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """The arguments as the handler receives them (3.0 for an integer becomes 3).

        Raises:
            ToolError: 400 if one is missing, unknown or of the wrong type, 422 if a value is not allowed.
        """
        try:
            errors = sorted(
                self._validator.iter_errors(dict(arguments)), key=lambda error: _ORDER.get(error.validator, 3)
            )
        except RecursionError:
            raise ToolError("the arguments are nested too deeply; use plain values", status=400) from None
        if errors:
            raise self._refusal(errors[0], arguments)
        return {key: self._native(key, value) for key, value in arguments.items()}

    def _native(self, key: str, value: Json) -> Json:
        schema = self._properties.get(key)
        types = schema.get("type") if isinstance(schema, dict) else None
        whole = isinstance(value, float) and value.is_integer()
        return int(value) if whole and types in ("integer", ["integer", "null"]) else value  # type: ignore[arg-type]

    def _refusal(self, error: ValidationError, arguments: Mapping[str, Json]) -> ToolError:
        if error.validator == "required" and not error.absolute_path:
            return self._missing(arguments, error)
        if error.validator == "additionalProperties" and not error.absolute_path:
            return self._unknown(arguments)
        place = "/".join(str(part) for part in error.absolute_path)
        wanted = _wanted(error)
        status = 400 if error.validator == "type" else 422
        if not place:
            return ToolError(f"the arguments together must be {wanted}", status=status)
        return ToolError(
            f"argument {place!r} must be {wanted}, not {_shown(error.instance)}", status=status, argument=place
        )

    def _missing(self, arguments: Mapping[str, Json], error: ValidationError) -> ToolError:
        required: list[str] = list(error.validator_value)  # type: ignore[arg-type]
        absent = [name for name in required if name not in arguments]
        shown = ", ".join(f"{name!r} ({_kind(self._properties.get(name))})" for name in absent)
        noun = "argument" if len(absent) == 1 else "arguments"
        return ToolError(f"missing {noun} {shown}", status=400, argument=absent[0])

    def _unknown(self, arguments: Mapping[str, Json]) -> ToolError:
        known = list(self._properties)
        name = next((key for key in arguments if key not in self._properties), "")
        listed = textwrap.shorten(", ".join(known), 160, placeholder=" ...")
        takes = f"takes {listed}" if known else "takes no arguments"
        return ToolError(f"unknown argument {_clip(name)!r}; {self._name} {takes}", status=400, argument=_clip(name))


def _check_inside(schema: Any) -> None:
    """Check that every `$ref` has a target inside the schema."""
    resolver = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                resolver.lookup(node["$ref"])
            for key, value in node.items():
                if key in _NAMED and isinstance(value, dict):
                    waiting += value.values()
                elif key not in _DATA:
                    waiting.append(value)


def _kind(schema: object) -> str:
    if not isinstance(schema, dict):
        return "any value"
    values = schema.get("enum")
    if values:
        return f"one of {_listed(values)}"
    types = schema.get("type", "any value")
    return " or ".join(types) if isinstance(types, list) else str(types)


def _wanted(error: ValidationError) -> str:
    value: Any = error.validator_value
    match error.validator:
        case "type":
            return " or ".join(_NOUNS[kind] for kind in (value if isinstance(value, list) else [value]))
        case "enum":
            return f"one of {_listed(value)}"
        case "minimum" | "maximum":
            schema = error.schema if isinstance(error.schema, dict) else {}
            low, high = schema.get("minimum"), schema.get("maximum")
            if low is not None and high is not None:
                return f"from {low} to {high}"
            return f"at least {low}" if high is None else f"at most {high}"
    return f"valid ({error.validator} {_clip(str(value))})"


def _listed(values: list[Any]) -> str:
    return ", ".join(json.dumps(value, ensure_ascii=False) for value in values)


def _shown(value: object) -> str:
    """A value for a message, short whatever the model wrote."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return "a number so large"
    return json.dumps(_clip(value) if isinstance(value, str) else value, ensure_ascii=False)


def _clip(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
