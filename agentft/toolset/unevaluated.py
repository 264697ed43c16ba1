"""The properties that `unevaluatedProperties` is about: those that no other keyword of a JSON Schema describes.

Our own walk, because that of jsonschema searches patterns without a time limit, and names the properties in text only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentft.toolset.patterns import matches_pattern

__all__ = ["unevaluated_names"]


def unevaluated_names(validator: Any, value: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """The properties of `value` that no keyword of `schema` evaluates, besides its `unevaluatedProperties`.

    Args:
        validator: of jsonschema, for `schema`; it resolves references from the root.
        value: an object.
        schema: a schema that applies to it.
    """
    others = {key: inner for key, inner in schema.items() if key != "unevaluatedProperties"}
    evaluated = _evaluated(validator, value, others)
    return [name for name in value if name not in evaluated]


def _evaluated(validator: Any, value: Mapping[str, Any], schema: Any) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    if "additionalProperties" in schema or "unevaluatedProperties" in schema:
        return set(value)  # one that they refuse is an error of its own
    found = {*value} & {*schema.get("properties", {})}
    patterns = schema.get("patternProperties", {})
    found |= {name for name in value if any(matches_pattern(pattern, name) for pattern in patterns)}
    for key in {"$ref", "$dynamicRef"} & schema.keys():
        target = validator._resolver.lookup(schema[key])
        inner = validator.evolve(schema=target.contents, _resolver=target.resolver)
        found |= _evaluated(inner, value, target.contents)
    return found.union(*(_evaluated(validator, value, part) for part in _applied(validator, value, schema)))


def _applied(validator: Any, value: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas inside `schema` that apply to the whole of `value`."""
    yield from schema.get("allOf", ())
    for key in ("anyOf", "oneOf"):
        arms = schema.get(key, ())
        # If none is valid, that is the error, and each property that an alternative describes counts as evaluated.
        yield from [arm for arm in arms if _is_valid(validator, value, arm)] or arms
    yield from (part for name, part in schema.get("dependentSchemas", {}).items() if name in value)
    if "if" in schema and _is_valid(validator, value, schema["if"]):
        yield from (schema["if"], schema.get("then"))
    elif "if" in schema:
        yield schema.get("else")


def _is_valid(validator: Any, value: Mapping[str, Any], schema: Any) -> bool:
    return next(validator.descend(value, schema), None) is None
