"""The schemas that apply to a value inside another one: one walk of a JSON Schema, with its root and references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from agentft.toolset.patterns import matches_pattern

__all__ = ["LazyResolver", "Subschemas"]

_PARTS_LIMIT = 500  # schemas that apply to one value
_LISTS, _SINGLES = ("allOf", "anyOf", "oneOf"), ("if", "then", "else")


class LazyResolver:
    """Resolves the references inside a schema, of which most have none; it never reads anything else."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    @cached_property
    def _made(self) -> Any:
        # Crawled once: else each `$ref` to an anchor would walk the whole schema.
        resource = DRAFT202012.create_resource(self._schema)
        return Registry().with_resource("", resource).crawl().resolver(resource.id() or "")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


class Subschemas:
    """The schemas that apply to one value of a call: its own, and what references, `allOf`, `anyOf` and the like add.

    `Subschemas(tool.parameters).at("lines").at(0)` are those of the first line, wherever the schema says them.
    """

    def __init__(self, schema: Any) -> None:
        root = schema if isinstance(schema, Mapping) else {}
        self.parts = [*_spread(root, LazyResolver(root))]

    def at(self, key: str | int) -> Self:
        """The schemas of a property or an item."""
        inner = [pair for schema, resolver in self.parts for pair in _inner(schema, resolver, key)]
        return self._of(inner)

    def alternatives(self, keyword: str) -> list[Self]:
        """The schemas of each alternative of `oneOf` or `anyOf`."""
        arms = [(arm, resolver) for schema, resolver in self.parts for arm in _listed(schema.get(keyword))]
        return [self._of([arm]) for arm in arms]

    def _of(self, roots: Sequence[tuple[Any, Any]]) -> Self:
        made = type(self)({})
        made.parts = [pair for schema, resolver in roots for pair in _spread(schema, resolver)][:_PARTS_LIMIT]
        return made

    @property
    def types(self) -> list[str]:
        """The types that the schemas name, of all alternatives."""
        kinds = [schema.get("type") for schema, _ in self.parts]
        listed = [kind for kinds in kinds for kind in (kinds if isinstance(kinds, list) else [kinds])]
        return [*dict.fromkeys(kind for kind in listed if isinstance(kind, str))]

    @property
    def values(self) -> list[Any]:
        """The values of the first `enum` or `const`."""
        for schema, _ in self.parts:
            if "const" in schema or isinstance(schema.get("enum"), list):
                return [schema["const"]] if "const" in schema else list(schema["enum"])
        return []


def _spread(schema: Any, resolver: Any) -> Iterator[tuple[Mapping[str, Any], Any]]:
    waiting, seen = [(schema, resolver)], set[int]()
    while waiting and len(seen) < _PARTS_LIMIT:
        node, resolver = waiting.pop(0)
        if not isinstance(node, Mapping) or id(node) in seen:
            continue
        seen.add(id(node))
        yield node, resolver
        for key in ("$ref", "$dynamicRef"):
            if isinstance(node.get(key), str):
                try:
                    found = resolver.lookup(node[key])
                except Unresolvable:
                    continue
                waiting.append((found.contents, found.resolver))
        waiting += [(item, resolver) for key in _LISTS for item in _listed(node.get(key))]
        waiting += [(node[key], resolver) for key in _SINGLES if key in node]
        waiting += [(item, resolver) for item in _named(node.get("dependentSchemas")).values()]


def _inner(schema: Mapping[str, Any], resolver: Any, key: str | int) -> Iterator[tuple[Any, Any]]:
    if isinstance(key, int):
        first = _listed(schema.get("prefixItems"))
        rest = [schema[name] for name in ("items", "unevaluatedItems") if name in schema][:1]
        found = [first[key]] if key < len(first) else rest
        found += [schema["contains"]] if "contains" in schema else []
    else:
        properties, patterns = _named(schema.get("properties")), _named(schema.get("patternProperties"))
        found = [properties[key]] if key in properties else []
        found += [value for pattern, value in patterns.items() if matches_pattern(pattern, key)]
        names = ("additionalProperties", "unevaluatedProperties")
        found = found or [schema[name] for name in names if name in schema][:1]
    yield from ((each, resolver) for each in found)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _named(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
