"""Reading API descriptions: JSON or YAML of bounded size, and what a `$ref` in them names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import unquote, urldefrag, urljoin

from agentft.errors import InputError
from agentft.types import Json

__all__ = ["DOCUMENT_LIMIT", "Documents", "pointer", "read_document"]

DOCUMENT_LIMIT = 100 << 20  # bytes, also of what YAML's aliases stand for
_CHAIN = 20  # a `$ref` that names a `$ref` that names ...
_OTHERS = 50  # documents that one import reads beside the first


def read_document(text: bytes, place: str) -> dict[str, Json]:
    """The JSON or YAML object in a file, as plain JSON (YAML's dates and numeric keys become texts).

    Raises:
        InputError: it is too large, neither of the two, or no object.
    """
    if len(text) > DOCUMENT_LIMIT:
        raise InputError(f"{place}: larger than {DOCUMENT_LIMIT >> 20} MiB; cut the file down")
    try:
        plain = text.decode("utf-8-sig")
        is_json = plain.lstrip()[:1] == "{"
        value = json.loads(plain, parse_constant=_refuse) if is_json else _read_yaml(plain)
    except RecursionError:
        raise InputError(f"{place}: it is nested too deeply to be read") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: it is neither JSON nor YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(value, dict):
        raise InputError(f"{place}: it holds {type(value).__name__}, not an object; give an API description")
    return value


def _read_yaml(text: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        value = yaml.load(text, Loader=loader)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    # Written out, so that a few aliases that stand for millions of values are seen here and not later on.
    pieces, size = [], 0
    for piece in json.JSONEncoder(default=str, allow_nan=False).iterencode(value):
        size += len(piece)
        if size > DOCUMENT_LIMIT:
            raise ValueError("its aliases stand for too much")
        pieces.append(piece)
    return json.loads("".join(pieces))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def pointer(*parts: str | int) -> str:
    """A JSON pointer as a fragment: `#/paths/~1pets/get`."""
    return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


class Documents:
    """Looks `$ref`s up in a document, and in others if `read` is given.

    Args:
        root: the document.
        address: its path or URL; references to others are relative to it.
        read: another document by its address; None: references to others are refused.
    """

    def __init__(
        self, root: dict[str, Json], address: str = "", read: Callable[[str], dict[str, Json]] | None = None
    ) -> None:
        self._read = read
        self._documents: dict[str, dict[str, Json]] = {address: root}
        self.address = address
        self.cut: set[str] = set()
        """References that `expand` did not follow."""

    def find(self, reference: str, base: str) -> tuple[Json, str]:
        """What `reference`, written in the document at `base`, names; and the document that this stands in.

        Raises:
            InputError: it names nothing, or another document that may not or cannot be read.
        """
        for _ in range(_CHAIN):
            address, fragment = urldefrag(reference)
            base = urljoin(base, address) if address else base
            value = self._walk(self._document(base, reference), fragment, reference)
            if not (isinstance(value, dict) and isinstance(value.get("$ref"), str) and len(value) == 1):
                return value, base
            reference = str(value["$ref"])
        raise InputError(f"the reference {reference[:200]!r} leads only to further references")

    def resolve(self, value: Json, base: str) -> tuple[Json, str]:
        """`value`, or what it refers to if it is a reference."""
        named = value.get("$ref") if isinstance(value, dict) else None
        return self.find(named, base) if isinstance(named, str) else (value, base)

    def _document(self, address: str, reference: str) -> dict[str, Json]:
        if address not in self._documents:
            if self._read is None:
                raise InputError(
                    f"the reference {reference[:200]!r} leads to another document; --allow-refs would follow it"
                )
            if len(self._documents) > _OTHERS:
                raise InputError(f"the references lead to more than {_OTHERS} other documents")
            self._documents[address] = self._read(address)
        return self._documents[address]

    def _walk(self, value: Json, fragment: str, reference: str) -> Json:
        for part in unquote(fragment).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise InputError(f"the reference {reference[:200]!r} names nothing: there is no {key[:100]!r}")
        return value
