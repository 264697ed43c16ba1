"""Checks a call's arguments against a tool's schema, with messages that tell a model how to correct its call."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from agentft.errors import InputError, ToolError
from agentft.toolset.formats import FORMATS
from agentft.toolset.patterns import compiles, matches_pattern
from agentft.toolset.refusals import refuse
from agentft.toolset.subschemas import LazyResolver, Subschemas
from agentft.toolset.unevaluated import unevaluated_names
from agentft.types import Json, ToolDefinition

__all__ = ["INERT", "TYPES", "VALUES_LIMIT", "ArgumentCheck", "count_values", "hashable", "validator_of"]

_FEW = 20  # values that a message lists
_NESTED = 130  # schemas inside each other that are applied to a value
VALUES_LIMIT = 20_000  # values inside one schema: far above real ones, and every call is checked against all of them

# The order in which violations are reported: missing arguments, unknown ones, wrong types, values, then arguments that
# no alternative has, which may follow from the others.
_ORDER: dict[object, int] = {"required": 0, "additionalProperties": 1, "type": 2, "unevaluatedProperties": 4}
# Keywords whose values contain schemas.
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLES = frozenset({"items", "contains", "additionalProperties", "propertyNames", "if", "then", "else", "not"})
_SINGLES |= {"unevaluatedItems", "unevaluatedProperties", "contentSchema"}
INERT = frozenset({"const", "default", "enum", "example", "examples"})
"""Keywords whose values are data: a `$ref` in them is none."""


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_integer(value: object) -> bool:
    return _is_number(value) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


TYPES: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": _is_integer,
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
"""The types of JSON Schema, and whether a JSON value has it: 1.0 is an integer, and true is not a number."""


def _type(_: object, kinds: Any, value: object, __: object) -> Iterator[ValidationError]:
    if not (TYPES[kinds](value) if isinstance(kinds, str) else any(TYPES[kind](value) for kind in kinds)):
        listed = ", ".join(map(repr, [kinds] if isinstance(kinds, str) else kinds))
        yield ValidationError(f"{_brief(value)} is not of type {listed}")


def _brief(value: object) -> str:
    return repr(value[:200]) if isinstance(value, str) else f"{value!r:.200}"


def _pattern(_: object, pattern: str, value: object, __: object) -> Iterator[ValidationError]:
    if isinstance(value, str) and not matches_pattern(pattern, value):
        yield ValidationError(f"{_brief(value)} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, value: object, _: object) -> Iterator[ValidationError]:
    for pattern, schema in patterns.items() if isinstance(value, dict) else ():
        for key, inner in value.items():  # type: ignore[attr-defined]
            if matches_pattern(pattern, key):
                yield from validator.descend(inner, schema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, rest: Any, value: object, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(value, dict) or rest is True:
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


def _enum(_: object, values: Any, value: Any, __: object) -> Iterator[ValidationError]:
    # Python's `in` is fast, and finds all that are equal in JSON, with a few more, such as 1 for true.
    if value not in values or hashable(value) not in map(hashable, values):
        shown = f"{values!r:.400}" if len(values) <= _FEW else f"{len(values):,} values: {values[:_FEW]!r:.400}"
        yield ValidationError(f"{_brief(value)} is not one of {shown}")


def _required(_: object, names: Any, value: object, __: object) -> Iterator[ValidationError]:
    for index, name in enumerate(names) if isinstance(value, dict) else ():
        if name not in value:  # type: ignore[operator]
            yield ValidationError(f"{name!r} is a required property", schema_path=[index])


def _unique_items(_: object, unique: object, value: object, __: object) -> Iterator[ValidationError]:
    if unique is True and isinstance(value, list) and len({hashable(item) for item in value}) < len(value):
        yield ValidationError(f"{_brief(value)} has non-unique elements")


def hashable(value: Json) -> Hashable:
    """A key that is equal for values that are equal in JSON, where 1 and 1.0 are, and 1 and true are not."""
    if isinstance(value, dict):
        return "object", frozenset((key, hashable(item)) for key, item in value.items())
    if isinstance(value, list):
        return "list", tuple(map(hashable, value))
    return isinstance(value, bool), value


_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    # Patterns are searched within a time limit, and unique items are found in one pass: values are not trusted.
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "unevaluatedProperties": _unevaluated_properties,
        "uniqueItems": _unique_items,
        "enum": _enum,
        "type": _type,
        "required": _required,
    },
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", lambda _, value: _is_number(value)),
)


def _evolve(validator: Any, schema: Any, _resolver: Any = None) -> Any:
    """The validator of a part of the schema. jsonschema's own takes longer, and has no time limits after `$schema`."""
    return _Validator(schema, format_checker=validator.format_checker, _resolver=_resolver or validator._resolver)


_here = threading.local()


def _descend(
    validator: Any, instance: Json, schema: Any, *, path: Any = None, schema_path: Any = None, resolver: Any = None
) -> Iterator[ValidationError]:
    """As jsonschema's own, in less time, and only so deep that `referencing` is not stopped in its native code."""
    depth = getattr(_here, "depth", 0)
    if depth >= _NESTED:
        raise RecursionError
    if resolver is None and isinstance(schema, dict) and "$id" in schema:
        resolver = validator._resolver.in_subresource(DRAFT202012.create_resource(schema))
    _here.depth = depth + 1
    try:
        for error in validator.evolve(schema, resolver).iter_errors(instance):
            error.path.extendleft([] if path is None else [path])
            error.schema_path.extendleft([] if schema_path is None else [schema_path])
            yield error
    finally:
        _here.depth = depth


_Validator.evolve, _Validator.descend = _evolve, _descend


def validator_of(schema: Any, *, formats: bool = False) -> Any:
    """A validator that never follows remote `$ref`s. `formats`: check them too, as those of arguments are."""
    return _Validator(schema, format_checker=FORMATS if formats else None, _resolver=LazyResolver(schema))


class ArgumentCheck:
    """Checks arguments of one tool. Remote `$ref`s are never followed: the registry is empty.

    Args:
        definition: the tool.
        known: the valid schemas so far, by `id`; tools that share parts of their schemas are checked sooner with it.

    Raises:
        InputError: the tool's schema is not a valid JSON Schema (2020-12).
    """

    def __init__(self, definition: ToolDefinition, known: dict[int, Any] | None = None) -> None:
        self._name = definition.name
        # Imports, which give `known`, have bounds of their own, and share parts that are not to be counted each time.
        count, key, length = count_values(definition.parameters, VALUES_LIMIT if known is None else 0)
        if known is None and count > VALUES_LIMIT:
            what = f"its schema has over {VALUES_LIMIT:,} values, too many to check every call against"
            remedy = f"shorten {key!r:.80} ({length:,} values), or split the tool"
            raise InputError(f"tool {definition.name}: {what}; {remedy}")
        try:
            _check_schema(definition.parameters, {} if known is None else known)
        except ValidationError as error:
            place = f" at {'/'.join(map(str, ['', *error.path]))}" if error.path else ""
            raise InputError(f"tool {definition.name}: its schema is not valid{place}: {error.message:.200}") from None
        except Unresolvable as error:
            why = f"its schema refers to {error.ref!r:.200}, which is not in it"
            raise InputError(f"tool {definition.name}: {why}") from None
        self._schema = definition.parameters
        self._properties: dict[str, Any] = dict(definition.parameters.get("properties", {}))  # type: ignore[arg-type]
        self._validator = validator_of(definition.parameters, formats=True)

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


def count_values(value: Any, limit: int) -> tuple[int, str, int]:
    """How many values a value holds, counted up to `limit`; the key of the largest among them, and its length."""
    waiting, count, largest = [("the schema", value)], 0, ("", 0)
    while waiting and count <= limit:
        key, value = waiting.pop()
        count += 1
        if isinstance(value, dict | list):
            largest = max(largest, (key, len(value)), key=lambda part: part[1])
            waiting += value.items() if isinstance(value, dict) else [(key, item) for item in value]
    return count, *largest


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


# Keyword -> validator of its value, without the schemas inside. jsonschema's `check_schema` takes many times as long,
# and walks a part that is shared each time.
_KEYWORDS: dict[str, Any] = {}
_REGEXES = FormatChecker(())
_REGEXES.checks("regex")(compiles)
for _name in ("core", "applicator", "unevaluated", "validation", "meta-data", "content", "format-annotation"):
    _text = json.dumps(REGISTRY.contents(f"https://json-schema.org/draft/2020-12/meta/{_name}"))
    _whole = json.loads(_text.replace('{"$dynamicRef": "#meta"}', "true").replace(', "items": true', ""))
    _checker = _Validator(_whole, format_checker=_REGEXES, _resolver=LazyResolver(_whole))
    _KEYWORDS |= {key: _checker.evolve(schema) for key, schema in _whole["properties"].items() if schema is not True}


def _faults(schema: Any) -> Iterator[ValidationError]:
    """What is wrong with a schema, without those inside it."""
    yield from _type(None, ["object", "boolean"], schema, None)
    for key, value in schema.items() if isinstance(schema, dict) else ():
        usual = key == "type" and isinstance(value, str) and value in TYPES
        for error in _KEYWORDS[key].iter_errors(value) if key in _KEYWORDS and not usual else ():
            error.path.appendleft(key)
            yield error


def _check_schema(schema: Any, known: dict[int, Any]) -> None:
    """Check a schema and all schemas inside it, and that every `$ref` has a target inside it."""
    resolver = LazyResolver(schema)
    waiting: list[tuple[Any, Any]] = [(None, schema)]
    references: list[tuple[Any, Any]] = []  # to be resolved when the schemas that they may lead to are valid
    while waiting or references:
        if not waiting:
            place, reference = references.pop()
            waiting.append((place, resolver.lookup(reference).contents))
        place, node = waiting.pop()
        if id(node) in known:
            continue
        for error in _faults(node):
            while place:
                place, key = place
                error.path.appendleft(key)
            raise error
        known[id(node)] = node
        for key, value in node.items() if isinstance(node, dict) else ():
            if key in _NAMED and isinstance(value, dict):
                waiting += [(((place, key), name), inner) for name, inner in value.items() if id(inner) not in known]
            elif key in _LISTS:
                waiting += [(((place, key), index), inner) for index, inner in enumerate(value)]
            elif key in _SINGLES:
                waiting.append(((place, key), value))
            elif key in {"$ref", "$dynamicRef"}:
                references.append(((place, key), value))
