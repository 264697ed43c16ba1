"""Draws seeded values that satisfy a JSON Schema. Schemas come from `expand`: bounded, without `$ref`s."""

from __future__ import annotations

import importlib
import math
import re
import string
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cached_property
from random import Random
from typing import Any
from uuid import UUID

from agentft.errors import InputError
from agentft.strict import own_table
from agentft.toolset.arguments import TYPES, validator_of
from agentft.toolset.patterns import python_pattern
from agentft.toolset.schemas import Schema, merge
from agentft.types import Json

__all__ = ["UnsatisfiableError", "draw"]

_TRIES = 12
_NODES = 250  # values in one answer; after that, only required ones
_MOST = 5000  # hard limit of values in one answer, and of characters in a text
_DEEP = 24
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "juniper", "lumen", "maple")
_NAMES = ("Ada Jensen", "Bo Lindqvist", "Chen Wei", "Dana Okafor", "Elif Kaya", "Farid Haddad", "Grace Moreau")
_CHARACTERS = string.ascii_letters + string.digits + "-_" + string.punctuation + " "
# A schema's format, or the end of a property's name -> template of a text.
_TEXTS = own_table(__file__, str)


class UnsatisfiableError(InputError):
    """No value was found that satisfies the schema."""


def draw(
    schema: Schema,
    seed: str,
    echo: Mapping[str, Json] | None = None,
    *,
    whole: Mapping[str, Json] | None = None,
    sparse: bool = False,
    formats: bool = False,
) -> Json:
    """A value that satisfies `schema`; the same arguments always give the same value.

    Values come from the schema's examples, default or enum if it has them, and are generated otherwise. Keywords such
    as `not` and `contains` are only checked afterwards, so that a satisfiable schema may fail in all `_TRIES` attempts.

    Args:
        schema: the expanded schema.
        seed: any text.
        echo: values for properties with these names, used if the schema allows them.
        whole: the schema before it was expanded, which the value must satisfy.
        sparse: leave out optional properties, unless the value then satisfies nothing.
        formats: use only listed values that satisfy their `format`, as arguments must; in an answer, the example of a
            description counts more than its format.

    Raises:
        UnsatisfiableError: no value was found.
    """
    validator = validator_of(whole or schema)
    reason = "no value that was drawn satisfies it"
    for attempt in range(_TRIES):
        few = sparse and attempt < _TRIES // 2
        # Empty lists come last: a URL cannot have one.
        items = (1, 3) if not few else (1, 1) if attempt < _TRIES // 4 else (0, 0)
        try:
            value = _Draw(f"{seed}/{attempt}", echo or {}, items, sparse=few, formats=formats).value(schema, "", 0)
        except (UnsatisfiableError, OverflowError) as error:
            reason = str(error)
            continue
        with suppress(RecursionError):
            if validator.is_valid(value):
                return value
    raise UnsatisfiableError(f"its schema cannot be satisfied: {reason}")


class _Draw:
    def __init__(
        self, seed: str, echo: Mapping[str, Json], items: tuple[int, int], *, sparse: bool, formats: bool
    ) -> None:
        self._seed, self._echo, self._items, self._sparse, self._formats = seed, echo, items, sparse, formats
        self._count = self._checks = 0

    @cached_property
    def _random(self) -> Random:
        return Random(self._seed)

    def value(self, schema: Json, name: str, depth: int) -> Json:
        """A value; `name`: the property's name, a hint at its content."""
        self._count += 1
        if schema is True or schema == {}:
            return self._random.choice(_WORDS)
        if not isinstance(schema, dict) or depth > _DEEP or self._count > _MOST:
            raise UnsatisfiableError("the schema allows no value here, or is nested too deeply")
        if listed := _listed_values(schema, formats=self._formats):
            return self._echoed(self._random.choice(listed), schema)
        for key in ("oneOf", "anyOf"):
            if key in schema:
                return self._choose(schema, key, name, depth)
        types = schema.get("type") or next((kind for kind, keys in _KEYWORDS.items() if keys & schema.keys()), "string")
        kinds = types if isinstance(types, list) else [types]
        kind = next((kind for kind in kinds if kind != "null"), "null")
        match kind:
            case "object":
                return self._echoed(self._object(schema, depth), schema)
            case "array":
                return self._array(schema, name, depth)
            case "string":
                return _text(self._random, schema, name)
            case "boolean":
                return self._random.random() < 0.5
        return None if kind == "null" else _number(self._random, schema, kind == "integer")

    def _choose(self, schema: Schema, key: str, name: str, depth: int) -> Json:
        # Its own examples and default are not values of it, else one of them would have been taken.
        rest = {other: value for other, value in schema.items() if other not in {key, "examples", "default"}}
        options = self._random.sample(schema[key], len(schema[key]))
        for option in sorted(options, key=lambda option: option == {"type": "null"}):
            self._checks += len(options)  # each value is checked against all of them
            if self._checks > _MOST:
                break
            try:
                value = self.value(merge([rest, option]), name, depth + 1)
            except UnsatisfiableError:
                continue
            if validator_of(schema).is_valid(value):
                return value
        raise UnsatisfiableError(f"none of {key} can be met")

    def _object(self, schema: Schema, depth: int) -> dict[str, Json]:
        required, properties = schema.get("required", []), schema.get("properties", {})
        made: dict[str, Json] = {}
        for name, inner in properties.items():
            wanted = not self._sparse and self._count < _NODES and depth < 6 and bool(inner)
            try:
                if name in required or wanted:
                    made[name] = self.value(inner, name, depth + 1)
            except UnsatisfiableError as error:
                if name in required:
                    raise UnsatisfiableError(f"{name}: {error}") from None
        extra = schema.get("additionalProperties", True)
        names = [name for name in required if name not in made]
        some = 2 if isinstance(extra, dict) and not properties and not self._sparse else 0
        least = max(schema.get("minProperties", 0), min(some, schema.get("maxProperties", some)))
        names += [
            f"{self._random.choice(_WORDS)}{index}" for index in range(min(least - len(made) - len(names), _MOST))
        ]
        return made | {name: self.value(extra, name, depth + 1) for name in names}

    def _array(self, schema: Schema, name: str, depth: int) -> list[Json]:
        first, items = schema.get("prefixItems", []), schema.get("items", {})
        echo, self._echo = self._echo, {}  # the items of a list must not all echo the same argument
        if schema.get("minItems", 0) > _MOST:
            raise UnsatisfiableError(f"a list of {schema['minItems']} items is too long")
        small = self._count > _NODES or depth > 5 or items in ({}, False)
        count = max(schema.get("minItems", 0), len(first), 0 if small else self._random.randint(*self._items))
        made: list[Json] = []
        for index in range(min(count, schema.get("maxItems", count))):
            for _ in range(_TRIES):
                value = self.value(first[index] if index < len(first) else items, name, depth + 1)
                if not schema.get("uniqueItems") or value not in made:
                    made.append(value)
                    break
        self._echo = echo
        return made

    def _echoed(self, value: Json, schema: Schema) -> Json:
        if not isinstance(value, dict):
            return value
        properties = schema.get("properties", {})
        for name in value.keys() & self._echo.keys() & properties.keys():
            known = self._echo[name]
            if not isinstance(known, dict | list) and validator_of(properties[name]).is_valid(known):
                value = value | {name: known}
        return value


def _listed_values(schema: Schema, *, formats: bool) -> list[Json]:
    """The valid values of the first of `const`, `examples`, `default` and `enum` that has any."""
    for key in ("const", "examples", "default", "enum"):
        values = schema.get(key, []) if key in {"examples", "enum"} else [schema[key]] if key in schema else []
        known = [value for value in values if value is not None or key in {"const", "enum"}]
        if not known:
            continue
        others = {other: schema[other] for other in schema if other != key or key != "enum"}  # they are of the enum
        if right := [*filter(validator_of(others, formats=formats).is_valid, known)]:
            return right
    return []


_KEYWORDS = {
    "object": {"properties", "additionalProperties", "required", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}


def _number(random: Random, schema: Schema, whole: bool) -> int | float:
    whole = whole or TYPES["integer"](schema.get("multipleOf"))
    step = schema.get("multipleOf", 1 if whole else 0.01)
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + step)
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - step)
    if low == -math.inf:
        low = min(1, high - 1000 * step)
    high = min(high, low + 1000 * step)
    first, last = math.ceil(low / step), math.floor(high / step)
    if first <= last:
        value = random.randint(first, last) * step
        return int(value) if whole else round(float(value), 6)
    if whole or low > high:
        raise UnsatisfiableError("its bounds leave no number")
    return float(random.uniform(low, high))


def _text(random: Random, schema: Schema, name: str) -> str:
    low = schema.get("minLength", 0)
    if low > _MOST:
        raise UnsatisfiableError(f"a text of {low} characters is too long")
    kind = schema.get("format")
    if "pattern" in schema:
        text = _formatted(random, kind, low, schema) if kind in _TEXTS else ""
        return text if text and validator_of(schema).is_valid(text) else _patterned(random, schema, low)
    if kind not in _TEXTS:
        kind = next(kind for kind in _TEXTS if name.lower().endswith(kind))
    return _formatted(random, kind, low, schema)


def _formatted(random: Random, kind: str, low: int, schema: Schema) -> str:
    word, other = random.sample(_WORDS, 2)
    moment = datetime(2025, 1, 1) + timedelta(seconds=random.randrange(365 * 86400))
    facts = {"moment": moment, "uuid": str(UUID(int=random.getrandbits(128), version=4)), "name": random.choice(_NAMES)}
    text = _TEXTS[kind].format(word=word, other=other, number=random.randint(10, 99), **facts)
    text += "".join(random.choices(_CHARACTERS[:26], k=max(0, low - len(text))))
    return text[: schema.get("maxLength", _MOST)]


def _patterned(random: Random, schema: Schema, low: int) -> str:
    try:
        # The standard library's pattern parser is private, so it may be missing in a future version.
        parsed = importlib.import_module("re._parser").parse(python_pattern(schema["pattern"], simple=True))
        own = validator_of({key: schema[key] for key in ("pattern", "minLength", "maxLength") if key in schema})
        for spread in (6, 0, 20, 2 * low, 4 * low):
            text = "".join(_matching(random, parsed, min(spread, _MOST)))
            for fitted in (text, text[: schema.get("maxLength")], text.ljust(low, text[-1:] or "a")):
                if own.is_valid(fitted):
                    return fitted
    except (ImportError, AttributeError, re.error, RecursionError, OverflowError):
        raise UnsatisfiableError(f"the pattern {schema['pattern']!r:.60} cannot be followed") from None
    raise UnsatisfiableError(f"no text was found for the pattern {schema['pattern']!r:.60}")


def _matching(random: Random, parsed: Any, spread: int) -> Iterator[str]:
    """Pieces of a text that matches a pattern; repeats occur up to `spread` times more often than they must.

    Look-arounds and back references are ignored.
    """
    for operation, value in parsed:
        match str(operation):
            case "LITERAL":
                yield chr(value)
            case "ANY" | "NOT_LITERAL" | "IN":
                single = type(parsed)(parsed.state, [(operation, value)])
                is_allowed = importlib.import_module("re._compiler").compile(single).match
                ends = [end for _, end in value or []] if str(operation) == "IN" else []
                named = [chr(end if isinstance(end, int) else end[0]) for end in ends if isinstance(end, int | tuple)]
                allowed = [char for char in (*_CHARACTERS, *named) if is_allowed(char)]
                yield random.choice(allowed[:26] or ["a"])  # letters, if they are allowed
            case "BRANCH":
                yield from _matching(random, random.choice(value[1]), spread)
            case "SUBPATTERN":
                yield from _matching(random, value[-1], spread)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                low, high, inner = value
                for _ in range(random.randint(min(low, _MOST), min(int(high), low + spread, _MOST))):
                    yield from _matching(random, inner, spread)
