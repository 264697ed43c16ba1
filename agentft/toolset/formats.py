"""The formats of JSON Schema that arguments are checked against: those that the sampler follows too."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date

from jsonschema import FormatChecker

__all__ = ["FORMATS"]

_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"  # RFC 3339
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PATTERNS = {
    "time": _TIME,
    "email": r"[^@\s]+@[^@\s]+",
    "idn-email": r"[^@\s]+@[^@\s]+",
    "uuid": r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "uri": r"[a-z][a-z0-9+.-]*:[^\s<>\"{}|\\^`]+",
    "hostname": rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*",
}


def _date(text: str) -> bool:
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) and date.fromisoformat(text))


def _moment(text: str) -> bool:
    day, mark, clock = text[:10], text[10:11], text[11:]
    return mark in {"T", "t", " "} and _date(day) and _fits(_TIME)(clock)


def _fits(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII | re.IGNORECASE)
    return lambda text: compiled.fullmatch(text) is not None


_CHECKS: dict[str, Callable[[str], object]] = {
    **{name: _fits(pattern) for name, pattern in _PATTERNS.items()},
    "date": _date,
    "date-time": _moment,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
}


def _check(test: Callable[[str], object]) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        with suppress(ValueError):
            return not isinstance(value, str) or bool(test(value))
        return False

    return check


FORMATS = FormatChecker(())
for _name, _test in _CHECKS.items():
    FORMATS.checks(_name)(_check(_test))
