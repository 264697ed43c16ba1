"""The only door to stdout and stderr: what is written passes through `safe`, so that no text controls the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TextIO

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from agentft.display.safe import safe_json, safe_line, safe_str

__all__ = [
    "SafeConsole",
    "json_stream",
    "only_json",
    "open_console",
    "say",
    "say_json",
    "say_json_rows",
    "say_path",
    "say_text",
    "waiting",
    "write_drawn",
]

_STREAMS: list[TextIO] = []


class SafeConsole(Console):
    """A console that shows control characters of every text as `safe_str` does, whoever made the text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does; rich's own control segments stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else safe_str(text), style, control)


def open_console(*, stderr: bool = False, quiet: bool = False) -> SafeConsole:
    """A console on stdout or stderr that reads no markup; `quiet` shows nothing."""
    return SafeConsole(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show on stderr what takes time: a spinner on a terminal; elsewhere one line, if it takes longer than a second."""
    console = open_console(stderr=True)
    if console.is_terminal:
        with console.status(Text(f"{safe_line(text)} ...", "dim")):
            yield
        return
    timer = Timer(1.0, say, [f"{text} ..."], {"err": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def say(*lines: str, err: bool = False) -> None:
    """Write each text as one line to stdout or stderr; a newline inside it is shown as `␊`."""
    for line in lines:
        typer.echo(safe_line(line), err=err)


def say_text(text: str, *, err: bool = False) -> None:
    """Write a text of several lines, such as a traceback."""
    typer.echo(safe_str(text), err=err)


def say_path(path: Path) -> None:
    """Write a path to stdout: safe on a terminal, and byte for byte for a program that reads it."""
    if sys.stdout.isatty():
        say(str(path))
    else:
        typer.echo(os.fsencode(path))


@contextmanager
def only_json() -> Iterator[None]:
    """Let only `say_json` and `say_json_rows` write to stdout: what libraries print goes to stderr."""
    from agentft.toolset import stdout_to_stderr

    with stdout_to_stderr() as stream:
        _STREAMS.append(stream)
        try:
            yield
        finally:
            _STREAMS.pop().flush()


def json_stream() -> TextIO | None:
    """The stream of JSON documents; None: stdout."""
    return _STREAMS[-1] if _STREAMS else None


def say_json(value: object, indent: int | None = None) -> None:
    """Write one JSON document to stdout."""
    typer.echo(safe_json(value, indent), json_stream())


def say_json_rows(name: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Write the document `{name: [rows]}` to stdout row by row, so that many rows need little memory."""
    typer.echo(f'{{"{name}": [', json_stream(), nl=False)
    for index, row in enumerate(rows):
        typer.echo((", " if index else "") + safe_json(row), json_stream(), nl=False)
    typer.echo("]}", json_stream())


def write_drawn(text: str) -> None:
    """Write what a SafeConsole has drawn, with its control sequences."""
    sys.stdout.write(text)
    sys.stdout.flush()
