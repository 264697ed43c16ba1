"""What came of the calls: the answer that was given, the tools' end state, and what was made of a tool's error.

Numbers in answers are compared as numbers: 1,234 is 1234 is 1234.0.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

from agentft.metrics.matching import case_matchings
from agentft.metrics.reading import Context, exchanges, final_text
from agentft.types import Case, Score, Trajectory

__all__ = ["answer", "end_state", "holds", "recovery"]

# Not inside a word or another number ("p17" holds no 17); grouped thousands, a fraction, an exponent.
_NUMBER = re.compile(r"(?<![\dA-Za-z_])(?<!\d\.)(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WHOLE = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?")
# A sign stands close to its number: "- 7" is a list's bullet, "5-7" a range.
_MINUS = re.compile(r"(?:(?<![\w)])[-–]|\bminus |\bnegative |零下 ?|负 ?)$")
_WORD = re.compile(r"[0-9A-Za-z_]")


def answer(case: Case, trajectory: Trajectory, _context: Context) -> Score:
    """1 if the final answer of each turn holds all of the turn's `answer` values, else 0."""
    if not any(turn.answer for turn in case.turns):
        return Score(None, "the case names no values")
    for index, turn in enumerate(case.turns):
        text = final_text(trajectory, index)
        missing = [value for value in turn.answer if not holds(text, value)]
        if missing:
            return Score(0.0, f"turn {index}: the answer lacks {missing[0]!r}" if text else f"turn {index}: no answer")
    return Score(1.0, "the answer holds every value")


def end_state(_case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if the state is what the expected calls lead to, else 0; does not apply where none of them writes."""
    if context.gold_state is None:
        return Score(None, "no expected call writes")
    if trajectory.state == context.gold_state:
        return Score(1.0, "the state is as expected")
    return Score(0.0, "the state differs from the one after the expected calls")


def recovery(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """1 if, in the turns that hold an error, all required calls were made in the end and an answer was given, else 0.

    Further calls on the way are not held against it (`exact_call` does that).
    """
    if not any(turn.failing for turn in case.turns):
        return Score(None, "no error is expected")
    met = False
    for index, (turn, matching) in enumerate(zip(case.turns, case_matchings(case, trajectory, context), strict=True)):
        if not turn.failing:
            continue
        met = met or any(exchange.is_error for exchange in exchanges(trajectory, index))
        if not all(pair.exact for pair in matching.pairs if pair.required):
            return Score(0.0, f"turn {index}: the right call was not made{' after the error' if met else ''}")
        if not final_text(trajectory, index):
            return Score(0.0, f"turn {index}: it never came to an answer")
    return Score(1.0, "answered after the error" if met else "avoided the error")


def holds(text: str, value: str) -> bool:
    """Whether `text` holds `value`: as a number if it is one, else as words, without regard to case and width."""
    text, value = _plain(text), _plain(value)
    if _WHOLE.fullmatch(value):
        return _number(value) in _numbers(text)
    before = r"(?<![0-9A-Za-z_])" if _WORD.match(value[:1]) else ""
    after = r"(?![0-9A-Za-z_])" if _WORD.match(value[-1:]) else ""
    return re.search(f"{before}{re.escape(value)}{after}", text) is not None


def _plain(text: str) -> str:
    # Before NFKC makes a comma of it: "20，150" is two numbers.
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
