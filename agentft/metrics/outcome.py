"""Metrics of outcomes: the final answer, the end state of the tools, recovery from a tool error.

Numbers in answers are compared as numbers: 1,234 equals 1234 and 1234.0.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

from agentft.metrics.matching import case_matchings
from agentft.metrics.reading import Context, exchanges, final_text
from agentft.types import Case, Score, Trajectory

__all__ = ["answer", "contains_value", "end_state", "recovery"]

# Not inside a word or another number ("p17" does not contain 17). Matches grouped thousands, fractions, exponents.
_NUMBER = re.compile(r"(?<![\dA-Za-z_])(?<!\d\.)(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WHOLE = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?")
# A sign touches its number: "- 7" is a list item, "5-7" a range.
_MINUS = re.compile(r"(?:(?<![\w)])[-–]|\bminus |\bnegative |零下 ?|负 ?)$")
_WORD = re.compile(r"[0-9A-Za-z_]")


def answer(case: Case, trajectory: Trajectory, _context: Context) -> Score:
    """1 if the final answer of each turn contains all `answer` values of the turn, else 0."""
    if not any(turn.answer for turn in case.turns):
        return Score(None, "the case expects no values")
    for index, turn in enumerate(case.turns):
        text = final_text(trajectory, index)
        missing = [value for value in turn.answer if not contains_value(text, value)]
        if missing:
            return Score(0.0, f"turn {index}: the answer lacks {missing[0]!r}" if text else f"turn {index}: no answer")
    return Score(1.0, "the answer contains every value")


def end_state(_case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if the final state equals the state after the expected calls, else 0. Applies if an expected call writes."""
    if context.gold_state is None:
        return Score(None, "no expected call writes")
    if trajectory.state == context.gold_state:
        return Score(1.0, "the state is as expected")
    return Score(0.0, "the state is not as expected")


def recovery(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if every turn that expects a tool error ends with all required calls made and an answer, else 0.

    Extra calls do not lower `recovery`; they lower `exact_call`.
    """
    if not any(turn.failing for turn in case.turns):
        return Score(None, "the case expects no tool error")
    failed = False
    for index, (turn, matching) in enumerate(zip(case.turns, case_matchings(case, trajectory, context), strict=True)):
        if not turn.failing:
            continue
        failed = failed or any(exchange.is_error for exchange in exchanges(trajectory, index))
        if not all(pair.exact for pair in matching.pairs if pair.required):
            return Score(0.0, f"turn {index}: the right call was not made{' after the tool error' if failed else ''}")
        if not final_text(trajectory, index):
            return Score(0.0, f"turn {index}: there is no answer")
    return Score(1.0, "answered after the tool error" if failed else "avoided the tool error")


def contains_value(text: str, value: str) -> bool:
    """Whether `text` contains `value`: as a number if it is one, else as whole words. Ignores case and width."""
    text, value = _normalise(text), _normalise(value)
    if _WHOLE.fullmatch(value):
        return _number(value) in _numbers(text)
    before = r"(?<![0-9A-Za-z_])" if _WORD.match(value) else ""
    after = r"(?![0-9A-Za-z_])" if _WORD.match(value[-1:]) else ""
    return re.search(f"{before}{re.escape(value)}{after}", text) is not None


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
