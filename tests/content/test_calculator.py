"""The calculator agrees with Python's own arithmetic, and refuses what it must not compute."""

from __future__ import annotations

import ast
import math
import operator
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentft.errors import ToolError
from agentft.toolset import load_toolset
from agentft.types import Json

CALCULATOR = load_toolset("calculator")
STATE = CALCULATOR.new_state()
Number = int | float
Tree = tuple[str, Number | None]  # the text of an expression, and its value; None: it must be refused


def ask(tool: str, /, **arguments: Json) -> dict[str, Any]:
    result = CALCULATOR.call(tool, arguments, STATE)
    assert isinstance(result, dict)
    return result


def refusal(tool: str, /, **arguments: Json) -> tuple[int, str]:
    with pytest.raises(ToolError) as caught:
        CALCULATOR.call(tool, arguments, STATE)
    return caught.value.status, str(caught.value)


def combine(sign: str, left: Tree, right: Tree) -> Tree:
    text = f"({left[0]}) {sign} ({right[0]})"
    a, b = left[1], right[1]
    if a is None or b is None:
        return text, None
    try:
        value = {"+": a + b, "-": a - b, "*": a * b}[sign] if sign in "+-*" else divide(sign, a, b)
    except (ZeroDivisionError, OverflowError):
        return text, None
    return text, value if not isinstance(value, complex) and abs(value) <= 1e15 else None


def divide(sign: str, a: Number, b: Number) -> Number | complex:
    if sign == "/":
        return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b
    if sign == "%":
        return a % b
    if a and b * math.log10(abs(a)) > 400:
        raise OverflowError
    power: Number | complex = a**b
    return power


leaves: st.SearchStrategy[Tree] = st.integers(0, 200).map(lambda n: (str(n), n)) | st.decimals(0, 100, places=2).map(
    lambda d: (str(d), float(d))
)
trees: st.SearchStrategy[Tree] = st.recursive(
    leaves,
    lambda inner: (
        st.builds(combine, st.sampled_from(["+", "-", "*", "/", "%", "**"]), inner, inner)
        | inner.map(lambda tree: (f"-({tree[0]})", None if tree[1] is None else -tree[1]))
    ),
    max_leaves=8,
).filter(lambda tree: len(tree[0]) <= 200)


@settings(deadline=None)
@given(trees)
def test_results_are_pythons(tree: Tree) -> None:
    text, value = tree
    if value is None:
        assert refusal("calculate", expression=text)[0] == 422
        return
    result = ask("calculate", expression=text)["result"]
    assert result == pytest.approx(value, abs=6e-7, rel=1e-12)
    assert isinstance(result, int) == (isinstance(value, int) or float(round(value, 6)).is_integer())


OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def oracle(node: ast.AST) -> Any:
    """What Python's own grammar makes of an expression."""
    match node:
        case ast.BinOp():
            return OPERATORS[type(node.op)](oracle(node.left), oracle(node.right))
        case ast.UnaryOp():
            return OPERATORS[type(node.op)](oracle(node.operand))
        case ast.Constant():
            return node.value
    raise TypeError(node)


@given(st.lists(st.sampled_from(["1", "2", "30", "0.5", "+", "-", "*", "/", "%", "**", "(", ")", " "]), max_size=20))
def test_precedence_and_syntax_are_pythons(pieces: list[str]) -> None:
    text = " ".join(pieces)
    try:
        expected = None if text.count("**") > 1 else oracle(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, TypeError, OverflowError):
        assert refusal("calculate", expression=text)[0] == 422
        return
    if isinstance(expected, int | float) and abs(expected) <= 1e15:
        assert ask("calculate", expression=text)["result"] == pytest.approx(expected, abs=6e-7, rel=1e-12)


@given(st.text(max_size=250))
def test_any_text_is_computed_or_refused(text: str) -> None:
    try:
        result = ask("calculate", expression=text)["result"]
    except ToolError:
        return
    assert isinstance(result, int | float)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("2 + 3 * 4", 14),
        ("-2 ** 2", -4),
        ("2 ** -1", 0.5),
        ("2 ** 3 ** 2", 512),
        ("-7 % 3", 2),
        ("17% of 2,340", 397.8),
        ("17 percent of 2340", 397.8),
        ("12.5 % OF (40 + 40) + 1", 11),
        ("17 % 2340", 17),
        ("10 / 4", 2.5),
        ("10 / 5", 2),
        ("1.5 * 2", 3),
        ("0.1 + 0.2", 0.3),
        ("1 / 3", 0.333333),
        (".5 + 1.", 1.5),
        ("2^10", 1024),
        ("3 × 4 ÷ 2 − 1", 5),
        ("（1 + 2）* 3", 9),
        ("+-+1", -1),
        ("0 ** 0", 1),
        ("-0.0", 0),
    ],
)
def test_known_results(expression: str, result: Number) -> None:
    answer = ask("calculate", expression=expression)
    assert answer == {"expression": expression, "result": result}
    assert type(answer["result"]) is type(result)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1 / 0", "division by zero"),
        ("5 % (2 - 2)", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("", "the expression ends too early; use numbers with + - * / ** % and parentheses"),
        ("1 +", "the expression ends too early; use numbers with + - * / ** % and parentheses"),
        ("(1 + 2", "a parenthesis is not closed"),
        ("1 + 2)", "unexpected ')'; use numbers with + - * / ** % and parentheses"),
        ("sin(3)", "cannot read 'sin(3)'; use numbers with + - * / ** % and parentheses"),
        ("__import__('os')", "cannot read \"__import__('os')\"; use numbers with + - * / ** % and parentheses"),
        ("1,000 + 1", "cannot read ',000 + 1'; use numbers with + - * / ** % and parentheses"),
        ("9**9**9", "the number is too large; numbers up to 1e15 are allowed"),
        ("9" * 30, "the number is too large; numbers up to 1e15 are allowed"),
        ("(0 - 8) ** 0.5", "a negative number has no real power of a fraction"),
        ("(" * 90 + "1" + ")" * 90, "the expression is nested too deeply; split it into smaller ones"),
        ("-" * 100 + "1", "the expression is nested too deeply; split it into smaller ones"),
        ("1" + " + 1" * 60, "the expression has 241 characters; at most 200 are allowed"),
    ],
)
def test_refusals(expression: str, message: str) -> None:
    assert refusal("calculate", expression=expression) == (422, message)


@pytest.mark.parametrize("expression", ["9**9**9", "9**9**9**9", "1**10**15", "0.5**10**15", "10**15**-400"])
def test_no_expression_takes_long(expression: str) -> None:
    started = time.process_time()
    try:
        ask("calculate", expression=expression)
    except ToolError as error:
        assert error.status == 422  # noqa: PT017  (either outcome is fine; waiting is not)
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    ("value", "from_unit", "to_unit", "result"),
    [
        (10, "km", "mile", 6.21),
        (10, "kilometers", "Miles", 6.21),
        (5, "公里", "米", 5000),
        (100, "°C", "°F", 212),
        (98.6, "fahrenheit", "celsius", 37),
        (0, "摄氏度", "K", 273.15),
        (-40, "degrees celsius", "degrees fahrenheit", -40),
        (1, "lb", "g", 453.59),
        (3, "斤", "公斤", 1.5),
        (2, "gallons", "liters", 7.57),
        (100, "km/h", "mph", 62.14),
        (2, "hours", "min", 120),
        (5, "mm", "km", 0.000005),
    ],
)
def test_conversions(value: float, from_unit: str, to_unit: str, result: float) -> None:
    answer = ask("convert_units", value=value, from_unit=from_unit, to_unit=to_unit)
    assert answer == {"value": value, "from_unit": from_unit, "to_unit": to_unit, "result": result}


UNITS: dict[str, tuple[str, float, float]] = STATE["units"]
UNIT_NAMES: dict[str, str] = STATE["unit_names"]


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_converts_to_itself_and_its_names(unit: str) -> None:
    assert UNITS[unit][0] in {"length", "mass", "temperature", "volume", "speed", "time"}
    for name in [unit, *(name for name, target in UNIT_NAMES.items() if target == unit)]:
        assert ask("convert_units", value=42, from_unit=unit, to_unit=name)["result"] == 42


def test_unit_names_are_lower_case_and_have_a_unit() -> None:
    assert set(UNIT_NAMES.values()) <= set(UNITS)
    assert all(name == name.casefold() for name in [*UNITS, *UNIT_NAMES])
    assert not set(UNITS) & set(UNIT_NAMES)


@pytest.mark.parametrize(
    ("from_unit", "to_unit", "message"),
    [
        ("killometers", "m", "unknown unit 'killometers'; did you mean 'kilometers'?"),
        ("km", "smoot", "unknown unit 'smoot'; known units: mm, cm, m, km, inch, "),
        ("km", "kg", "cannot convert 'km' to 'kg': 'km' is a unit of length, 'kg' of mass"),
    ],
)
def test_a_wrong_unit_is_refused_with_a_remedy(from_unit: str, to_unit: str, message: str) -> None:
    status, text = refusal("convert_units", value=1, from_unit=from_unit, to_unit=to_unit)
    assert status == 422
    assert text.startswith(message)


@pytest.mark.parametrize("value", [1e300, -1e300, 10**40])
def test_huge_values_are_refused(value: float) -> None:
    assert "too large" in refusal("convert_units", value=value, from_unit="km", to_unit="mm")[1]
    assert "too large" in refusal("store_number", name="x", value=value)[1]


def test_numbers_are_remembered_by_session_state() -> None:
    state = CALCULATOR.new_state()
    CALCULATOR.call("store_number", {"name": " rent ", "value": 950}, state)
    assert CALCULATOR.call("recall_number", {"name": "rent"}, state) == {"name": "rent", "value": 950}
    with pytest.raises(ToolError, match="no number is stored as 'food'; stored: pi, rent") as caught:
        CALCULATOR.call("recall_number", {"name": "food"}, state)
    assert caught.value.status == 404
    assert refusal("store_number", name=" ", value=1)[0] == 422
