"""The terminal agent's display: streamed replies, calls as panels, notes. Text from a model is never read as markup."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.highlighter import JSONHighlighter
from rich.panel import Panel
from rich.rule import Rule
from rich.status import Status
from rich.text import Text

from agentft.display.safe import safe_name, safe_str, safe_text
from agentft.json_text import UnreadableError, parse_json
from agentft.models import CallStarted, Delta, OnDelta, TextDelta
from agentft.types import Exchange, Part, Step, ToolCall
from agentft.types import Text as TextPart

__all__ = ["ChatView", "Stream", "call_panel", "status_line"]

MARGIN = "  "
WIDEST = 100  # lines longer than this are hard to read
ONE_LINE = 72  # JSON up to this width stays on one line
LINES_SHOWN = 24  # of a result; the model receives all of it
THOUGHT_STYLE = "dim"


class Stream:
    """Writes a growing text with a margin, and wraps lines between words while the text arrives."""

    def __init__(self, console: Console, style: str = "") -> None:
        self._console = console
        self._style = style
        self._written = 0
        self._word = ""
        self._gap = 0  # spaces before the word
        self._column = 0

    def show(self, text: str) -> None:
        """Write the part of `text` that has not been shown yet."""
        new, self._written = text[self._written :], max(self._written, len(text))
        self._write("".join(map(self._place, safe_str(new).replace("\t", "    "))))

    def end(self) -> None:
        """Write the last word, and start a new line if anything was written."""
        if self._written:
            self._write(self._flush() + "\n")

    def _write(self, text: str) -> None:
        self._console.print(Text(text, self._style), end="", soft_wrap=True)
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
        # CJK text may break between any characters, and a word longer than the line must break somewhere.
        breaks = cell_len(character) > 1 or cell_len(self._word) >= self._width
        return self._flush() if breaks else ""

    def _flush(self) -> str:
        """The pending word with the space before it, on a new line if it does not fit on this one."""
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


class _LiveReply:
    """Shows the text of one reply while it is generated, thoughts dimmed, up to its first call."""

    def __init__(self, console: Console, waiting: Status) -> None:
        self._console = console
        self._waiting = waiting
        self._stream = Stream(console)
        self._text = ""
        self._is_thought = False
        self._calls = False

    def add(self, index: int, delta: Delta) -> None:
        """Show a delta of the only request."""
        del index
        if isinstance(delta, CallStarted):
            self._calls = True
            self._end_stream()
            self._waiting.update(Text(f"calling {safe_str(delta.name)}".rstrip(), "dim"))
            self._waiting.start()
        elif isinstance(delta, TextDelta) and not self._calls:
            if delta.thought != self._is_thought:
                self._end_stream()
                self._stream = Stream(self._console, THOUGHT_STYLE if delta.thought else "")
                self._is_thought = delta.thought
            self._text += delta.text
            if shown := _trim(self._text):
                self._waiting.stop()
                self._stream.show(shown)

    def end(self) -> None:
        """Show the rest, and remove the waiting line."""
        self._waiting.stop()
        self._end_stream()

    def _end_stream(self) -> None:
        self._stream.end()
        self._stream = Stream(self._console)
        self._text = ""


class ChatView:
    """The terminal of one chat. `notes` receives remarks and errors (stderr)."""

    def __init__(self, console: Console, notes: Console, *, streaming: bool = True) -> None:
        self.console = console
        self._notes = notes
        self._streaming = streaming

    def welcome(self, model: str, source: str, tools: Sequence[str]) -> None:
        """Show the model, the format of its turns, and the tools."""
        line = Text.assemble(("agentft chat", "bold"), " · ", safe_text(model, "cyan"), " · ", (source, "dim"))
        self._notes.print(line, soft_wrap=True)
        offered = ", ".join(tools) or "no tools"
        self._notes.print(safe_name(f"{offered}  ·  /help for commands, Ctrl-D to leave", "dim"), soft_wrap=True)

    def echo(self, text: str) -> None:
        """Show a question that was not typed here (piped input)."""
        self.console.print(Text.assemble(("› ", "bold cyan"), safe_text(text, "bold")))

    @contextmanager
    def listening(self) -> Iterator[OnDelta | None]:
        """Enter while the model generates; yields the callback for its deltas, or None without streaming."""
        waiting = self.console.status(Text("thinking", "dim"), spinner="dots")
        reply = _LiveReply(self.console, waiting)
        waiting.start()
        try:
            yield reply.add if self._streaming else None
        finally:
            reply.end()

    def step(self, step: Step) -> None:
        """Show a step: its text unless it was streamed, its calls with their results, and the text after them."""
        calls = [place for place, part in enumerate(step.parts) if isinstance(part, ToolCall)]
        if not self._streaming:
            self._show_text(step, 0, calls[0] if calls else len(step.parts))
        for exchange in step.exchanges:
            self.console.print(call_panel(exchange, _written(step, exchange.call)))
        if calls:
            self._show_text(step, calls[-1] + 1, len(step.parts), space=False)

    def _show_text(self, step: Step, start: int, end: int, *, space: bool = True) -> None:
        """Show the text of some parts, thoughts dimmed; a tool result that the model made up is text.

        `space`: keep white space before the text.
        """
        reply = _LiveReply(self.console, self.console.status(""))
        for part in step.parts[start:end]:
            text = part.text if isinstance(part, TextPart) else _written(step, part)
            text = text if space else text.lstrip()
            space = space or bool(text)
            reply.add(0, TextDelta(text, isinstance(part, TextPart) and part.thought))
        reply.end()

    def answered(self, steps: Sequence[Step], seconds: float) -> None:
        """Show the line under an answer."""
        self.console.print(Text(MARGIN + status_line(steps, seconds), "dim"))
        self.console.print()

    def show(self, renderable: RenderableType) -> None:
        """Show a table or the help."""
        self.console.print(renderable)

    def note(self, text: str, style: str = "yellow") -> None:
        """Show a note about the chat itself."""
        self._notes.print(safe_name(text, style), soft_wrap=True)


def _trim(text: str) -> str:
    """The text without leading newlines and trailing white space."""
    return text.rstrip().lstrip("\n")


def _written(step: Step, part: Part) -> str:
    """The part as the model wrote it; empty for a model that returns structured parts."""
    return (step.raw or "")[part.span.start : part.span.end]


def status_line(steps: Sequence[Step], seconds: float) -> str:
    """`2 calls · 87 tokens · 3.2 s · 27 tokens/s`; the seconds include the tools' time."""
    calls, tokens = sum(len(step.exchanges) for step in steps), sum(step.tokens for step in steps)
    parts = [f"{calls} call{'s' * (calls != 1)}"] if calls else []
    parts += [f"{tokens} token{'s' * (tokens != 1)}", f"{seconds:.1f} s"]
    rate = tokens / max(seconds, 0.001)
    return " · ".join([*parts, f"{rate:.{int(rate < 10)}f} tokens/s"] if seconds > 0.1 else parts)


def call_panel(exchange: Exchange, written: str) -> Constrain:
    """A call with its arguments and its result; the border's colour shows whether it succeeded.

    Args:
        written: the call as the model wrote it, shown if it could not be read.
    """
    call = exchange.call
    colour = "yellow" if exchange.status is None else "red" if exchange.is_error else "green"
    if call.parse_error is None:
        request = _pretty(json.dumps(dict(call.arguments), ensure_ascii=False))
    else:
        request = safe_text(written or str(call.parse_error), "red")
    panel = Panel(
        Group(request, Rule(style="dim"), _pretty(exchange.received)),
        title=Text.assemble("⚙ ", safe_name(call.name or "unreadable call", f"bold {colour}")),
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
    """JSON in colours, on several lines if it is long; other text unchanged. Shows how many lines were cut."""
    value = None
    with suppress(UnreadableError):
        value = parse_json(text, unique_keys=True)
        line = json.dumps(value, ensure_ascii=False)
        text = line if cell_len(line) <= ONE_LINE else json.dumps(value, ensure_ascii=False, indent=2)
    lines = text.split("\n")
    kept = safe_text("\n".join(lines[:LINES_SHOWN]))
    if isinstance(value, dict | list):
        JSONHighlighter().highlight(kept)
    if len(lines) > LINES_SHOWN:
        kept.append(f"\n… {len(lines) - LINES_SHOWN} more lines", "dim")
    return kept
