"""JSON and Python literals in untrusted text: depth is bounded, nothing is evaluated.

`parse_json` is strict and reads a whole document. `read_json`, `read_literal` and `read_value` read what models and
data sets write. All of them raise UnreadableError (a ValueError) and nothing else.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any, cast

from agentft.types import Json

__all__ = [
    "MAX_DEPTH",
    "UnreadableError",
    "json_pointer",
    "kind_of",
    "parse_json",
    "read_json",
    "read_literal",
    "read_value",
    "repeated_keys",
]

MAX_DEPTH = 100  # levels of brackets: far above real data, far below where a later json.dumps would overflow the stack
MAX_LITERAL = 200_000  # characters: the Python parser takes about 100 times the memory of its input
_WHITE = " \t\r\n"  # JSON's white space; Unicode has more
_REPEATED: ContextVar[dict[str, None]] = ContextVar("repeated")
_ESCAPED_SURROGATE = re.compile(r"\\[uU](?:0000)?[dD][89a-fA-F]")


class UnreadableError(ValueError):
    """Text that cannot be read.

    Args:
        detail: what is wrong, as a message for people.
        reason: `invalid-json`, `invalid-utf8`, `too-deep` or `lone-surrogate`.
        position: the character (for `invalid-utf8` the byte), if known.
    """

    def __init__(self, detail: str, reason: str = "invalid-json", position: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.position = position


def _refuse_constant(name: str) -> float:
    raise UnreadableError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise UnreadableError(f"the number {text[:40]} is too large")
    return value


def _repeats(pairs: Sequence[tuple[str, Any]]) -> list[str]:
    return [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise UnreadableError(f"the key {_repeats(pairs)[0][:40]!r} occurs twice")
    return value


def _last_wins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        _REPEATED.get({}).update(dict.fromkeys(_repeats(pairs)))
    return value


@contextmanager
def repeated_keys() -> Iterator[dict[str, None]]:
    """The keys that stand twice in an object, of all that `read_json` and `read_value` read in the block."""
    found: dict[str, None] = {}
    token = _REPEATED.set(found)
    try:
        yield found
    finally:
        _REPEATED.reset(token)


def _decoder(hook: Callable[[Any], Any] | None, *, strict: bool = True) -> json.JSONDecoder:
    """`hook`: makes an object of its pairs. `strict`: control characters inside strings are refused."""
    return json.JSONDecoder(strict=strict, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=hook)


_LENIENT = _decoder(_last_wins, strict=False)
_STRICT = _decoder(None)
_STRICT_UNIQUE = _decoder(_unique)


def parse_json(text: str | bytes, *, unique_keys: bool = False, max_depth: int = MAX_DEPTH) -> Json:
    """The value of a whole JSON document (RFC 8259); white space around it is allowed.

    Refused: NaN, Infinity and numbers that overflow to it, integers beyond Python's digit limit, control characters in
    strings, lone surrogates, bytes that are not UTF-8, and nesting above `max_depth` levels.

    Args:
        text: the document.
        unique_keys: refuse objects that repeat a key (JSON leaves their meaning undefined).
        max_depth: levels of lists and objects.

    Raises:
        UnreadableError: with the reason and, if known, the position.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            detail = f"not UTF-8 (byte 0x{error.object[error.start]:02x} at position {error.start})"
            raise UnreadableError(detail, "invalid-utf8", error.start) from None
    start = len(text) - len(text.lstrip(_WHITE))
    value, end = _read_bounded(text, start, _STRICT_UNIQUE if unique_keys else _STRICT, max_depth)
    if text[end:].strip(_WHITE):
        raise UnreadableError(f"not JSON (text after the value at character {end})", position=end)
    return value


def json_pointer(*parts: str | int) -> str:
    """The JSON Pointer (RFC 6901) to the value under these keys and indices; `""` is the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def read_json(text: str, start: int = 0) -> tuple[Json, int]:
    """The JSON value that begins exactly at `start`, and the index after it.

    Like `parse_json`, but allows control characters (newlines, for example) in strings, and text after the value.
    """
    return _read_bounded(text, start, _LENIENT, MAX_DEPTH)


def read_literal(text: str) -> Json:
    """A Python literal as JSON. Tuples become lists; sets, bytes, complex numbers and non-text keys are refused."""
    if len(text) > MAX_LITERAL:
        raise UnreadableError(f"a Python literal of {len(text)} characters is too long")
    try:
        with warnings.catch_warnings():  # users cannot act on an unknown escape such as '\d' in data
            warnings.simplefilter("ignore")
            value = _to_json(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise UnreadableError("not a Python literal") from None
    if _depth(value) > MAX_DEPTH:
        raise _too_deep(MAX_DEPTH)
    _check_surrogates(text, value)
    return value


def read_value(text: str) -> Json:
    """The whole text (white space around it is ignored) as JSON or, if that fails, as a Python literal."""
    text = text.strip()
    try:
        value, end = read_json(text)
        if end == len(text):
            return value
        problem = UnreadableError(f"not JSON (text after the value at character {end})", position=end)
    except UnreadableError as error:
        problem = error
    try:
        return read_literal(text)
    except UnreadableError:
        raise problem from None


def kind_of(value: Json) -> str:
    """The JSON type of a value, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _read_bounded(text: str, start: int, decoder: json.JSONDecoder, max_depth: int) -> tuple[Json, int]:
    try:
        value, end = _decode(text, start, decoder)
        brackets = text.count("{", start, end) + text.count("[", start, end)
        too_deep = brackets > max_depth and _depth(value) > max_depth
    except RecursionError:
        too_deep = True
    if too_deep:
        raise _too_deep(max_depth)
    _check_surrogates(text if start == 0 else text[start:end], value)
    return cast(Json, value), end


def _too_deep(max_depth: int) -> UnreadableError:
    return UnreadableError(f"nested more than {max_depth} levels deep", "too-deep")


def _decode(text: str, start: int, decoder: json.JSONDecoder) -> tuple[object, int]:
    """`raw_decode` over growing windows: its errors count lines from the start, which is quadratic on a long text."""
    size = 4096 if start else len(text)
    while True:
        window, cut = text[start : start + size], start + size < len(text)
        try:
            value, end = decoder.raw_decode(window)
            if end < len(window) or not cut:
                return value, start + end
        except json.JSONDecodeError as error:
            if not cut or (error.pos < size - 16 and not error.msg.startswith("Unterminated")):
                place = start + error.pos
                raise UnreadableError(f"not JSON ({error.msg} at character {place})", position=place) from None
        except ValueError as error:  # an integer of thousands of digits
            raise UnreadableError(str(error)) from None
        size *= 8


def _depth(value: object) -> int:
    """Levels of lists and objects."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [*chain.from_iterable(each.values() if isinstance(each, dict) else each for each in level)]
    return depth


def _check_surrogates(text: str, value: object) -> None:
    """Refuse lone surrogates, which cannot be encoded. `value` is searched only if `text` may contain one."""
    try:
        if not text.isascii():
            text.encode()
        if "\\" in text and _ESCAPED_SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnreadableError("a lone surrogate, which is not text", "lone-surrogate") from None


def _to_json(value: object) -> Json:
    """The value with tuples as lists. Raises ValueError for types that JSON does not have."""
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _to_json(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError
