"""The formats of JSON Schema that arguments are checked against: those that the sampler follows too."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date

from jsonschema import FormatChecker

from agentft.strict import own_table

__all__ = ["FORMATS"]


def _date(text: str) -> bool:
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) and date.fromisoformat(text))


def _moment(text: str) -> bool:
    return text[10:11] in {"T", "t", " "} and _date(text[:10]) and bool(_CHECKS["time"](text[11:]))


_CHECKS: dict[str, Callable[[str], object]] = {
    **{name: re.compile(text, re.ASCII | re.IGNORECASE).fullmatch for name, text in own_table(__file__, str).items()},
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
