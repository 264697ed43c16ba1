"""How arrays and objects are written in URLs, headers, cookies and forms: the styles of OpenAPI parameters.

A style is OpenAPI's name, with `*` if it is exploded; `json` stands for JSON text. `form*` writes a list as `a=1&a=2`
and an object as `x=1&y=2`, `form` as `a=1,2`; see the table of styles in the OpenAPI specification.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from agentft.types import Json

__all__ = ["join_text", "plain_text", "split_text", "write_pairs"]

_DELIMITERS = {"spaceDelimited": " ", "pipeDelimited": "|", "tabDelimited": "\t"}
_PREFIXES = {"label": ".", "matrix": ";"}


def plain_text(value: Json) -> str:
    """A string as it is, any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def write_pairs(name: str, value: Json, style: str) -> list[tuple[str, str]]:
    """A parameter of a query, a cookie or a form as pairs of escaped name and escaped value."""
    kind, exploded = style.rstrip("*"), style.endswith("*")
    key = quote(name, safe="[]")
    if kind == "json" or not isinstance(value, dict | list):
        return [(key, quote(json.dumps(value) if kind == "json" else plain_text(value), safe=""))]
    if kind == "deepObject" and isinstance(value, dict):
        return [pair for inner, item in value.items() for pair in write_pairs(f"{name}[{inner}]", item, style)]
    if (exploded or kind == "deepObject") and isinstance(value, list):
        return [(key, quote(plain_text(item), safe="")) for item in value]
    if exploded and isinstance(value, dict):
        return [(quote(inner, safe="[]"), quote(plain_text(item), safe="")) for inner, item in value.items()]
    delimiter = _DELIMITERS.get(kind, ",")
    # A comma or a pipe between values is written as it is; one inside a value is escaped.
    written = delimiter if delimiter in ",|" else quote(delimiter)
    return [(key, written.join(quote(text, safe="") for text in _flat(value)))]


def join_text(name: str, value: Json, style: str, *, escaped: bool) -> str:
    """A parameter of a path or a header as text."""

    def write(item: Json) -> str:
        return quote(plain_text(item), safe="") if escaped else plain_text(item)

    kind, exploded = style.rstrip("*"), style.endswith("*")
    prefix = _PREFIXES.get(kind, "")
    if kind == "json":
        return write(json.dumps(value))
    named = kind == "matrix" and not (exploded and isinstance(value, dict | list))
    prefix += f"{write(name)}=" if named else ""
    if isinstance(value, dict) and exploded:
        parts = [f"{write(key)}={write(item)}" for key, item in value.items()]
    elif isinstance(value, list) and exploded and kind == "matrix":
        parts = [f"{write(name)}={write(item)}" for item in value]
    else:
        parts = [write(item) for item in _flat(value)]
    return prefix + ((_PREFIXES.get(kind) or ",") if exploded else ",").join(parts)


def split_text(text: str, name: str, style: str) -> list[str]:
    """The items of a parameter that was written as one text."""
    kind = style.rstrip("*")
    if kind in _PREFIXES:
        text = text.removeprefix(_PREFIXES[kind]).replace(f"{name}=", "")
        return text.split(_PREFIXES[kind] if style.endswith("*") else ",")
    return text.split(_DELIMITERS.get(kind, ","))


def _flat(value: Json) -> Sequence[str]:
    """The items of a list, or the names and values of an object, one after the other."""
    if isinstance(value, Mapping):
        return [plain_text(part) for pair in value.items() for part in pair]
    return [plain_text(item) for item in value] if isinstance(value, list) else [plain_text(value)]
