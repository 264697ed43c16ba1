"""Checks a call's arguments against a tool's schema, with messages that tell a model how to correct its call."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from agentft.errors import InputError, ToolError
from agentft.toolset.formats import FORMATS
from agentft.toolset.refusals import refuse
from agentft.toolset.subschemas import Subschemas, matches_pattern, resolver_of
from agentft.toolset.unevaluated import unevaluated_names
from agentft.types import Json, ToolDefinition

__all__ = ["INERT", "ArgumentCheck", "Validator", "argument_validator"]

# The order in which violations are reported: missing arguments, unknown ones, wrong types, values, then arguments that
# no alternative has, which may follow from the others.
_ORDER: dict[object, int] = {"required": 0, "additionalProperties": 1, "type": 2, "unevaluatedProperties": 4}
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
INERT = frozenset({"const", "default", "enum", "example", "examples"})
"""Keywords whose values are data: a `$ref` in them is none."""


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
    if isinstance(value, str) and not matches_pattern(pattern, value):
        yield ValidationError(f"does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, value: object, _: object) -> Iterator[ValidationError]:
    for pattern, schema in patterns.items() if isinstance(value, dict) else ():
        for key, inner in value.items():  # type: ignore[attr-defined]
            if matches_pattern(pattern, key):
                yield from validator.descend(inner, schema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, rest: Any, value: object, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    names = [key for key in value if key not in known and not any(matches_pattern(text, key) for text in patterns)]
    yield from _rest(validator, names, rest, value)


def _unevaluated_properties(validator: Any, rest: Any, value: object, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        yield from _rest(validator, unevaluated_names(validator, value, schema), rest, value)


def _rest(validator: Any, names: list[str], rest: Any, value: dict[str, Any]) -> Iterator[ValidationError]:
    """The errors of properties that nothing else describes; one that is not allowed is the last part of the path."""
    for name in names:
        if rest is False:
            yield ValidationError("is not an argument", path=[name])
        else:
            yield from validator.descend(value[name], rest, path=name)


def _unique_items(_: object, unique: object, value: object, __: object) -> Iterator[ValidationError]:
    if unique is True and isinstance(value, list) and len({_hashable(item) for item in value}) < len(value):
        yield ValidationError("has equal items")


def _hashable(value: Json) -> Hashable:
    """A key that is equal for values that are equal in JSON, where 1 and 1.0 are, and 1 and true are not."""
    if isinstance(value, dict):
        return "object", frozenset((key, _hashable(item)) for key, item in value.items())
    if isinstance(value, list):
        return "list", tuple(map(_hashable, value))
    return isinstance(value, bool), value


Validator: type[Draft202012Validator] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    # Patterns are searched within a time limit, and unique items are found in one pass: values are not trusted.
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "unevaluatedProperties": _unevaluated_properties,
        "uniqueItems": _unique_items,
    },
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", _is_number).redefine("integer", _is_integer),
)


def _evolve(validator: Any, **changes: Any) -> Any:
    """The validator of a part of the schema. For a part with `$schema`, jsonschema's own one has no time limits."""
    schema = changes.get("schema", validator.schema)
    if isinstance(schema, dict) and "$schema" in schema:
        schema = {key: value for key, value in schema.items() if key != "$schema"}
    return _evolve_to(validator, **{**changes, "schema": schema})


_evolve_to = Validator.evolve
Validator.evolve = _evolve  # type: ignore[assignment, method-assign]


def argument_validator(schema: Mapping[str, Any]) -> Any:
    """A validator of arguments: formats are checked, and remote `$ref`s are never followed."""
    return Validator(schema, registry=Registry(), format_checker=FORMATS)


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
            at = "".join(f"/{part}" for part in error.absolute_path) if isinstance(error, SchemaError) else ""
            place = f" at {at}" if at else ""
            raise InputError(f"tool {definition.name}: its schema is not valid{place}: {why:.200}") from None
        except Unresolvable as error:
            raise InputError(
                f"tool {definition.name}: its schema refers to {error.ref!r}, which is not in it"
            ) from None
        self._schema = definition.parameters
        self._properties: dict[str, Any] = dict(definition.parameters.get("properties", {}))  # type: ignore[arg-type]
        self._validator = argument_validator(definition.parameters)

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
            raise refuse(errors[0], self._name, Subschemas(self._schema))
        whole = any(map(_holds_whole_float, arguments.values()))
        return _with_integers(dict(arguments), Subschemas(self._schema)) if whole else dict(arguments)


def _holds_whole_float(value: Json) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_whole_float, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and value.is_integer()


def _with_integers(value: Any, schema: Subschemas) -> Any:
    if isinstance(value, dict):
        return {key: _with_integers(inner, schema.at(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_integers(inner, schema.at(index)) for index, inner in enumerate(value)]
    if isinstance(value, float) and value.is_integer() and "integer" in schema.types and "number" not in schema.types:
        return int(value)
    return value


def _check_inside(schema: Any) -> None:
    """Check that every `$ref` has a target inside the schema."""
    resolver = resolver_of(schema)
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            for key in ("$ref", "$dynamicRef"):
                if isinstance(node.get(key), str):
                    resolver.lookup(node[key])
            for key, value in node.items():
                if key in _NAMED and isinstance(value, dict):
                    waiting += value.values()
                elif key not in INERT:
                    waiting.append(value)
