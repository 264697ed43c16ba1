"""The terminal agent's display: answers as Markdown while they grow, calls as one line, notes. Nothing is markup."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.highlighter import JSONHighlighter
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from agentft.display.blocks import Blocks, Trimmed, markdown
from agentft.display.live import MARGIN, LiveArea
from agentft.display.safe import safe_line, safe_name, safe_text
from agentft.json_text import UnreadableError, parse_json
from agentft.models import CallDone, CallStarted, CallText, Delta, OnDelta, TextDelta
from agentft.strict import counted
from agentft.types import Exchange, Part, Step, ToolCall
from agentft.types import Text as TextPart

__all__ = ["ChatView", "call_line", "call_panel", "fit", "status_line"]

WIDEST = 100  # lines longer than this are hard to read
ONE_LINE = 72  # JSON up to this width stays on one line
LINES_SHOWN = 24  # of a result in a panel; /show with `all` has them all, and so has the model
MAIN_ARGUMENT = 40  # cells of a call's arguments in its line


class _Replying:
    """Shows one reply while it is generated: the text up to its first call, then the call as it grows.

    On a pipe there is only the text of the answer, as it is.
    """

    def __init__(self, view: ChatView) -> None:
        self._view = view
        self._blocks = Blocks()
        self._thought = ""
        self._held = ""  # white space that is only shown if text follows
        self._piped = False  # something was written to the pipe
        self._calls = False
        self._shown = False  # a block of this reply

    def add(self, index: int, delta: Delta) -> None:
        """Show a delta of the only request."""
        del index
        if isinstance(delta, CallStarted | CallText):
            self.end()
            self._calls = True
            self._view.writing(delta)
        elif isinstance(delta, CallDone):
            self._view.writing(None)
        elif not self._calls and delta.text:
            self._add_text(delta)

    def _add_text(self, delta: TextDelta) -> None:
        if delta.thought:
            self._end_text()
            self._thought += delta.text
            self._view.grow(safe_text(self._thought.strip()[-400:], "dim"))
            return
        self._end_thought()
        self._view.doing("answering")
        if self._view.is_piped:
            text = self._held + delta.text
            kept = text.rstrip()
            self._held = text[len(kept) :]
            self._view.write(kept if self._piped else kept.lstrip())
            self._piped = self._piped or bool(kept)
            return
        for block in self._blocks.feed(delta.text):
            self._block(block)
        growing = self._blocks.growing
        self._view.grow(markdown(growing) if growing.strip() else None, gap=self._shown)

    def end(self) -> None:
        """Show the rest."""
        self._end_thought()
        self._end_text()

    def _end_thought(self) -> None:
        thought, self._thought = self._thought.strip(), ""
        if thought:
            self._view.thought(thought)

    def _end_text(self) -> None:
        if self._piped:
            self._view.write("\n")
            self._piped, self._held = False, ""
        if rest := self._blocks.close():
            self._block(rest)

    def _block(self, text: str) -> None:
        self._view.block(text, gap=self._shown)
        self._shown = True


class ChatView:
    """The terminal of one chat. `notes` receives remarks, calls on a pipe and errors (stderr).

    Args:
        live: the lines above the input line, if there is one.
        streaming: show the text while it is generated.
    """

    def __init__(
        self, console: Console, notes: Console, *, streaming: bool = True, live: LiveArea | None = None
    ) -> None:
        self.console = console
        self.is_piped = not console.is_terminal
        self.items: list[tuple[Exchange, str] | str] = []
        self.live = live
        self._notes = notes
        self._streaming = streaming

    def welcome(self, model: str, tools: Sequence[str]) -> None:
        """Show the model and the tools."""
        self._notes.print(Text.assemble(("agentft chat", "bold"), " · ", safe_text(model, "cyan")))
        self.note(f"{', '.join(tools) or 'no tools'} · /help for commands, Ctrl-D to leave", "dim")

    def echo(self, text: str) -> None:
        """Show a question on a terminal where it is not left as it was typed."""
        if not self.is_piped:
            lines = safe_text(text, "bold").split("\n")
            self.console.print(Text.assemble(("› ", "bold cyan"), Text("\n  ").join(lines)))

    @contextmanager
    def listening(self) -> Iterator[OnDelta]:
        """Enter while the model generates; yields the callback for its deltas."""
        reply = _Replying(self)
        self.doing("thinking")
        try:
            yield reply.add
        finally:
            reply.end()
            self.doing("")

    def doing(self, text: str) -> None:
        """Show a spinner with what is happening; "" removes it."""
        if self.live is not None:
            self.live.do(safe_line(text))

    def writing(self, delta: CallStarted | CallText | None) -> None:
        """Show the call that the model writes; None: it is complete."""
        if self.live is None or delta is None:
            return
        if isinstance(delta, CallStarted):
            self.live.do(f"writing a call {delta.name}".rstrip())
        else:
            self.grow(safe_text(f"⚙ {delta.name} {' '.join(delta.text.split())[-200:]}", "dim"))

    def grow(self, renderable: RenderableType | None, *, gap: bool = False) -> None:
        """Show the text that is not finished; `gap`: after an empty line."""
        if self.live is not None and self._streaming:
            self.live.grow(None if renderable is None else _block(renderable, gap))

    def write(self, text: str) -> None:
        """Write a piece of an answer to a pipe."""
        self.console.print(safe_text(text), end="", soft_wrap=True)
        self.console.file.flush()

    def block(self, text: str, *, gap: bool = False) -> None:
        """Show a finished block of an answer; `gap`: after an empty line."""
        if self.is_piped:
            self.write(text + "\n")
        else:
            self._print(_block(markdown(text), gap))

    def thought(self, text: str) -> None:
        """Show a thought as one dimmed line; it is an item of /show."""
        if not self.is_piped:
            self.items.append(text)
            line = f"{MARGIN}∴ {len(self.items)} {' '.join(text.split())}"
            self._print(Text(fit(line, self._width), "dim"))

    def replay(self, rounds: Iterable[tuple[str, Sequence[Step]]]) -> None:
        """Show stored questions and their steps as they were."""
        for question, steps in rounds:
            self.echo(question)
            for step in steps:
                with self.listening() as add:
                    for part in step.parts:
                        add(0, TextDelta(part.text, part.thought) if isinstance(part, TextPart) else CallStarted())
                for one in step.exchanges:
                    self.exchange(one, None)
                self.step(step)
            self.console.print()

    def exchange(self, exchange: Exchange, seconds: float | None, written: str = "") -> None:
        """Show a call that was sent as one line, on a pipe on stderr; it is an item of /show."""
        self.items.append((exchange, written))
        if self.is_piped:
            self._notes.print(call_line(exchange, len(self.items), seconds, WIDEST), soft_wrap=True)
        else:
            self._print(call_line(exchange, len(self.items), seconds, self._width))

    def ask_for(self, call: ToolCall, access: str) -> None:
        """Show a call that a person must allow, with all its arguments."""
        self.doing("")
        title = Text.assemble("⚙ ", safe_name(call.name, "bold"), (f" · {access}", "yellow"))
        arguments = _pretty(json.dumps(dict(call.arguments), ensure_ascii=False), 0)
        self._print(Trimmed(Group(title, arguments), MARGIN, WIDEST))

    def step(self, step: Step) -> None:
        """Show the text after a step's calls, and calls that were written but not sent."""
        calls = [place for place, part in enumerate(step.parts) if isinstance(part, ToolCall)]
        rest = "".join(_text(step, part) for part in step.parts[calls[-1] + 1 :]).strip() if calls else ""
        if rest:
            self.block(rest)

    def answered(self, steps: Sequence[Step], seconds: float, note: str = "") -> None:
        """Show the line under an answer, and a note about how it ended."""
        if not self.is_piped:
            self.console.print(Text(MARGIN + status_line(steps, seconds), "dim"))
        if note:
            self.note(note)
        if not self.is_piped:
            self.console.print()

    def show_item(self, number: int, *, whole: bool = False) -> bool:
        """Show a call with its result, or a thought, in full; False if there is no such item."""
        if not 1 <= number <= len(self.items):
            return False
        item = self.items[number - 1]
        self.show(safe_text(item, "dim") if isinstance(item, str) else call_panel(*item, whole=whole))
        return True

    def show(self, renderable: RenderableType) -> None:
        """Show a table or the help."""
        self.console.print(renderable)

    def note(self, text: str, style: str = "yellow") -> None:
        """Show a note about the chat itself."""
        self._notes.print(safe_name(text, style), soft_wrap=self.is_piped)

    def _print(self, renderable: RenderableType) -> None:
        """Print what takes the place of the growing text."""
        if self.live is not None:
            self.live.replace_growing()
        self.console.print(renderable)

    @property
    def _width(self) -> int:
        return min(self.console.width, WIDEST)


def _block(renderable: RenderableType, gap: bool) -> RenderableType:
    block = Trimmed(renderable, MARGIN, WIDEST)
    return Group(Text(), block) if gap else block


def _text(step: Step, part: Part) -> str:
    """A part's text: a tool result that the model made up is text."""
    return part.text if isinstance(part, TextPart) else (step.raw or "")[part.span.start : part.span.end]


def fit(line: str, width: int) -> str:
    """One line of text, cut at `width` cells."""
    shown = safe_line(line[: 10 * width])
    return shown if cell_len(shown) <= width else set_cell_size(shown, max(1, width - 1)).rstrip() + "…"


def call_line(exchange: Exchange, number: int, seconds: float | None, width: int) -> Text:
    """`⚙ 1 current_weather Oslo · 200 · 12 ms · {"degrees": ...`, cut at `width` cells; a failure's reason is not.

    `seconds`: None if they are not known.
    """
    call = exchange.call
    name = safe_line(call.name) or "unreadable call"
    values = ", ".join(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in call.arguments.values())
    line = Text.assemble(("⚙ ", _colour(exchange)), (f"{number} ", "dim"), (name, f"bold {_colour(exchange)}"))
    if values:
        line.append(f" {fit(values, MAIN_ARGUMENT)}")
    line.append(f" · {(status := _status(exchange))}", "dim")
    if seconds is not None and status != "not sent":
        line.append(f" · {seconds * 1000:.0f} ms" if seconds < 1 else f" · {seconds:.1f} s", "dim")
    if exchange.is_error:
        return Text.assemble(line, " · ", safe_name(_reason(exchange.received), _colour(exchange)))
    result = " · " + " ".join(exchange.received.split())
    room = width - line.cell_len
    return line.append(fit(result, room), "dim") if room > 24 else line


def _reason(received: str) -> str:
    """What a failed call returned: its `error`, or the first 200 characters."""
    with suppress(UnreadableError):
        document = parse_json(received)
        if isinstance(document, dict) and isinstance(error := document.get("error"), str):
            return error
    return " ".join(received.split())[:200]


def _status(exchange: Exchange) -> str:
    if exchange.status is None:
        return "not sent" if exchange.sent is None else "no answer"
    return str(exchange.status)


def _colour(exchange: Exchange) -> str:
    return "yellow" if exchange.status is None else "red" if exchange.is_error else "green"


def status_line(steps: Sequence[Step], seconds: float) -> str:
    """`2 calls · 87 tokens · 3.2 s · 27 tokens/s`; the seconds are the model's alone; not all endpoints count."""
    calls, tokens = sum(len(step.exchanges) for step in steps), sum(step.tokens for step in steps)
    parts = [counted(number, noun) for number, noun in ((calls, "call"), (tokens, "token")) if number]
    parts.append(f"{seconds:.1f} s")
    rate = tokens / max(seconds, 0.001)
    return " · ".join([*parts, f"{rate:.{int(rate < 10)}f} tokens/s"] if tokens and seconds > 0.1 else parts)


def call_panel(exchange: Exchange, written: str = "", *, whole: bool = False) -> Constrain:
    """A call with its arguments and its result; the border's colour shows whether it succeeded.

    Args:
        written: the call as the model wrote it, shown if it could not be read.
        whole: show every line of the result.
    """
    call = exchange.call
    colour = _colour(exchange)
    if call.parse_error is None:
        request = _pretty(json.dumps(dict(call.arguments), ensure_ascii=False))
    else:
        request = safe_text(written or str(call.parse_error), "red")
    where = f"{exchange.method} {exchange.url} · " if exchange.status is not None else ""
    panel = Panel(
        Group(request, Rule(style="dim"), _pretty(exchange.received, 0 if whole else LINES_SHOWN)),
        title=Text.assemble("⚙ ", safe_name(call.name or "unreadable call", f"bold {colour}")),
        title_align="left",
        subtitle=safe_text(where + _status(exchange), "dim" if where else "yellow"),
        subtitle_align="right",
        border_style=colour,
        padding=(0, 1),
    )
    return Constrain(panel, WIDEST)


def _pretty(text: str, most: int = LINES_SHOWN) -> Text:
    """JSON in colours, on several lines if it is long; other text unchanged. `most`: lines shown (0: all)."""
    value = None
    with suppress(UnreadableError):
        value = parse_json(text, unique_keys=True)
        line = json.dumps(value, ensure_ascii=False)
        text = line if cell_len(line) <= ONE_LINE else json.dumps(value, ensure_ascii=False, indent=2)
    lines = text.split("\n")
    most = most or len(lines)
    kept = safe_text("\n".join(lines[:most]))
    if isinstance(value, dict | list):
        JSONHighlighter().highlight(kept)
    if len(lines) > most:
        kept.append(f"\n… {counted(len(lines) - most, 'more line')}", "dim")
    return kept
