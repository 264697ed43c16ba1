"""Reading JSON and Python literals out of text that nobody vouches for: bounded, and never by evaluating it.

Every function raises UnreadableError (a ValueError), and nothing else, with a message for a person.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from typing import cast

from agentft.types import Json

__all__ = ["MAX_DEPTH", "UnreadableError", "kind_of", "read_json", "read_literal", "read_value"]

MAX_DEPTH = 100  # levels of brackets: far above real data, far below where a later json.dumps would overflow the stack
MAX_LITERAL = 200_000  # characters: the Python parser takes about 100 times the memory of its input
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
_ESCAPED_SURROGATE = re.compile(r"\\[uU](?:0000)?[dD][89a-fA-F]")


class UnreadableError(ValueError):
    """Text that is no usable value. `reason`: `invalid-json`, `too-deep` or `lone-surrogate`; `position` if known."""

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


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant, parse_float=_finite)


def read_json(text: str, start: int = 0) -> tuple[Json, int]:
    """The JSON value that begins exactly at `start`, and the index after it.

    Raw newlines and tabs inside strings are allowed. NaN, Infinity, lone surrogates, integers beyond Python's limit and
    nesting above `MAX_DEPTH` are not.
    """
    try:
        value, end = _decode(text, start)
        brackets = text.count("{", start, end) + text.count("[", start, end)
        too_deep = brackets > MAX_DEPTH and _depth(value) > MAX_DEPTH
    except RecursionError:
        too_deep = True
    if too_deep:
        raise UnreadableError(_TOO_DEEP, "too-deep")
    _check_surrogates(text if start == 0 else text[start:end], value)
    return cast(Json, value), end


def read_literal(text: str) -> Json:
    """The Python literal that `text` is, as JSON: tuples become lists; sets, bytes and non-text keys are refused."""
    if len(text) > MAX_LITERAL:
        raise UnreadableError(f"a Python literal of {len(text)} characters is too long")
    try:
        with warnings.catch_warnings():  # an unknown escape such as '\d' in data is no business of our users
            warnings.simplefilter("ignore")
            value = _to_json(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise UnreadableError("not a Python literal") from None
    if _depth(value) > MAX_DEPTH:
        raise UnreadableError(_TOO_DEEP, "too-deep")
    _check_surrogates(text, value)
    return value


def read_value(text: str) -> Json:
    """The whole of `text` (white space around it aside) as JSON or, failing that, as a Python literal."""
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
    """What a value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _decode(text: str, start: int) -> tuple[object, int]:
    """`raw_decode` by windows: its errors count lines from the start of the text, quadratic over many bad values."""
    size = 4096 if start else len(text)
    while True:
        window, cut = text[start : start + size], start + size < len(text)
        try:
            value, end = _DECODER.raw_decode(window)
            if end < len(window) or not cut:
                return value, start + end
        except json.JSONDecodeError as error:
            if not cut or (error.pos < size - 16 and not error.msg.startswith("Unterminated")):
                place = start + error.pos
                raise UnreadableError(f"not JSON ({error.msg} at character {place})", position=place) from None
        except UnreadableError:
            raise
        except ValueError as error:  # an integer of thousands of digits
            raise UnreadableError(str(error)) from None
        size *= 8


def _depth(value: object) -> int:
    """Levels of lists and objects."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def _check_surrogates(text: str, value: object) -> None:
    """No tokenizer and no file takes half of a surrogate pair. A suspicious `text` has its `value` looked through."""
    try:
        if not text.isascii():
            text.encode()
        if "\\" in text and _ESCAPED_SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnreadableError("a lone surrogate, which is not text", "lone-surrogate") from None


def _to_json(value: object) -> Json:
    """The value with lists for tuples. Raises ValueError for what JSON has not."""
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _to_json(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError
