"""Regexes of schemas: ECMAScript's, and what authors write of other languages, translated for the library `regex`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from itertools import islice

import regex

__all__ = ["compiles", "matches_pattern", "python_pattern"]

_ESCAPES = (
    r"(?s)\\u\{(?P<point>[\da-fA-F]{1,6})\}|(?P<units>(?:\\u[\da-fA-F]{4})+)|\\c(?P<control>[A-Za-z])"
    r"|(?P<property>\\[pP]\{[^{}]*\}|\[:\^?\w+:\])|(?P<kept>\\N\{[^{}]*\}|\{(?:\d+(?:,\d*)?|,\d+)\})"
)
# `[^]` is any character, unless a later `]` says that it begins a class with `]`, as in other languages.
_OUTER = re.compile(
    rf"{_ESCAPES}|\[\^\](?![^\[\]\\]*\])|(?P<head>\[\^?\]?)(?P<set>(?:\[:\^?\w+:\]|\\.|[^\]\\])*)"
    r"|\\k<(?P<back>\w+)>|\(\?<(?P<name>\w+)>|\\?."
)
_INNER = re.compile(rf"{_ESCAPES}|\\?.")
_WRITTEN: dict[str | None, Callable[[re.Match[str]], str]] = {
    "point": lambda found: rf"\U{found['point']:0>8}",
    "units": lambda found: "".join(rf"\U{ord(char):08x}" for char in json.loads(f'"{found[0]}"')),
    "control": lambda found: rf"\x{ord(found['control']) % 32:02x}",
    "back": lambda found: f"(?P={found['back']})",
    "name": lambda found: f"(?P<{found['name']}>",
    **dict.fromkeys(("property", "kept"), lambda found: found[0]),
}
_OUTSIDE = {"$": r"\Z", ".": r"[^\n\r\u2028\u2029]", "{": r"\{", r"\d": "[0-9]", r"\D": "[^0-9]"}
_OUTSIDE |= {"[^]": r"[\s\S]", r"\w": "[A-Za-z0-9_]", r"\W": "[^A-Za-z0-9_]"}
_INSIDE = {"[": r"\[", "&": r"\&", "|": r"\|", "~": r"\~", r"\d": "0-9", r"\w": "A-Za-z0-9_"}
_SAMPLES = "".join(map(chr, (*range(33, 127), *range(161, 0xD7A0, 7), *range(0x1F600, 0x1F640))))


def matches_pattern(pattern: str, text: str) -> bool:
    """Whether a pattern of a schema matches; within a time limit, because neither of the two can be trusted."""
    try:
        return bool(regex.search(python_pattern(pattern), text, timeout=0.2))
    except (TimeoutError, regex.error):
        return False


def compiles(pattern: object) -> bool:
    """Whether `matches_pattern` can use a pattern."""
    try:
        return not isinstance(pattern, str) or bool(regex.compile(python_pattern(pattern)))
    except (regex.error, RecursionError, OverflowError, ValueError):
        return False


@lru_cache(maxsize=1000)
def python_pattern(pattern: str, *, simple: bool = False) -> str:
    r"""A pattern with ECMAScript's meaning: for example, `\d` and `\w` are ASCII, but not `\D` and `\W` in a class.

    `simple`: for Python's own `re`, with some of its characters in place of each Unicode property.
    """

    def replaced(found: re.Match[str], table: Mapping[str, str] = _OUTSIDE) -> str:
        kind = found.lastgroup
        if kind == "set":
            return found["head"] + _INNER.sub(partial(replaced, table=_INSIDE), found["set"])
        if kind == "property" and simple:
            return _some(found[0]) if table is _INSIDE else f"[{_some(found[0])}]"
        return _WRITTEN[kind](found) if kind else table.get(found[0], found[0])

    return _OUTER.sub(replaced, pattern)


@lru_cache(maxsize=100)
def _some(prop: str) -> str:
    """Characters that have a property, for a class."""
    return "".join(rf"\U{ord(one[0]):08x}" for one in islice(regex.finditer(f"[{prop}]", _SAMPLES), 200))
