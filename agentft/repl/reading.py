"""Where questions come from: a line editor on a terminal, plain lines otherwise."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

__all__ = ["Reader", "line_reader", "terminal_reader"]

Reader = Callable[[], str]
"""Gives the next question; raises EOFError at the end and KeyboardInterrupt on Ctrl-C."""


def line_reader(stream: TextIO) -> Reader:
    """One question a line, for piped input. Bytes that are no UTF-8 become replacement characters."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8-sig", errors="replace")

    def read() -> str:
        line = stream.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    return read


def terminal_reader(history: Path, commands: Sequence[str]) -> Reader:
    """Line editing with history and completion of commands; a pasted text may hold several lines."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.formatted_text import FormattedText
    from prompt_toolkit.history import FileHistory

    history.parent.mkdir(parents=True, exist_ok=True)
    history.touch(mode=0o600)
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        prompt_continuation=FormattedText([("ansibrightblack", "· ")]),
    )
    prompt = FormattedText([("bold ansicyan", "› ")])
    return lambda: session.prompt(prompt)
