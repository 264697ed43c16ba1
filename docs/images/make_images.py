"""Draws the pictures of the documentation from a finished quickstart: `python docs/images/make_images.py RUN`.

RUN is the run folder of `agentft quickstart`. evaluation.svg is the table of its stored evaluation; chat.svg is a chat
with its adapter. Neither is edited by hand.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import rich.console
from rich.console import Console
from rich.text import Text

from agentft.commands import run
from agentft.display.evaluation import show_summary

HERE = Path(__file__).parent
WIDTH = 84
QUESTIONS = "What is the weather like in Paris?\nWhat is 17 * 23?\n"


def draw_evaluation(folder: Path) -> None:
    """The table that `agentft quickstart` ended with."""
    summary = json.loads((folder / "eval" / "quickstart" / "summary.json").read_text(encoding="utf-8"))
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(show_summary(summary))
    console.save_svg(str(HERE / "evaluation.svg"), title="agentft quickstart", unique_id="evaluation")


@contextlib.contextmanager
def asking(questions: str) -> Iterator[None]:
    """Standard input that holds the questions."""
    before = sys.stdin
    sys.stdin = io.StringIO(questions)
    try:
        yield
    finally:
        sys.stdin = before


def draw_chat(folder: Path) -> None:
    """A chat, as the terminal shows it."""
    shown = io.StringIO()
    terminal = {"file": shown, "width": WIDTH, "force_terminal": True, "color_system": "truecolor"}
    real = rich.console.Console
    rich.console.Console = lambda **given: real(**{**given, **terminal})  # type: ignore[assignment,misc]
    try:
        with asking(QUESTIONS):
            code = run(["chat", "--adapter", str(folder), "--no-stream"])
    finally:
        rich.console.Console = real  # type: ignore[misc]
    if code:
        sys.exit(code)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    lines = Text.from_ansi(shown.getvalue().rstrip()).split("\n")
    # A terminal erases the spinner.
    console.print(Text("\n").join(line for line in lines if not line.plain.endswith(" thinking")))
    console.save_svg(str(HERE / "chat.svg"), title="agentft chat --adapter last", unique_id="chat")


if __name__ == "__main__":
    draw_evaluation(Path(sys.argv[1]))
    draw_chat(Path(sys.argv[1]))
