"""Values in text: whether an answer or a result contains a value.

Numbers are compared as numbers: 1,234 equals 1234 and 1234.0.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

__all__ = ["contains_value", "numbers_in"]

# Not inside a word or another number ("p17" does not contain 17). Matches grouped thousands, fractions, exponents.
_NUMBER = re.compile(r"(?<![\dA-Za-z_])(?<!\d\.)(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WHOLE = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?")
# A sign touches its number: "- 7" is a list item, "5-7" a range.
_MINUS = re.compile(r"(?:(?<![\w)])[-–]|\bminus |\bnegative |零下 ?|负 ?)$")
_WORD = re.compile(r"[0-9A-Za-z_]")


def contains_value(text: str, value: str) -> bool:
    """Whether `text` contains `value`: as a number if it is one, else as whole words. Ignores case and width."""
    text, value = _normalise(text), _normalise(value)
    if _WHOLE.fullmatch(value):
        return _number(value) in _numbers(text)
    before = r"(?<![0-9A-Za-z_])" if _WORD.match(value) else ""
    after = r"(?![0-9A-Za-z_])" if _WORD.match(value[-1:]) else ""
    return re.search(f"{before}{re.escape(value)}{after}", text) is not None


def numbers_in(text: str) -> set[Decimal]:
    """All numbers in `text`, with their signs."""
    return _numbers(_normalise(text))


def _normalise(text: str) -> str:
    # NFKC would turn "，" into a comma, but "20，150" is two numbers.
    text = text.replace("，", "； ")
    folded = unicodedata.normalize("NFKC", text).replace("−", "-").casefold()
    return " ".join(folded.split())


def _numbers(text: str) -> set[Decimal]:
    found: set[Decimal] = set()
    for match in _NUMBER.finditer(text):
        value = _number(match[0])
        if value is not None:
            found.add(value.copy_negate() if _MINUS.search(text[: match.start()][-12:]) else value)
    return found


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None
