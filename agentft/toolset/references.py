"""JSON references: resolves a `$ref` inside a document, and in other documents if a reader is passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from agentft.errors import InputError
from agentft.types import Json

__all__ = ["References"]

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
        self._documents = {str(root.get("$id", address)): root, address: root}
        self.address = address
        self.size = len(str(root))
        """Characters of the documents read so far."""
        self._anchors: dict[int, dict[Any, Json]] = {}
        self.cut: set[str] = set()
        """References that `expand` did not follow."""
        self.dropped: set[str] = set()
        """Keywords that `expand` left out."""
        self.expanded: dict[tuple[str | int, str, str], tuple[dict[str, Any], set[str], set[str], Json]] = {}
        """What `expand` made of a schema (its text or `id`), with what it cut and dropped, and the schema."""

    def find(self, reference: str, base: str) -> tuple[Json, str]:
        """The target of `reference`, which is written in the document at `base`, and the address of its document.

        Raises:
            InputError: there is no such target, or its document cannot or must not be read.
        """
        for _ in range(_CHAIN_LIMIT):
            address, fragment = urldefrag(reference)
            base = urljoin(base, address) if address else base
            value = self._walk(self._document(base, reference), fragment, reference)
            if not (isinstance(value, dict) and isinstance(value.get("$ref"), str) and len(value) == 1):
                return value, base
            reference = str(value["$ref"])
        raise InputError(f"the reference {reference[:200]!r} leads only to further references")

    def resolve(self, value: Json, base: str) -> tuple[Json, str]:
        """`value`, or its target if it is a reference, and the address of the document that holds it."""
        target = value.get("$ref") if isinstance(value, dict) else None
        return self.find(target, base) if isinstance(target, str) else (value, base)

    def _document(self, address: str, reference: str) -> dict[str, Json]:
        if address not in self._documents:
            if self._read is None:
                raise InputError(f"the reference {reference[:200]!r} leads to another document; pass --allow-refs")
            if len(self._documents) > _OTHERS_LIMIT:
                raise InputError(f"the references lead to more than {_OTHERS_LIMIT} other documents")
            self._documents[address] = self._read(address)
            self.size += len(str(self._documents[address]))
        return self._documents[address]

    def _walk(self, value: Json, fragment: str, reference: str) -> Json:
        if fragment and not fragment.startswith("/"):
            if id(value) not in self._anchors:
                self._anchors[id(value)] = dict(_anchors(value))
            if (name := unquote(fragment)) in (known := self._anchors[id(value)]):
                return known[name]
            raise InputError(f"the reference {reference[:200]!r} has no target: there is no anchor {name[:100]!r}")
        for part in unquote(fragment).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise InputError(f"the reference {reference[:200]!r} has no target: there is no {key[:100]!r}")
        return value


def _anchors(document: Json) -> Iterator[tuple[Json, Json]]:
    """The schemas in a document that `$anchor` or `$dynamicAnchor` names, by name."""
    waiting: list[Json] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from ((value[key], value) for key in ("$anchor", "$dynamicAnchor") if isinstance(value.get(key), str))
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
