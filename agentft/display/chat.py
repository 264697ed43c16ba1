"""What the terminal agent shows: streamed answers, calls as panels, notes. What a model wrote is never markup."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.highlighter import JSONHighlighter
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from agentft.display.safe import safe_str, safe_text
from agentft.types import Exchange, Part, Step, ToolCall

__all__ = ["ChatView", "Stream", "call_panel", "spoken", "status_line"]

Parse = Callable[[str], tuple[Part, ...]]

MARGIN = "  "
WIDEST = 100  # lines longer than this are hard to read
ONE_LINE = 72  # JSON up to this width stays on one line
LINES_SHOWN = 24  # of a result; the model gets all of it
# While text streams in, a tail that may turn out to begin a call (or is only space so far) waits.
WAITING = re.compile(r"\s*(<[^\s<>]{0,40})?\Z")


def spoken(text: str, parse: Parse, *, whole: bool) -> str:
    """The part of a model's text that is meant for the reader: all before its first call.

    If it is not yet `whole`, a tail that may begin a call is left out.
    """
    calls = [part.span.start for part in parse(text) if isinstance(part, ToolCall)]
    if calls:
        return text[: calls[0]].rstrip()
    return text.rstrip() if whole else WAITING.sub("", text)


class Stream:
    """Writes a growing text with a margin, and breaks lines between words, as it comes in."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._written = 0
        self._word = ""
        self._gap = 0  # spaces before the word
        self._column = 0

    def show(self, text: str) -> None:
        """Write what is new in `text`, which begins with what was shown before."""
        new, self._written = text[self._written :], max(self._written, len(text))
        self._write("".join(map(self._place, safe_str(new).replace("\t", "    "))))

    def end(self) -> None:
        """Write the last word, and begin a new line if anything was written."""
        if self._written:
            self._write(self._flush() + "\n")

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()

    def _place(self, character: str) -> str:
        if character == "\n":
            out = self._flush() + "\n"
            self._column = self._gap = 0
            return out
        if character == " ":
            out = self._flush()
            self._gap += 1
            return out
        self._word += character
        # Chinese and its like break anywhere; a word longer than the line must break somewhere.
        breaks = cell_len(character) > 1 or cell_len(self._word) >= self._width
        return self._flush() if breaks else ""

    def _flush(self) -> str:
        """The waiting word with the space before it, on a new line if it does not fit on this one."""
        word, self._word = self._word, ""
        if not word:
            return ""
        gap, self._gap = self._gap, 0
        if self._column and self._column + gap + cell_len(word) > self._width:
            self._column, start = 0, f"\n{MARGIN}"
        else:
            gap = min(gap, max(0, self._width - cell_len(word)))  # deep indents do not push words off the line
            start = (MARGIN if not self._column else "") + " " * gap
            self._column += gap
        self._column += cell_len(word)
        return start + word

    @property
    def _width(self) -> int:
        return max(20, min(self._console.width, WIDEST) - 2 * len(MARGIN))


class ChatView:
    """The terminal of one chat. `notes` is where remarks and errors go (stderr)."""

    def __init__(self, console: Console, notes: Console, parse: Parse, *, streaming: bool = True) -> None:
        self.console = console
        self._notes = notes
        self._parse = parse
        self._streaming = streaming

    def welcome(self, model: str, fmt: str, tools: Sequence[str]) -> None:
        """Say who is talking, with which tools."""
        line = Text.assemble(("agentft chat", "bold"), " · ", safe_text(model, "cyan"), " · ", (fmt, "dim"))
        self._notes.print(line, soft_wrap=True)
        offered = ", ".join(tools) or "no tools"
        self._notes.print(safe_text(f"{offered}  ·  /help for commands, Ctrl-D to leave", "dim"), soft_wrap=True)

    def echo(self, text: str) -> None:
        """Show a question that was not typed here (piped input)."""
        self.console.print(Text.assemble(("› ", "bold cyan"), safe_text(text, "bold")))

    @contextmanager
    def listening(self) -> Iterator[Callable[[int, str], None] | None]:
        """While the model speaks: gives what to call with each piece of text, None if nothing is streamed."""
        waiting = self.console.status(Text("thinking", "dim"), spinner="dots")
        stream, heard = Stream(self.console), ""

        def hear(index: int, piece: str) -> None:
            del index
            nonlocal heard
            heard += piece
            if said := spoken(heard, self._parse, whole=False).lstrip("\n"):
                waiting.stop()
                stream.show(said)

        waiting.start()
        try:
            yield hear if self._streaming else None
        finally:
            waiting.stop()
            if said := spoken(heard, self._parse, whole=True).lstrip("\n"):
                stream.show(said)
            stream.end()

    def step(self, step: Step) -> None:
        """Show what one completion led to: its text if it was not streamed, its calls, what was said after them."""
        if not self._streaming:
            self._say(spoken(step.completion, self._parse, whole=True).strip("\n"))
        for exchange in step.exchanges:
            span = exchange.call.span
            self.console.print(call_panel(exchange, step.completion[span.start : span.end]))
        ends = [part.span.end for part in step.parts if isinstance(part, ToolCall)]
        self._say(step.completion[ends[-1] :].strip() if ends else "")

    def _say(self, text: str) -> None:
        stream = Stream(self.console)
        stream.show(text)
        stream.end()

    def answered(self, steps: Sequence[Step], seconds: float) -> None:
        """The line under an answer."""
        self.console.print(Text(MARGIN + status_line(steps, seconds), "dim"))
        self.console.print()

    def show(self, renderable: RenderableType) -> None:
        """Show something of ours (a table, the help)."""
        self.console.print(renderable)

    def note(self, text: str, style: str = "yellow") -> None:
        """A remark about the chat itself."""
        self._notes.print(safe_text(text, style), soft_wrap=True)


def status_line(steps: Sequence[Step], seconds: float) -> str:
    """`2 calls · 87 tokens · 3.2 s · 27 tokens/s`; the seconds hold everything, the tools too."""
    calls, tokens = sum(len(step.exchanges) for step in steps), sum(step.tokens for step in steps)
    parts = [f"{calls} call{'s' * (calls != 1)}"] if calls else []
    parts += [f"{tokens} token{'s' * (tokens != 1)}", f"{seconds:.1f} s"]
    rate = tokens / max(seconds, 0.001)
    return " · ".join([*parts, f"{rate:.{int(rate < 10)}f} tokens/s"] if seconds > 0.1 else parts)


def call_panel(exchange: Exchange, written: str) -> Constrain:
    """A call with its arguments and what came back; the border says how it went.

    `written`: the call as the model wrote it, shown where it could not be read.
    """
    call = exchange.call
    colour = "yellow" if exchange.status is None else "red" if exchange.is_error else "green"
    readable = call.parse_error is None
    asked = _pretty(json.dumps(dict(call.arguments), ensure_ascii=False)) if readable else safe_text(written, "red")
    panel = Panel(
        Group(asked, Rule(style="dim"), _pretty(exchange.received)),
        title=Text.assemble("⚙ ", safe_text(call.name or "unreadable call", f"bold {colour}")),
        title_align="left",
        subtitle=_outcome(exchange),
        subtitle_align="right",
        border_style=colour,
        padding=(0, 1),
    )
    return Constrain(panel, WIDEST)


def _outcome(exchange: Exchange) -> Text:
    if exchange.status is None:
        return safe_text("not sent" if exchange.sent is None else "no answer", "yellow")
    return safe_text(f"{exchange.method} {exchange.url} · {exchange.status}", "dim")


def _pretty(text: str) -> Text:
    """JSON with colours, over several lines if it is long; anything else as it is. A cut is said, with its size."""
    value = None
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        line = json.dumps(value, ensure_ascii=False)
        text = line if cell_len(line) <= ONE_LINE else json.dumps(value, ensure_ascii=False, indent=2)
    lines = text.split("\n")
    kept = safe_text("\n".join(lines[:LINES_SHOWN]))
    if isinstance(value, dict | list):
        JSONHighlighter().highlight(kept)
    if len(lines) > LINES_SHOWN:
        kept.append(f"\n… {len(lines) - LINES_SHOWN} more lines", "dim")
    return kept
