"""Strict reading of hand-written files: every error names the place, the value and the remedy."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from agentft.errors import InputError
from agentft.json_text import UnreadableError, parse_json

__all__ = ["closest", "counted", "nearest", "one_of", "own_table", "read_as", "read_bytes", "read_json_line"]
__all__ += ["read_toml"]

T = TypeVar("T")
_PART = r""""(?:\\.|[^"\\\n])*"|'[^'\n]*'|[\w-]+"""
_LONG_KEY = re.compile(rf"(?:\.[ \t]*(?:{_PART})[ \t]*){{100}}")  # tomllib's time is quadratic in the parts of a key
_NOUNS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", tuple: "a list"}


def closest(word: str, known: Sequence[str], cutoff: float = 0.6) -> str | None:
    """The known word most similar to `word` (its first 64 characters); None if none is similar (`cutoff`: 0 to 1)."""
    return next(iter(difflib.get_close_matches(word[:64], known, 1, cutoff)), None)


def counted(number: int, noun: str) -> str:
    """For a message: `1 row`, `0 rows`, `12,345 rows`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def nearest(word: str, known: Sequence[str]) -> str:
    """For an error: `did you mean 'x'?` with the closest known word, or all known words if none is close."""
    match = closest(word, known)
    return f"known: {', '.join(known)}" if match is None else f"did you mean {match!r}?"


def one_of(value: object, known: Sequence[str], at: str, key: str) -> object:
    """Check that `value` is one of `known`, and return it.

    Raises:
        InputError: it is not.
    """
    if value not in known:
        raise InputError(f"{at}: `{key}` is {value!r:.60}, which is not valid; {nearest(str(value), known)}")
    return value


def read_as(kind: type[T], row: Mapping[str, Any], at: str, **preset: Any) -> T:
    """Read a record into a dataclass, whose fields are the allowed keys and whose types are checked.

    A field with a default is optional. Required texts, and texts in lists, must not be blank. Checked types are str,
    int, float, bool, Literal, tuple[X, ...] (from a list), Mapping[K, X], X | None and other dataclasses; values of
    any other type are accepted unchecked.

    Args:
        kind: the dataclass.
        row: the record.
        at: its place, for messages: `file`, `file:line`, or one of these with `: path`.
        preset: values of fields that the record must not contain.

    Raises:
        InputError: an unknown key, a missing key, a value of the wrong type, or an error from the dataclass itself.
    """
    keys = _keys(cast(Any, kind))
    known = [name for name in keys if name not in preset]
    for key in row:
        if key not in known:
            raise InputError(f"{at}: there is no key {key!r}; {nearest(key, known)}")
    values = dict(preset)
    for name in known:
        hint, needed = keys[name]
        if name in row:
            values[name] = _read(row[name], hint, at, name, needed=needed)
        elif needed:
            raise InputError(f"{at}: `{name}` is missing; it must be {_noun(hint)}")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{at}: {error}") from None


def read_bytes(path: Path, remedy: str) -> bytes:
    """The content of a file. `remedy` ends the message of the InputError if it cannot be read."""
    try:
        # An endless device would fill the memory, and a pipe without a writer waits for ever; <(...) has one.
        if path.is_char_device() or (path.is_fifo() and not path.is_relative_to("/dev")):
            raise InputError(f"{path}: it is a device or a pipe, not a file; {remedy}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None


def read_toml(path: Path, remedy: str) -> dict[str, Any]:
    """The tables of a TOML file. `remedy` ends the message if the file cannot be read.

    Raises:
        InputError: the file cannot be read, or is not TOML.
    """
    try:
        text = read_bytes(path, remedy).decode("utf-8-sig")
        if _LONG_KEY.search(text):
            raise InputError(f"{path}: a key has more than 100 parts; write shorter keys")
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError is also bad UTF-8, or a number of thousands of digits
        raise InputError(f"{path}: it is not TOML: {error}") from None


def own_table(module: str, kind: type[T]) -> dict[str, T]:
    """The table that a module of agentft has beside it: `x.toml` for `x.py`. `module`: its `__file__`.

    Raises:
        InputError: the file is missing, or one of its values is not of this kind (see `read_as`).
    """
    path = Path(module).with_suffix(".toml")
    table = read_toml(path, "install agentft again")
    found: dict[str, T] = _read(table, Mapping[str, kind], str(path), path.stem, needed=True)  # type: ignore[valid-type]
    return found


def read_json_line(line: bytes, at: str) -> dict[str, Any]:
    """The JSON object on a line of a JSONL file. Repeated keys are refused, as is everything that `parse_json` refuses.

    Raises:
        InputError: the line is not a valid object.
    """
    try:
        value = parse_json(line, unique_keys=True)
    except UnreadableError as error:
        raise InputError(f"{at}: it is not a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{at}: expected a JSON object, got {type(value).__name__}; write one object per line")
    return value


@cache
def _keys(kind: Any) -> dict[str, tuple[Any, bool]]:
    """By field name: its type, and whether it is required."""
    hints = get_type_hints(kind)
    return {
        field.name: (hints[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
    }


def _read(value: Any, hint: Any, at: str, key: str, *, needed: bool) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        others = [option for option in inner if option is not NoneType]
        return _read(value, others[0], at, key, needed=needed) if len(others) == 1 else value
    if origin is tuple and isinstance(value, list):
        return tuple(_read(item, inner[0], at, f"{key}[{index}]", needed=True) for index, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {
            _read(name, inner[0], at, key, needed=False): _read(item, inner[1], at, f"{key}.{name}", needed=False)
            for name, item in value.items()
        }
    if is_dataclass(hint) and isinstance(value, dict):
        return read_as(hint, value, f"{at}.{key}" if ": " in at else f"{at}: {key}")  # type: ignore[arg-type]
    if origin is Literal:
        return one_of(value, inner, at, key)
    if hint is str:
        right = isinstance(value, str) and (not needed or bool(value.strip()))
    elif hint in (int, float, bool):
        right = type(value) is hint or (hint is float and type(value) is int)
    else:
        right = not (origin in (tuple, Mapping) or is_dataclass(hint))
    if not right:
        blank = " (not blank)" if isinstance(value, str) and hint is str else ""
        raise InputError(f"{at}: `{key}` is {value!r:.60}; it must be {_noun(hint)}{blank}")
    return float(value) if hint is float else value


def _noun(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    return _NOUNS.get(get_origin(hint) or hint, "a table")
