"""Values that satisfy a JSON Schema, drawn from a seed. Schemas are as `expand` makes them: bounded, without `$ref`."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from referencing import Registry

from agentft.toolset.arguments import Validator
from agentft.toolset.schemas import Schema, fits, merge
from agentft.types import Json

__all__ = ["UnsatisfiableError", "draw"]

_TRIES = 12
_NODES = 250  # values in one answer; past them only what is required
_MOST = 5000  # values in one answer, required or not
_DEEP = 24
_LONGEST = 5000  # characters of a text
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "juniper", "lumen", "maple")
_NAMES = ("Ada Jensen", "Bo Lindqvist", "Chen Wei", "Dana Okafor", "Elif Kaya", "Farid Haddad", "Grace Moreau")
_CITIES = ("Lisbon", "Osaka", "Nairobi", "Quito", "Tallinn", "Pune", "Halifax")


class UnsatisfiableError(Exception):
    """No value was found that satisfies the schema."""


def draw(
    schema: Schema,
    seed: str,
    echo: Mapping[str, Json] | None = None,
    *,
    whole: Mapping[str, Json] | None = None,
    sparse: bool = False,
) -> Json:
    """A value that satisfies `schema`: always the same for the same arguments.

    A schema's own examples, default and enum come first. A pattern is followed as far as a plain walk along it goes;
    where that or `not`, `contains` and the like leave no luck in a dozen tries, there is no value.

    Args:
        schema: expanded.
        seed: any text.
        echo: a property with a name of these has the value given here, where its schema allows it.
        whole: the schema before it was expanded; the value satisfies this one.
        sparse: leave out what is not required.

    Raises:
        UnsatisfiableError: none was found.
    """
    validator = Validator(whole or schema, registry=Registry())
    reason = "no value that was drawn satisfies it"
    for attempt in range(_TRIES):
        try:
            value = _Draw(Random(f"{seed}/{attempt}"), echo or {}, sparse).value(schema, "", 0)
        except (UnsatisfiableError, OverflowError) as error:
            reason = str(error)
            continue
        if validator.is_valid(value):
            return value
    raise UnsatisfiableError(f"its schema cannot be satisfied: {reason}")


class _Draw:
    def __init__(self, random: Random, echo: Mapping[str, Json], sparse: bool) -> None:
        self.random, self._echo, self._sparse = random, echo, sparse
        self._count = 0

    def value(self, schema: Json, name: str, depth: int) -> Json:
        """A value; `name` is the property's name, which is a hint."""
        self._count += 1
        if schema is True or schema == {}:
            return self.random.choice(_WORDS)
        if not isinstance(schema, dict) or depth > _DEEP or self._count > _MOST:
            raise UnsatisfiableError("nothing is allowed here, or it is nested too deeply")
        if given := [schema["const"]] if "const" in schema else _given(schema):
            return self._echoed(self.random.choice(given), schema)
        for key in ("oneOf", "anyOf"):
            if key in schema:
                return self._choose(schema, key, name, depth)
        kind = self._kind(schema)
        if kind == "object":
            return self._echoed(self._object(schema, depth), schema)
        if kind == "array":
            return self._array(schema, name, depth)
        return _SCALARS[kind](self.random, schema | {"type": kind}, name)

    def _choose(self, schema: Schema, key: str, name: str, depth: int) -> Json:
        rest = {other: value for other, value in schema.items() if other != key}
        options = list(schema[key])
        self.random.shuffle(options)
        options.sort(key=lambda option: option == {"type": "null"})
        for option in options:
            try:
                value = self.value(merge([rest, option]), name, depth + 1)
            except UnsatisfiableError:
                continue
            if Validator(schema).is_valid(value):
                return value
        raise UnsatisfiableError(f"none of {key} can be met")

    def _kind(self, schema: Schema) -> str:
        types = schema.get("type")
        if isinstance(types, list):
            return str(next((kind for kind in types if kind != "null"), "null"))
        if isinstance(types, str):
            return types
        for kind, keys in _TELLING.items():
            if not keys.isdisjoint(schema):
                return kind
        return "string"

    def _object(self, schema: Schema, depth: int) -> dict[str, Json]:
        required = schema.get("required", [])
        made: dict[str, Json] = {}
        for name, inner in schema.get("properties", {}).items():
            wanted = not self._sparse and self._count < _NODES and depth < 6 and bool(inner)
            if name not in required and not wanted:
                continue
            try:
                made[name] = self.value(inner, name, depth + 1)
            except UnsatisfiableError as error:
                if name in required:
                    raise UnsatisfiableError(f"{name}: {error}") from None
        extra = schema.get("additionalProperties", True)
        typed = isinstance(extra, dict) and not schema.get("properties") and not self._sparse
        missing = [name for name in required if name not in made]
        lacking = (
            max(schema.get("minProperties", 0), min(2 * typed, schema.get("maxProperties", 2)))
            - len(made)
            - len(missing)
        )
        missing += [f"{self.random.choice(_WORDS)}{index}" for index in range(min(lacking, _MOST))]
        for name in missing:
            made[name] = self.value(extra, name, depth + 1)
        return made

    def _array(self, schema: Schema, name: str, depth: int) -> list[Json]:
        first = schema.get("prefixItems", [])
        echo, self._echo = self._echo, {}  # the items of a list are not all the one that was asked for
        items = schema.get("items", {})
        low, high = schema.get("minItems", 0), schema.get("maxItems", 1000)
        small = self._sparse or self._count > _NODES or depth > 5 or items in ({}, False)
        count = max(low, len(first), 0 if small else self.random.randint(1, 3))
        made: list[Json] = []
        for index in range(min(count, high)):
            for _ in range(_TRIES):
                value = self.value(first[index] if index < len(first) else items, name, depth + 1)
                if not schema.get("uniqueItems") or value not in made:
                    made.append(value)
                    break
        self._echo = echo
        return made

    def _echoed(self, value: Json, schema: Schema) -> Json:
        properties = schema.get("properties", {})
        if not isinstance(value, dict):
            return value
        known = {
            name: self._echo[name]
            for name in value.keys() & self._echo.keys() & properties.keys()
            if not isinstance(self._echo[name], dict | list) and Validator(properties[name]).is_valid(self._echo[name])
        }
        return value | known


def _given(schema: Schema) -> list[Json]:
    """The schema's own examples, default or enum, as far as it allows them itself."""
    own = Validator(schema)
    for values in (schema.get("examples", []), [schema["default"]] if "default" in schema else []):
        if right := [value for value in values if value is not None and own.is_valid(value)]:
            return right
    return [value for value in schema.get("enum", []) if own.is_valid(value)]


_TELLING = {
    "object": frozenset({"properties", "additionalProperties", "required", "minProperties", "maxProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}


def _number(random: Random, schema: Schema, _: str) -> int | float:
    whole = schema.get("type") == "integer" or fits(schema.get("multipleOf"), "integer")
    step = schema.get("multipleOf", 1 if whole else 0.01)
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    low = max(low, schema.get("exclusiveMinimum", -math.inf) + step)
    high = min(high, schema.get("exclusiveMaximum", math.inf) - step)
    if low == -math.inf:
        low = min(1, high - 1000 * step) if high < math.inf else 1
    high = min(high, low + 1000 * step)
    first, last = math.ceil(low / step), math.floor(high / step)
    if first > last:
        if whole or low > high:
            raise UnsatisfiableError("its bounds leave no number")
        return float(random.uniform(low, high))
    value = random.randint(first, last) * step
    return int(value) if whole else round(float(value), 6)


def _text(random: Random, schema: Schema, name: str) -> str:
    if "pattern" in schema:
        return _patterned(random, schema)
    hint = name.lower()
    maker = _FORMATS.get(schema.get("format", ""))
    maker = maker or next((make for ending, make in _HINTS.items() if hint.endswith(ending)), None)
    text = maker(random) if maker else " ".join(random.sample(_WORDS, 2))
    low, high = schema.get("minLength", 0), schema.get("maxLength", _LONGEST)
    if low > _LONGEST:
        raise UnsatisfiableError(f"a text of {low} characters is too long")
    return (text + "".join(random.choices(_LETTERS, k=max(0, low - len(text)))))[:high]


def _patterned(random: Random, schema: Schema) -> str:
    try:
        # The standard library's own reader of patterns: no public interface, so it may be gone one day.
        parsed = importlib.import_module("re._parser").parse(schema["pattern"])
    except (ImportError, AttributeError, re.error, RecursionError, OverflowError):
        raise UnsatisfiableError(f"the pattern {schema['pattern']!r:.60} cannot be followed") from None
    own = Validator({key: schema[key] for key in ("pattern", "minLength", "maxLength") if key in schema})
    low = schema.get("minLength", 0)
    for spread in (6, 0, 20, 2 * low, 4 * low):
        text = "".join(_matching(random, parsed, min(spread, _LONGEST)))
        if own.is_valid(text):
            return text
    raise UnsatisfiableError(f"no text was found for the pattern {schema['pattern']!r:.60}")


def _matching(random: Random, parsed: Any, spread: int) -> Iterator[str]:
    """Pieces of a text along a pattern; what may repeat does so up to `spread` times more than it must.

    Look-arounds and back references are passed over.
    """
    for operation, value in parsed:
        match str(operation):
            case "LITERAL":
                yield chr(value)
            case "NOT_LITERAL":
                yield "a" if value != ord("a") else "b"
            case "ANY":
                yield random.choice("abcdefghij")
            case "IN":
                yield _one_of(random, value)
            case "BRANCH":
                yield from _matching(random, random.choice(value[1]), spread)
            case "SUBPATTERN":
                yield from _matching(random, value[-1], spread)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                low, high, inner = value
                for _ in range(random.randint(min(low, _LONGEST), min(int(high), low + spread, _LONGEST))):
                    yield from _matching(random, inner, spread)


_CLASSES = {"CATEGORY_DIGIT": "0123456789", "CATEGORY_WORD": f"{_LETTERS}0123456789", "CATEGORY_SPACE": " "}
_PRINTABLE = [chr(code) for code in (*range(97, 123), *range(48, 58), *range(65, 91), *range(33, 48), *range(58, 65))]


def _one_of(random: Random, items: list[tuple[Any, Any]]) -> str:
    allowed: list[str] = []
    for operation, value in items:
        match str(operation):
            case "LITERAL":
                allowed.append(chr(value))
            case "RANGE":
                allowed += [chr(code) for code in range(value[0], min(value[1], value[0] + 100) + 1)]
            case "CATEGORY":
                allowed += _CLASSES.get(str(value), "a-")
    if str(items[0][0]) == "NEGATE":
        allowed = [char for char in _PRINTABLE if char not in allowed]
    return random.choice(allowed or ["a"])


def _moment(random: Random) -> datetime:
    return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=random.randrange(365 * 86400))


def _slug(random: Random) -> str:
    return f"{random.choice(_WORDS)}-{random.randrange(1000)}"


_FORMATS: dict[str, Callable[[Random], str]] = {
    "date": lambda random: _moment(random).date().isoformat(),
    "date-time": lambda random: _moment(random).isoformat().replace("+00:00", "Z"),
    "time": lambda random: f"{_moment(random):%H:%M:%S}Z",
    "duration": lambda random: f"PT{random.randint(1, 90)}M",
    "email": lambda random: f"{random.choice(_WORDS)}@example.com",
    "uuid": lambda random: str(UUID(int=random.getrandbits(128), version=4)),
    "uri": lambda random: f"https://example.com/{_slug(random)}",
    "url": lambda random: f"https://example.com/{_slug(random)}",
    "uri-reference": lambda random: f"/{_slug(random)}",
    "hostname": lambda random: f"{random.choice(_WORDS)}.example.com",
    "ipv4": lambda random: f"192.0.2.{random.randint(1, 254)}",
    "ipv6": lambda random: f"2001:db8::{random.randint(1, 65535):x}",
    "byte": lambda random: random.choice(("YW1iZXI=", "YmlyY2g=", "Y2VkYXI=")),
}
_HINTS: dict[str, Callable[[Random], str]] = {
    "email": _FORMATS["email"],
    "url": _FORMATS["uri"],
    "href": _FORMATS["uri"],
    "date": _FORMATS["date"],
    "_at": _FORMATS["date-time"],
    "time": _FORMATS["date-time"],
    "city": lambda random: random.choice(_CITIES),
    "country": lambda random: random.choice(("PT", "JP", "KE", "EC", "EE", "IN", "CA")),
    "currency": lambda random: random.choice(("EUR", "USD", "JPY", "KES")),
    "phone": lambda random: f"+1-202-555-{random.randint(100, 199):04d}",
    "id": lambda random: f"{random.getrandbits(32):08x}",
    "slug": _slug,
    "username": _slug,
    "name": lambda random: random.choice(_NAMES),
}
_SCALARS: dict[str, Callable[[Random, Schema, str], Json]] = {
    "string": _text,
    "integer": _number,
    "number": _number,
    "boolean": lambda random, _schema, _name: random.random() < 0.5,
    "null": lambda _random, _schema, _name: None,
}
