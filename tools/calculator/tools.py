"""A calculator that parses (it never evaluates), converts units and remembers numbers."""

from __future__ import annotations

import difflib
import math
import re

from agentft.errors import ToolError
from agentft.toolset import State, read, write
from agentft.types import Json

BASE_URL = "http://calculator.test"

_LIMIT = 1e15
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*|\.\d+)|(\*\*|[-+*/%()^×÷−（）]))")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|percent)\s*of\s+(\d{1,3}(?:,\d{3})+(?![\d,])|(?=[\d.(]))", re.IGNORECASE)
_SAME = str.maketrans({"×": "*", "÷": "/", "−": "-", "（": "(", "）": ")"})
Number = int | float


@read
def calculate(_state: State, expression: str) -> dict[str, Json]:
    """Work out an arithmetic expression.

    Args:
        expression: Numbers with + - * / ** % and parentheses.

    Example:
        {"expression": "(12 + 5) * 3"}
    """
    if len(expression) > 200:
        raise ToolError(f"the expression has {len(expression)} characters; at most 200 are allowed", status=422)
    return {"expression": expression, "result": _tidy(_Parser(expression).parse())}


@read
def convert_units(state: State, value: float, from_unit: str, to_unit: str) -> dict[str, Json]:
    """Convert a value from one unit to another: length, mass, temperature, volume, speed or time.

    Args:
        value: Number to convert.
        from_unit: Unit of the value.
        to_unit: Unit to convert to.

    Example:
        {"value": 10, "from_unit": "km", "to_unit": "mile"}
    """
    kind, factor, offset = _unit(state, from_unit)
    target, divisor, shift = _unit(state, to_unit)
    if kind != target:
        raise ToolError(
            f"cannot convert {from_unit!r} to {to_unit!r}: {from_unit!r} is a unit of {kind}, {to_unit!r} of {target}",
            status=422,
        )
    result = (_checked(value) * factor + offset - shift) / divisor
    shown = _tidy(round(result, 2) if abs(result) >= 1 else result)
    return {"value": value, "from_unit": from_unit, "to_unit": to_unit, "result": shown}


@write
def store_number(state: State, name: str, value: float) -> dict[str, Json]:
    """Store a number under a name, to be recalled later.

    Args:
        name: Name to store it under.
        value: Number to store.

    Example:
        {"name": "rent", "value": 950}
    """
    if not name.strip() or len(name) > 60:
        raise ToolError("the name must have 1 to 60 characters", status=422)
    state["numbers"][name.strip()] = _checked(value)
    return {"name": name, "value": value, "status": "stored"}


@read
def recall_number(state: State, name: str) -> dict[str, Json]:
    """Get a number that was stored earlier.

    Args:
        name: Name it was stored under.

    Example:
        {"name": "pi"}
    """
    numbers: dict[str, Number] = state["numbers"]
    if name.strip() not in numbers:
        shown = ", ".join(list(numbers)[:10]) or "nothing"
        raise ToolError(f"no number is stored as {name[:60]!r}; stored: {shown}", status=404)
    return {"name": name, "value": numbers[name.strip()]}


def _unit(state: State, name: str) -> tuple[str, float, float]:
    """Kind, factor and offset to the kind's base unit. Case does not count."""
    units: dict[str, list[Json]] = state["units"]
    names: dict[str, str] = state["unit_names"]
    wanted = " ".join(name.strip().casefold().replace("°", "").replace("degrees ", "").split())
    unit = names.get(wanted, wanted)
    if unit not in units:
        close = difflib.get_close_matches(wanted[:40], [*units, *names], n=1, cutoff=0.7)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known units: {', '.join(list(units)[:12])}, ..."
        raise ToolError(f"unknown unit {name[:40]!r}{hint}", status=422)
    kind, factor, offset = units[unit]
    return str(kind), float(str(factor)), float(str(offset))


def _tidy(value: Number) -> Number:
    """Integers stay integers; a float is rounded to 6 decimals, and a whole one is shown as an integer."""
    rounded = round(_checked(value), 6)
    return int(rounded) if float(rounded).is_integer() else rounded


def _checked(value: Number) -> Number:
    if abs(value) > _LIMIT:
        raise ToolError("the number is too large; numbers up to 1e15 are allowed", status=422)
    return value


class _Parser:
    """Recursive descent: sum > product > sign > power > atom, with Python's precedence and associativity."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0
        self.depth = 0

    def parse(self) -> Number:
        value = self.sum()
        if self.at < len(self.tokens):
            raise self.surprise()
        return value

    def surprise(self) -> ToolError:
        found = self.tokens[self.at] if self.at < len(self.tokens) else ""
        what = f"unexpected {found!r}" if found else "the expression ends too early"
        return ToolError(f"{what}; use numbers with + - * / ** % and parentheses", status=422)

    def take(self, *wanted: str) -> str | None:
        if self.at < len(self.tokens) and self.tokens[self.at] in wanted:
            self.at += 1
            return self.tokens[self.at - 1]
        return None

    def sum(self) -> Number:
        value = self.product()
        while operator := self.take("+", "-"):
            right = self.product()
            value = _checked(value + right if operator == "+" else value - right)
        return value

    def product(self) -> Number:
        value = self.sign()
        while operator := self.take("*", "/", "%"):
            value = _multiply(value, operator, self.sign())
        return value

    def sign(self) -> Number:
        self.depth += 1
        if self.depth > 60:
            raise ToolError("the expression is nested too deeply; split it into smaller ones", status=422)
        if operator := self.take("+", "-"):
            value = self.sign()
            value = -value if operator == "-" else value
        else:
            value = self.power()
        self.depth -= 1
        return value

    def power(self) -> Number:
        base = self.atom()
        return _power(base, self.sign()) if self.take("**", "^") else base

    def atom(self) -> Number:
        if self.take("("):
            value = self.sum()
            if not self.take(")"):
                raise ToolError("a parenthesis is not closed", status=422)
            return value
        if self.at < len(self.tokens) and (self.tokens[self.at][0].isdigit() or self.tokens[self.at][0] == "."):
            self.at += 1
            text = self.tokens[self.at - 1]
            return _checked(float(text) if "." in text else int(text))
        raise self.surprise()


def _share(found: re.Match[str]) -> str:
    """`17% of 2,340` as an expression."""
    return f"({found[1]} / 100) * {found[2].replace(',', '')}"


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    text, at = _SHARE.sub(_share, text.translate(_SAME)).rstrip(), 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            rest = text[at:].lstrip()[:20]
            raise ToolError(f"cannot read {rest!r}; use numbers with + - * / ** % and parentheses", status=422)
        tokens.append(match[1] or match[2])
        at = match.end()
    return tokens


def _multiply(left: Number, operator: str, right: Number) -> Number:
    if operator == "*":
        return _checked(left * right)
    if right == 0:
        raise ToolError("division by zero", status=422)
    if operator == "%":
        return _checked(left % right)
    exact = isinstance(left, int) and isinstance(right, int) and left % right == 0
    return _checked(left // right if exact else left / right)


def _power(base: Number, exponent: Number) -> Number:
    if base == 0 and exponent < 0:
        raise ToolError("division by zero", status=422)
    if base < 0 and not float(exponent).is_integer():
        raise ToolError("a negative number has no real power of a fraction", status=422)
    # Before the power is taken: 9**9**9 would not end.
    if base != 0 and math.log10(abs(base)) * exponent > 16:
        _checked(math.inf)
    result: Number = base**exponent
    return _checked(result)
