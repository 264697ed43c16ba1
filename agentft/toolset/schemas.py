"""Schemas of other people's files made into plain, bounded JSON Schemas (2020-12) without a `$ref`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from agentft.types import Json

__all__ = ["Find", "Schema", "describe", "expand", "fits", "merge", "nullable"]

Schema: TypeAlias = dict[str, Any]
Find: TypeAlias = Callable[[str, str], tuple[Json, str]]  # (`$ref`, its document) -> (what it names, that document)

_NODES = 400  # schemas inside one schema; a larger one is cut at fewer `$ref`s
_DEPTHS = (8, 5, 3, 2, 1, 0)  # `$ref`s followed inside one another
_NESTED = 40
_ALIASES = {"file": "string", "date": "string", "datetime": "string", "int": "integer", "long": "integer"} | {
    "float": "number", "double": "number", "decimal": "number", "bool": "boolean", "map": "object",
}  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_LOWS = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_HIGHS = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_NOTES = frozenset({"description", "default", "examples", "format"})  # the first one is kept in a merge
_CHOICES = ("allOf", "anyOf", "oneOf", "prefixItems")


class _TooLargeError(Exception):
    """The schema has more than `_NODES` schemas inside."""


def describe(text: object, limit: int = 300) -> str:
    """A description on one line, without HTML, of at most `limit` characters; "" for what is no text."""
    plain = re.sub(r"<[^<>]{1,200}>", " ", text[:4000]) if isinstance(text, str) else ""
    line = " ".join("".join(char if char.isprintable() else " " for char in plain).split())
    return line if len(line) <= limit else f"{line[: limit - 3].rstrip()}..."


def fits(value: object, kind: str) -> bool:
    """Whether a JSON value is of a JSON Schema type."""
    if isinstance(value, bool):
        return kind == "boolean"
    whole = kind == "integer" and isinstance(value, float) and value.is_integer()
    return whole or isinstance(value, _TYPES[kind])


def expand(schema: Json, find: Find, base: str = "", hidden: str = "") -> Schema:
    """`schema` with its `$ref`s written out and everything dropped or mended that JSON Schema does not know.

    A cycle is cut where it closes, and a schema that is too large at fewer references: there stands {}, which takes
    anything. OpenAPI's `nullable`, `example` and boolean `exclusiveMinimum` become their JSON Schema forms.

    Args:
        schema: any schema of OpenAPI 2 or 3 or JSON Schema.
        find: looks a `$ref` up.
        base: the document that `schema` stands in, for `find`.
        hidden: `readOnly` or `writeOnly`: properties with this mark are left out.

    Raises:
        InputError: from `find`.
    """
    for depth in _DEPTHS:
        try:
            return _Walk(find, hidden, depth, last=False).node(schema, base, (), 0)
        except _TooLargeError:
            continue
    return _Walk(find, hidden, 0, last=True).node(schema, base, (), 0)


class _Walk:
    def __init__(self, find: Find, hidden: str, depth: int, *, last: bool) -> None:
        self._find, self._hidden, self._depth, self._last = find, hidden, depth, last
        self._count = 0

    def node(self, schema: Json, base: str, trail: tuple[tuple[str, str], ...], nested: int) -> Schema:
        """One schema; `trail` is the references that led here."""
        self._count += 1
        if self._count > _NODES and not self._last:
            raise _TooLargeError
        if self._count > _NODES or nested > _NESTED or not isinstance(schema, dict):
            return {"not": {}} if schema is False else {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if (base, reference) in trail or len(trail) >= self._depth:
                return {}
            target, home = self._find(reference, base)
            named = self.node(target, home, (*trail, (base, reference)), nested + 1)
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            return merge([self._plain(beside, base, trail, nested), named]) if beside else named
        return self._plain(schema, base, trail, nested)

    def _plain(self, schema: Schema, base: str, trail: tuple[tuple[str, str], ...], nested: int) -> Schema:
        def inner(value: Json) -> Schema:
            return self.node(value, base, trail, nested + 1)

        made = _own_keywords(schema)
        properties = schema.get("properties")
        if isinstance(properties, dict):
            shown = {name: value for name, value in properties.items() if not self._is_hidden(value)}
            made["properties"] = {name: inner(value) for name, value in shown.items()}
            gone = properties.keys() - shown.keys()
            made["required"] = [name for name in made.get("required", []) if name not in gone]
        if not made.get("required", True):
            del made["required"]
        if isinstance(items := schema.get("items"), dict | bool):
            made["items"] = inner(items)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict) or (extra is False and "patternProperties" not in schema):
            made["additionalProperties"] = extra if isinstance(extra, bool) else inner(extra)
        for key in _CHOICES:
            if isinstance(options := schema.get(key), list) and options:
                made[key] = [inner(option) for option in options]
        if isinstance(unwanted := schema.get("not"), dict):
            made["not"] = inner(unwanted)
        if parts := made.pop("allOf", None):
            made = merge([made, *parts])
        return nullable(made) if schema.get("nullable") is True or schema.get("x-nullable") is True else made

    def _is_hidden(self, value: Json) -> bool:
        return isinstance(value, dict) and bool(self._hidden) and value.get(self._hidden) is True


def _own_keywords(schema: Schema) -> Schema:
    """The keywords without schemas inside, each only if it means something."""
    made: Schema = {}
    types = schema.get("type")
    listed = types if isinstance(types, list) else [types]
    named = [_ALIASES.get(name, name) for name in listed if isinstance(name, str)]
    if known := list(dict.fromkeys(name for name in named if name in _TYPES)):
        made["type"] = known[0] if len(known) == 1 else known
    if description := describe(schema.get("description")):
        made["description"] = description
    for key in (*_LOWS, *_HIGHS, "multipleOf"):
        value = schema.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            counted = key.endswith(("Length", "Items", "Properties"))
            if not (counted and (value < 0 or not isinstance(value, int))) and not (key == "multipleOf" and value <= 0):
                made[key] = value
    for side in ("Minimum", "Maximum"):
        if schema.get(f"exclusive{side}") is True and side.lower() in made:
            made[f"exclusive{side}"] = made.pop(side.lower())
    if isinstance(pattern := schema.get("pattern"), str) and _compiles(pattern):
        made["pattern"] = pattern
    for key, kind in (("format", str), ("uniqueItems", bool)):
        if isinstance(schema.get(key), kind):
            made[key] = schema[key]
    if isinstance(required := schema.get("required"), list):
        made["required"] = list(dict.fromkeys(name for name in required if _is_text(name)))
    examples = schema.get("examples")
    examples = [schema["example"]] if "example" in schema else examples if isinstance(examples, list) else []
    made |= {"examples": examples[:5]} if examples else {}
    made |= {key: schema[key] for key in ("const", "default") if key in schema}
    return _with_choices(made, schema.get("enum"))


def _with_choices(made: Schema, values: Json) -> Schema:
    """With an `enum` that the type allows; where it allows none of the values, the values are right, not the type."""
    if not isinstance(values, list) or not values:
        return made
    types = made.get("type", list(_TYPES))
    right = [value for value in values if any(fits(value, kind) for kind in ([types] if _is_text(types) else types))]
    if not right:
        made.pop("type")
    return made | {"enum": right or values}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _compiles(pattern: str) -> bool:
    """Whether it is a pattern here too: `\\p{L}` and others of ECMAScript are none in Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError, Warning):
        return False
    return len(pattern) <= 1000


def nullable(schema: Schema) -> Schema:
    """The schema that takes null too."""
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]} if schema.keys() - _NOTES else schema
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    made = schema | {"type": list(dict.fromkeys([*types, "null"]))}
    return made | {"enum": [*made["enum"], None]} if None not in made.get("enum", [None]) else made


def merge(parts: Sequence[Mapping[str, Any]]) -> Schema:
    """One schema that says what all of `parts` say. What keywords cannot say together stays in an `allOf`.

    `additionalProperties: false` in one part speaks of the properties of all parts: so it is meant where it is written.
    """
    made: Schema = {}
    rest: list[Schema] = []
    for part in parts:
        for key, value in part.items():
            if key == "allOf":
                rest += value
            elif key not in made:
                made[key] = dict(value) if key == "properties" else value
            elif made[key] != value and key not in _NOTES and not _join(made, key, value):
                rest.append({key: value})
    return made | {"allOf": rest} if rest else made


def _join(made: Schema, key: str, value: Any) -> bool:
    old = made[key]
    if key == "properties":
        for name, schema in value.items():
            old[name] = merge([old[name], schema]) if name in old and old[name] != schema else schema
    elif key == "required":
        made[key] = list(dict.fromkeys([*old, *value]))
    elif key in _LOWS or key in _HIGHS:
        made[key] = max(old, value) if key in _LOWS else min(old, value)
    elif key == "enum":
        made[key] = [item for item in old if item in value]
    elif key == "type":
        sides = [{item} if isinstance(item, str) else set(item) for item in (old, value)]
        sides = [side | {"integer"} if "number" in side else side for side in sides]
        both = [name for name in _TYPES if name in sides[0] & sides[1]]
        both = [name for name in both if name != "integer" or "number" not in both]
        if not both:
            return False
        made[key] = both[0] if len(both) == 1 else both
    elif key == "additionalProperties" and isinstance(old, bool) and isinstance(value, bool):
        made[key] = old and value
    else:
        return False
    return True
