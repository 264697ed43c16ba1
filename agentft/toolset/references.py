"""JSON references: resolves a `$ref` inside a document, and in other documents if a reader is passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from agentft.errors import InputError
from agentft.types import Json

__all__ = ["References", "walk_pointer"]

_CHAIN_LIMIT = 20  # references that lead to a reference
_OTHERS_LIMIT = 50  # documents read besides the first


class References:
    """Resolves the `$ref`s of a document.

    Args:
        root: the document.
        address: its path or URL; references to other documents are relative to it.
        read: returns another document by its address; None: references to other documents are refused.
    """

    def __init__(
        self, root: dict[str, Json], address: str = "", read: Callable[[str], dict[str, Json]] | None = None
    ) -> None:
        self._read = read
        self._documents: dict[str, dict[str, Json]] = {}
        self._named: dict[str, tuple[Json, str]] = {}  # URL of an `$id` or an anchor -> its schema, and its document
        self.address = address
        self.size = 0
        """Characters of the documents read so far."""
        self._add(address, root)
        self.cut: set[str] = set()
        """References that `expand` did not follow."""
        self.dropped: set[str] = set()
        """Keywords that `expand` left out."""
        self.expanded: dict[tuple[str | int, str, str], tuple[dict[str, Any] | str, set[str], set[str], Json]] = {}
        """What `expand` made of a schema (its text or `id`), or why it failed; what it cut and dropped; the schema."""
        self.whole: dict[tuple[str, str, str], tuple[dict[str, Any], int, set[str], int, int]] = {}
        """What `expand` made of a reference's target (base, reference, hidden) without cutting anything: the schema,
        how many are in it, the keywords left out, how many references could be nested in it, and how deep it was."""

    def find(self, reference: str, base: str) -> tuple[Json, str]:
        """The target of `reference`, which is written in the document at `base`, and the address of its document.

        Raises:
            InputError: there is no such target, or its document cannot or must not be read.
        """
        for _ in range(_CHAIN_LIMIT):
            address, fragment = urldefrag(reference)
            base = urljoin(base, address) if address else base
            value, base = self._target(base, unquote(fragment), reference)
            if not (isinstance(value, dict) and isinstance(value.get("$ref"), str) and len(value) == 1):
                return value, base
            reference = str(value["$ref"])
        raise InputError(f"the reference {reference[:200]!r} leads only to further references")

    def resolve(self, value: Json, base: str) -> tuple[Json, str]:
        """`value`, or its target if it is a reference, and the address of the document that holds it."""
        target = value.get("$ref") if isinstance(value, dict) else None
        return self.find(target, base) if isinstance(target, str) else (value, base)

    def base(self, schema: dict[str, Any], base: str) -> str:
        """The base of the references in a schema: its `$id`, if it has one."""
        own = urldefrag(urljoin(base, str(schema.get("$id", ""))))[0]
        return own if own in self._named else base

    def _add(self, address: str, document: dict[str, Json]) -> None:
        self._documents[address] = document
        text = str(document)
        self.size += len(text)
        if "'$id'" in text or "nchor'" in text:
            self._named |= {name: (schema, address) for name, schema in _named(document, address)}

    def _target(self, base: str, fragment: str, reference: str) -> tuple[Json, str]:
        if base not in self._named and base not in self._documents:
            if self._read is None:
                raise InputError(f"the reference {reference[:200]!r} leads to another document; pass --allow-refs")
            if len(self._documents) > _OTHERS_LIMIT:
                raise InputError(f"the references lead to more than {_OTHERS_LIMIT} other documents")
            self._add(base, self._read(base))
        if f"{base}#{fragment}" in self._named:
            return self._named[f"{base}#{fragment}"][0], base
        schema, home = self._named.get(base) or (self._documents[base], base)
        try:
            return walk_pointer(schema, "" if fragment == "/" else fragment, reference), base
        except InputError:  # in descriptions, `#/...` often means the document, also inside a schema with an `$id`
            return walk_pointer(self._documents[home], fragment, reference), home


def walk_pointer(value: Json, pointer: str, reference: str) -> Json:
    """The part of a value at a JSON Pointer. `reference`: what to name in an error.

    Raises:
        InputError: there is no such part.
    """
    first, *parts = pointer.split("/")
    if first:
        raise InputError(f"the reference {reference[:200]!r} has no target: there is no anchor {pointer[:100]!r}")
    for part in parts:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            raise InputError(f"the reference {reference[:200]!r} has no target: there is no {key[:100]!r}")
    return value


def _named(document: Json, address: str) -> Iterator[tuple[str, Json]]:
    """The schemas in a document that have an `$id` or an anchor, by its URL."""
    waiting: list[tuple[Any, str]] = [(document, address)]
    while waiting:
        value, base = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("$id"), str):
                name = urljoin(base, value["$id"]).removesuffix("#")
                base = urldefrag(name)[0]
                yield name, value
            yield from ((f"{base}#{value[key]}", value) for key in ("$anchor", "$dynamicAnchor") if key in value)
        if isinstance(value, dict | list):
            waiting += [(inner, base) for inner in (value.values() if isinstance(value, dict) else value)]
