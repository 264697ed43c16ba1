"""Where a chat's lines come from: a pipe, or a terminal without an editor."""

from __future__ import annotations

import io
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, Protocol, TextIO

__all__ = ["Reader", "line_reader", "plain_reader", "quiet_terminal"]


class Reader(Protocol):
    """Reads the next line. Raises EOFError at the end of the input and KeyboardInterrupt on Ctrl-C."""

    def __call__(self, prompt: str, text: str = "", /) -> str:
        """`prompt`: shown before the line on a terminal. `text`: is there to be edited."""


def line_reader(stream: TextIO) -> Reader:
    """One question per line, for piped input. Bytes that are not UTF-8 become replacement characters."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8-sig", errors="replace")

    def read(_: str, __: str = "", /) -> str:
        line = stream.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    return read


def plain_reader(prompt: str, text: str = "", /) -> str:
    """Reads a line on a terminal that cannot move its cursor."""
    return input(f"{prompt}[{text}] " if text else prompt) or text


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """Keep what is typed on stdin, a terminal, before the input line appears for it, instead of showing it.

    SIGTERM and SIGHUP end the block, so that the terminal is never left like this.
    """
    before = termios.tcgetattr(sys.stdin)
    quiet = [*before]
    quiet[0] = before[0] & ~termios.ICRNL
    quiet[3] = before[3] & ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    usual = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        with suppress(termios.error):  # of a terminal that is gone
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        for number, handler in usual.items():
            signal.signal(number, handler)


def _leave(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)
