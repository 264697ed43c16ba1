"""Turns foreign schemas (OpenAPI, MCP) into plain, bounded JSON Schemas (2020-12) without `$ref`s."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from agentft.errors import InputError
from agentft.strict import own_table
from agentft.toolset.arguments import INERT, TYPES, count_values, hashable, validator_of
from agentft.toolset.patterns import compiles
from agentft.toolset.references import References
from agentft.types import Json

__all__ = ["BESIDE", "Schema", "expand", "is_cut", "merge", "nullable", "plain_line"]

Schema: TypeAlias = dict[str, Any]

BESIDE = " beside a $ref"
_NODES = 400  # schemas inside one schema; for a larger one, fewer nested `$ref`s are followed
_DEPTHS = (8, 5, 3, 2, 1, 0)  # nested `$ref`s to follow, tried in this order
_NESTED = 40
_SHORT = 60  # values inside a schema that is only expanded once, however often it occurs
_ALIASES = own_table(__file__, str)
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_COUNTS = tuple(f"{end}{what}" for end in ("min", "max") for what in ("Length", "Items", "Properties"))
_NOTES = frozenset({"description", "default", "examples", "format"})  # the first one is kept in a merge
_CHOICES = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLES = ("items", "additionalProperties", "not", "propertyNames", "unevaluatedItems", "unevaluatedProperties")
_NAMED = ("patternProperties", "dependentSchemas")
# Keywords that only mean something together, so that they stay together in an `allOf` when schemas are merged.
_GROUPS = (("if", "then", "else"), ("contains", "minContains", "maxContains"))
# Keywords without a meaning for values. All others that are not kept are reported in `References.dropped`.
_SILENT = frozenset({"title", "description", "format", "example", "deprecated", "readOnly", "writeOnly", "nullable"})
_SILENT |= {"xml", "externalDocs", "discriminator", "$schema", "$id", "id", "$comment", "$defs", "definitions"}
_SILENT |= {"$anchor", "$dynamicAnchor", "$ref", "$dynamicRef", "$vocabulary", "contentSchema"}
_HTML = re.compile(
    r"</?(?:a|abbr|b|blockquote|br|code|dd|div|dl|dt|em|h[1-6]|hr|i|img|kbd|li|ol|p|pre|s|small|span|strong|sub|sup|table"
    r"|tbody|td|th|thead|tr|tt|u|ul|var|note|para|important|title)(?:\s[^<>]{0,200})?/?>|<!--[^<>]{0,200}-->",
    re.IGNORECASE,
)


class _TooLargeError(Exception):
    """The schema has more than `_NODES` schemas inside."""


def plain_line(text: object, limit: int = 300) -> str:
    """A description on one line, without HTML, of at most `limit` characters; "" if it is not text."""
    line = _one_line(text)
    return line if len(line) <= limit else f"{line[: limit - 3].rstrip()}..."


def is_cut(text: object, limit: int = 300) -> bool:
    """Whether `plain_line` leaves out the end of a text."""
    return len(_one_line(text)) > limit


def _one_line(text: object) -> str:
    plain = _HTML.sub(" ", text[:100_000]) if isinstance(text, str) else ""
    return " ".join("".join(char if char.isprintable() else " " for char in plain).split())


def expand(schema: Json, references: References | None = None, base: str = "", hidden: str = "") -> Schema:
    """`schema` with its `$ref`s replaced by their targets, and without keywords that JSON Schema does not have.

    A reference that closes a cycle, or is nested too deeply in a large schema, becomes {}, which accepts anything, and
    is added to `references.cut`, and a keyword that is left out to `references.dropped`, as is one with `BESIDE` that
    stands beside a `$ref`, and is kept. OpenAPI's `nullable`,
    `example`, `discriminator` and boolean `exclusiveMinimum` become their JSON Schema forms.

    Equal schemas may give the same object, so it must not be changed.

    Args:
        schema: any schema of OpenAPI 2 or 3 or JSON Schema.
        references: resolves the `$ref`s; None: they refer to `schema` itself.
        base: the address of the document that contains `schema`.
        hidden: `readOnly` or `writeOnly`: properties marked so are left out.

    Raises:
        InputError: a `$ref` without a target, or to a document that must not be read.
    """
    if references is None:
        references = References(schema if isinstance(schema, dict) else {})
    # Many operations share a large schema, each through a short one that refers to it, or with what holds it.
    key = (str(schema) if count_values(schema, _SHORT)[0] <= _SHORT else id(schema), base, hidden)
    if key not in references.expanded:
        references.expanded[key] = (*_walk(schema, references, base, hidden), schema)
    made, cut, dropped, _ = references.expanded[key]
    if isinstance(made, str):
        raise InputError(made)
    references.cut |= cut
    references.dropped |= dropped
    return made


def _walk(schema: Json, references: References, base: str, hidden: str) -> tuple[Schema | str, set[str], set[str]]:
    """The expanded schema, or why it has none; what was cut and dropped."""
    for depth in _DEPTHS:
        walk = _Walk(references, hidden, depth, last=depth == _DEPTHS[-1])
        try:
            made = walk.node(schema, base, (), 0)
            break
        except _TooLargeError:
            continue
        except InputError as error:
            return str(error), set(), set()
    return _without(made, hidden) if hidden in walk.dropped else made, walk.cut, walk.dropped - {hidden}


def _without(schema: Any, hidden: str) -> Any:
    """A schema without the properties that are marked `hidden`; another part of it may say so, or require them."""
    if isinstance(schema, list):
        return [_without(item, hidden) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made: Schema = {}
    for key, value in schema.items():
        if key in {"properties", *_NAMED}:
            made[key] = {name: _without(inner, hidden) for name, inner in value.items()}
        elif key != hidden:
            made[key] = value if key in {*INERT, "dependentRequired"} else _without(value, hidden)
    gone = {name for name, value in schema.get("properties", {}).items() if value.get(hidden) is True}
    for name in gone:
        del made["properties"][name]
    if gone & {*made.get("required", ())}:
        made["required"] = [name for name in made["required"] if name not in gone]
    return {key: value for key, value in made.items() if key != "required" or value}


class _Walk:
    def __init__(self, references: References, hidden: str, depth: int, *, last: bool, count: int = 0) -> None:
        self._references, self._hidden, self._depth, self._last = references, hidden, depth, last
        self.count = count
        self.cut: set[str] = set()
        self.dropped: set[str] = set()

    def node(self, schema: Json, base: str, trail: tuple[tuple[str, str], ...], nested: int) -> Schema:
        """One schema; `trail`: the references that led here."""
        self.count += 1
        if self.count > _NODES and not self._last:
            raise _TooLargeError
        if self.count > _NODES or nested > _NESTED or not isinstance(schema, dict):
            self.cut |= {"a part of it"} if schema and isinstance(schema, dict) else set()
            return {"not": {}} if schema is False else {}
        base = self._references.base(schema, base) if "$id" in schema else base
        reference = schema.get("$ref", schema.get("$dynamicRef"))
        if isinstance(reference, str):
            if (base, reference) in trail or len(trail) >= self._depth:
                self.cut.add(reference)
                return {}
            named = self._target(reference, base, trail, nested)
            beside = {key: value for key, value in schema.items() if key not in {"$ref", "$dynamicRef"}}
            telling = beside.keys() - _SILENT | beside.keys() & {"nullable", "readOnly", "writeOnly"}
            self.dropped |= {f"{key}{BESIDE}" for key in telling if not key.startswith("x-")}
            made = merge([self._plain(beside, base, trail, nested), named]) if beside else named
        else:
            made = self._plain(schema, base, trail, nested)
        made = nullable(made) if True in (schema.get("nullable"), schema.get("x-nullable")) else made
        if schema.get(self._hidden) is not True:
            return made
        self.dropped.add(self._hidden)
        return made | {self._hidden: True}

    def _target(self, reference: str, base: str, trail: tuple[tuple[str, str], ...], nested: int) -> Schema:
        """What a reference leads to. Of several walks, the first one in which nothing is cut is kept for the others."""
        key, room = (base, reference, self._hidden), self._depth - len(trail)
        found = self._references.whole.get(key)
        if found is None or room < found[3] or nested > found[4]:
            walk = _Walk(self._references, self._hidden, self._depth, last=self._last, count=self.count)
            target, home = self._references.find(reference, base)
            made = walk.node(target, home, (*trail, (base, reference)), nested + 1)
            found = made, walk.count - self.count, walk.dropped, room, nested
            if not walk.cut:
                self._references.whole[key] = found
            self.cut |= walk.cut
        self.dropped |= found[2]
        self.count += found[1]
        if self.count > _NODES and not self._last:
            raise _TooLargeError
        return found[0]

    def _plain(self, schema: Schema, base: str, trail: tuple[tuple[str, str], ...], nested: int) -> Schema:
        def inner(value: Json) -> Schema:
            return self.node(value, base, trail, nested + 1)

        made = _own_keywords(schema)
        groups = [
            {key: schema[key] if type(schema[key]) is int else inner(schema[key]) for key in group if key in schema}
            for group in _GROUPS
            if group[0] in schema
        ]
        properties, required = schema.get("properties"), schema.get("required")
        if isinstance(properties, dict):
            made["properties"] = {name: inner(value) for name, value in properties.items()}
        if needed := [name for name in (required if isinstance(required, list) else []) if isinstance(name, str)]:
            made["required"] = list(dict.fromkeys(needed))
        for key in _SINGLES:
            if isinstance(schema.get(key), dict) or (schema.get(key) is False and key != "not"):
                made[key] = inner(schema[key]) if schema[key] is not False else False
        for key in _NAMED:
            if isinstance(named := schema.get(key), dict):
                kept = {name: value for name, value in named.items() if key != "patternProperties" or _compiles(name)}
                if len(kept) < len(named):
                    self.dropped.add(key)
                    made.pop("additionalProperties", None)
                made[key] = {name: inner(value) for name, value in kept.items()}
        for key in _CHOICES:
            if isinstance(options := schema.get(key), list) and options:
                made[key] = [inner(option) for option in options]
        self._tell_arms(schema, made)
        self.dropped |= _left_out(schema, made)
        parts = [*made.pop("allOf", []), *({"allOf": [group]} for group in groups)]
        return merge([made, *parts]) if parts else made

    def _tell_arms(self, schema: Schema, made: Schema) -> None:
        """Let each alternative of a discriminated choice require its own name in the discriminating property."""
        found = schema.get("discriminator")
        name = found.get("propertyName") if isinstance(found, dict) else found
        key = next((key for key in ("oneOf", "anyOf") if key in made), None)
        if not isinstance(name, str) or key is None:
            self.dropped |= {"discriminator"} if found is not None else set()
            return
        mapping = found.get("mapping") if isinstance(found, dict) else None
        named: dict[str, list[str]] = {}  # target -> the names of it
        for value, target in mapping.items() if isinstance(mapping, dict) else ():
            named.setdefault(str(target), []).append(value)
        for index, option in enumerate(schema[key]):
            reference = option.get("$ref") if isinstance(option, dict) else None
            if isinstance(reference, str):
                own = reference.rpartition("/")[2]
                names = named.get(reference, []) + (named.get(own, []) if own != reference else []) or [own]
                made[key][index] = _named_arm(made[key][index], name, names)


def _named_arm(arm: Schema, name: str, values: list[str]) -> Schema:
    """The alternative with `name` required to be one of `values`, unless it says itself what `name` must be."""
    told = arm.get("properties", {}).get(name, {})
    own = [told["const"]] if "const" in told else told.get("enum", values)
    if any(value in own for value in values):
        return merge([arm, {"properties": {name: {"enum": values}}, "required": [name]}])
    return merge([arm, {"required": [name]}])


def _left_out(schema: Schema, made: Schema) -> set[str]:
    """The keywords of a schema that were not kept, with a description that is cut."""
    known = _SILENT | {key for group in _GROUPS for key in group}
    left = {key for key in schema if key not in made and key not in known and not key.startswith("x-")}
    left -= {key for key in ("required", "properties", *_CHOICES) if schema.get(key) in ([], {}, False, None)}
    left -= {
        key for key in left if schema[key] is None or (key in _SINGLES and key != "not" and schema[key] in (True, {}))
    }
    old = any(isinstance(schema.get(key), bool) for key in ("exclusiveMinimum", "exclusiveMaximum"))
    left -= {"exclusiveMinimum", "exclusiveMaximum", "minimum", "maximum"} if old else set()
    return left | ({"the end of a description"} if is_cut(schema.get("description")) else set())


def _own_keywords(schema: Schema) -> Schema:
    """The keywords that contain no schemas, if their values are valid."""
    made: Schema = {key: schema[key] for key, means in _MEANING.items() if key in schema and means(schema[key])}
    named = [_ALIASES.get(kind, kind) for kind in _listed(schema.get("type")) if isinstance(kind, str)]
    if known := list(dict.fromkeys(kind for kind in named if kind in TYPES)):
        made["type"] = known[0] if len(known) == 1 else known
    if description := plain_line(schema.get("description")):
        made["description"] = description
    for side in ("Minimum", "Maximum"):
        if schema.get(f"exclusive{side}") is True and side.lower() in made:
            made[f"exclusive{side}"] = made.pop(side.lower())
    examples = schema.get("examples")
    examples = [schema["example"]] if "example" in schema else examples if isinstance(examples, list) else []
    made |= {"examples": examples[:5]} if examples else {}
    if isinstance(values := schema.get("enum"), list) and values:
        right = [value for value in values if any(TYPES[kind](value) for kind in _listed(made.get("type", [*TYPES])))]
        if not right:  # trust the values rather than the type
            made.pop("type")
        made["enum"] = [*{json.dumps(value): value for value in right or values}.values()]
    return made


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _compiles(pattern: str) -> bool:
    return len(pattern) <= 1000 and compiles(pattern)


_NEEDS = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}
# Keywords that contain no schemas -> whether a value is valid.
_MEANING: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_BOUNDS, TYPES["number"]),
    **dict.fromkeys(_COUNTS, lambda value: type(value) is int and value >= 0),
    "multipleOf": lambda value: TYPES["number"](value) and value > 0,
    "pattern": lambda value: isinstance(value, str) and _compiles(value),
    "format": lambda value: isinstance(value, str),
    "uniqueItems": lambda value: isinstance(value, bool),
    "contentEncoding": lambda value: isinstance(value, str),
    "contentMediaType": lambda value: isinstance(value, str),
    "dependentRequired": lambda value: bool(validator_of(_NEEDS).is_valid(value)),
    "const": lambda _: True,
    "default": lambda _: True,
}


def nullable(schema: Schema) -> Schema:
    """The schema, which also accepts null."""
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]} if schema.keys() - _NOTES else schema
    made = schema | {"type": list(dict.fromkeys([*_listed(schema["type"]), "null"]))}
    return made | {"enum": [*made["enum"], None]} if None not in made.get("enum", [None]) else made


def merge(parts: Sequence[Mapping[str, Any]]) -> Schema:
    """One schema equivalent to `allOf` of the parts. Keywords that cannot be combined stay in an `allOf`.

    `additionalProperties: false` in one part applies to the properties of all parts, which is what authors mean by it.
    """
    made: Schema = {}
    rest: list[Schema] = []
    for part in parts:
        for key, value in part.items():
            if key == "allOf":
                rest += value
            elif key not in made:
                made[key] = dict(value) if key in {"properties", "patternProperties"} else value
            elif made[key] != value and key not in _NOTES and not _join(made, key, value):
                rest.append({key: value})
    return made | {"allOf": rest} if rest else made


def _join(made: Schema, key: str, value: Any) -> bool:
    old = made[key]
    if key in {"properties", "patternProperties"}:
        for name, schema in value.items():
            old[name] = merge([old[name], schema]) if name in old and old[name] != schema else schema
    elif key == "required":
        made[key] = list(dict.fromkeys([*old, *value]))
    elif key in _BOUNDS or key in _COUNTS:
        made[key] = max(old, value) if "min" in key.lower() else min(old, value)
    elif key == "enum":
        both = {*map(hashable, value)}
        made[key] = [item for item in old if hashable(item) in both]
    elif key == "type":
        sides = [{*_listed(side), *(["integer"] if "number" in _listed(side) else [])} for side in (old, value)]
        kinds = [kind for kind in TYPES if kind in sides[0] & sides[1]]
        kinds = [kind for kind in kinds if kind != "integer" or "number" not in kinds]
        if not kinds:
            return False
        made[key] = kinds[0] if len(kinds) == 1 else kinds
    elif key == "additionalProperties" and isinstance(old, bool) and isinstance(value, bool):
        made[key] = old and value
    else:
        return False
    return True
