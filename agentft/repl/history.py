"""Commands that go back: the conversation and the worlds' states together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text

from agentft.display.safe import safe_name
from agentft.errors import InputError

if TYPE_CHECKING:
    from agentft.repl.loop import Repl

__all__ = ["edit", "retry", "rewind", "undo"]


def undo(repl: Repl, _: str) -> None:
    """`/undo`: take the last round back."""
    question = repl.session.rewind(_number(repl, ""))
    repl.view.note(f"undone, with what its calls changed: {question}", "dim")


def retry(repl: Repl, _: str) -> None:
    """`/retry`: ask the last question again; when sampling, with another seed."""
    session = repl.session
    question = session.rewind(_number(repl, ""))
    if session.sampling.temperature > 0:
        session.sampling = replace(session.sampling, seed=session.sampling.seed + 1)
    repl.answer(question)


def edit(repl: Repl, rest: str) -> None:
    """`/edit [N]`: put a question into the input line, and ask what the person makes of it."""
    number = _number(repl, rest)
    text = repl.read("question › ", repl.session.rounds[number - 1].question).strip()
    if text:
        repl.session.rewind(number)
        repl.answer(text)


def rewind(repl: Repl, rest: str) -> None:
    """`/rewind N`: go back to before round N; without N, list the rounds."""
    rounds = repl.session.rounds
    if not rest and rounds:
        lines = [Text.assemble((f"{at:>4} ", "cyan"), safe_name(one.question)) for at, one in enumerate(rounds, 1)]
        repl.view.show(Text("\n").join(lines))
        return
    number = _number(repl, rest)
    question = repl.session.rewind(number)
    repl.view.note(f"back to before round {number}, the tools' state too: {question}", "dim")


def _number(repl: Repl, rest: str) -> int:
    """The number of a round; the last one by default."""
    count = len(repl.session.rounds)
    if not count:
        raise InputError("nothing was asked yet")
    if not rest:
        return count
    if not rest.isdecimal() or not 1 <= int(rest) <= count:
        raise InputError(f"there is no round {rest}; rounds are counted from 1 to {count} (/rewind lists them)")
    return int(rest)
