"""Reading hand-written records strictly: every complaint names the place, the value and the remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from agentft.errors import InputError

__all__ = ["Place", "read_json_line"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands (`file:line`, then the path inside), with checked access to its keys."""

    at: str

    def inside(self, path: str) -> Place:
        """The place of a record inside this one."""
        return Place(f"{self.at}: {path}" if ": " not in self.at else f"{self.at}.{path}")

    def known_keys(self, row: Mapping[str, Any], known: Sequence[str], what: str) -> None:
        """Refuse a key that is not in `known`, naming the nearest one."""
        for key in row:
            if key not in known:
                raise InputError(f"{self.at}: a {what} has no key {key!r}{_nearest(key, known)}")

    def text(self, row: Mapping[str, Any], key: str, *, required: bool = False) -> str:
        """A string; a required one must be there and not blank."""
        value = row.get(key)
        if isinstance(value, str) and (value.strip() or not required):
            return value
        if value is None and not required:
            return ""
        raise self._wrong(key, value, "a string that is not blank" if required else "a string")

    def texts(self, row: Mapping[str, Any], key: str, *, required: bool = False) -> tuple[str, ...]:
        """A list of strings that are not blank; absent: empty."""
        value = row.get(key)
        if value is None and not required:
            return ()
        if isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value):
            return tuple(value)
        raise self._wrong(key, value, "a list of strings that are not blank")

    def objects(self, row: Mapping[str, Any], key: str, *, required: bool = False) -> tuple[Mapping[str, Any], ...]:
        """A list of objects; absent: empty."""
        value = row.get(key)
        if value is None and not required:
            return ()
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return tuple(value)
        raise self._wrong(key, value, "a list of objects")

    def mapping(self, row: Mapping[str, Any], key: str, *, required: bool = False) -> dict[str, Any]:
        """An object; absent: empty."""
        value = row.get(key)
        if value is None and not required:
            return {}
        if isinstance(value, dict):
            return value
        raise self._wrong(key, value, "an object")

    def choice(self, row: Mapping[str, Any], key: str, known: Sequence[str]) -> str:
        """A string out of `known`."""
        value = self.text(row, key, required=True)
        if value not in known:
            raise InputError(f"{self.at}: `{key}` is {value!r}, which is not known{_nearest(value, known)}")
        return value

    def _wrong(self, key: str, value: object, expected: str) -> InputError:
        found = "missing" if value is None else f"{value!r:.60}"
        return InputError(f"{self.at}: `{key}` is {found}; it must be {expected}")


def read_json_line(line: bytes, place: Place) -> dict[str, Any]:
    """One JSON object of a JSONL file. NaN, Infinity and repeated keys are refused.

    Raises:
        InputError: the line is not such an object.
    """
    try:
        value = json.loads(line.decode(), parse_constant=_no_constant, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place.at}: it is not a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{place.at}: it is {type(value).__name__}, not a JSON object; write one object a line")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_repeats(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} stands twice")
        result[key] = value
    return result


def _nearest(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
