"""The chat on a terminal: an input line that stays usable while a thread of its own answers.

The thread takes lines from a queue. What it shows is written above the input line, one piece after another.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from threading import Condition, Thread
from typing import cast

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import ANSI, StyleAndTextTuples, to_formatted_text
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout.processors import TabsProcessor, Transformation, TransformationInput
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.styles import Style
from rich.cells import cell_len

from agentft.display.chat import fit
from agentft.display.live import LiveArea
from agentft.display.safe import safe_line
from agentft.repl.commands import COMMANDS, WORDS
from agentft.repl.loop import Repl
from agentft.strict import counted
from agentft.types import ToolDefinition

__all__ = ["ChatCompleter", "Terminal", "example"]

_BELOW = 4  # rows for the input line, the status line and the shell's prompt
_PATIENCE = 5.0  # seconds for an answer that the end of the chat stops
_FRAME = 0.125  # seconds between two pictures of the spinner
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse ansibrightblack", "queued": "ansibrightblack"})


_APART = {0x200D: 0x200B, 0xFE0F: 0x200B} | {0x1F1E6 + letter: 0xFF21 + letter for letter in range(26)}
_APART |= dict.fromkeys(range(0x1F3FB, 0x1F400), 0x1F7EB)
"""Emoji that terminals join into one, each with its own width: the cursor counts their parts."""


class _Apart(TabsProcessor):
    """Shows joined emoji, flags and skin tones as their parts, so that the cursor is where it seems to be, and tabs."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        """See prompt_toolkit. It looks for tabs character by character, which is slow for long lines."""
        given = transformation_input
        given.fragments = [(part[0], part[1].translate(_APART)) for part in given.fragments]
        has_tabs = any("\t" in part[1] for part in given.fragments)
        return super().apply_transformation(given) if has_tabs else Transformation(given.fragments)


class _RawInput(Vt100Input):
    """The keyboard, whose keys stay keys while the chat prints."""

    def cooked_mode(self) -> AbstractContextManager[None]:
        """Printing does not need it, and in it the terminal takes Backspace, Enter and Ctrl-C as its own."""
        return nullcontext()


class Terminal:
    """Runs a chat on the terminal.

    Args:
        repl: the chat; its `read` is replaced, and `live` is that of its view.
        history: the file of the lines that were typed, readable by its owner only.
        loading: what the spinner says until the model is loaded.
        about: the first parts of the status line: the model and how it is loaded.
    """

    def __init__(self, repl: Repl, live: LiveArea, history: Path, loading: str, about: list[str]) -> None:
        self._repl = repl
        self._live = live
        self._about = about
        self._loading = loading
        self._queued: list[tuple[str, bool]] = []  # lines, and whether they are for the round in progress
        self._has_line = Condition()
        self._asked = ""  # a question of the chat itself, which the next line answers
        self._replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._draft = ""
        self._above: StyleAndTextTuples = []  # what is above the input line, and its prompt
        self._is_busy = True
        self._is_over = False
        self._error: BaseException | None = None
        self._worker = Thread(target=self._work, name="agentft-chat", daemon=True)
        repl.read, repl.steering = self._read, self._steer
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
        self._editor: PromptSession[None] = PromptSession(
            input=_RawInput(sys.stdin),
            history=FileHistory(str(history)),
            completer=ChatCompleter(repl),
            complete_while_typing=False,
            input_processors=[_Apart(char1=" ", char2=" ")],
            prompt_continuation=[("ansibrightblack", "· ")],
            key_bindings=self._keys(),
            bottom_toolbar=self._status,
            style=_STYLE,
            erase_when_done=True,
        )
        self._editor.app.ttimeoutlen, self._editor.app.timeoutlen = 0.05, 0.2
        self._editor.default_buffer.accept_handler = self._accept
        self._editor.app.before_render += self._compose

    def run(self) -> None:
        """Run until the person leaves.

        Raises:
            Exception: what ended the thread, such as a model that cannot be loaded.
        """
        try:
            with suppress(EOFError, KeyboardInterrupt), patch_stdout():
                self._editor.prompt(lambda: self._above, pre_run=self._start)
        finally:
            self._live.post = lambda work: work()
            self._is_over = True
            self._cancel()
            if self._is_answering:
                self._worker.join(_PATIENCE)  # what is saved has the answer that this stops
            self._live.do("")
            self._repl.finish()
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        app, loop, context = self._editor.app, self._editor.app.loop, contextvars.copy_context()
        assert loop is not None  # noqa: S101  (it is running)

        def write(text: str) -> None:
            with suppress(OSError):  # of a terminal that is gone
                app.output.write_raw(text)
                app.output.flush()

        def post(work: Callable[[], None]) -> None:
            loop.call_soon_threadsafe(lambda: run_in_terminal(work), context=context)

        self._live.out = write
        self._live.changed = app.invalidate
        self._live.post = post
        app.create_background_task(self._animate())
        self._worker.start()

    async def _animate(self) -> None:
        """Redraw now and then while something is happening."""
        while True:
            await asyncio.sleep(_FRAME)
            if self._is_busy:
                self._editor.app.invalidate()

    def _work(self) -> None:
        """Load the model, then take lines until the chat ends."""
        try:
            self._live.do(self._loading, "Ctrl-C leaves")
            session = self._repl.session
            self._live.do("reading the tools")
            session.warm()
            line = ""
            while self._repl.handle(line) and (line := self._next()):
                self._repl.view.echo(line)
        except BaseException as error:  # raised again by `run`, on the main thread
            self._error = error
        self._live.do("")
        self._live.post(self._leave)

    def _next(self) -> str:
        """Wait for a line; "" at the end. A text for the model whose answer has ended is the next question."""
        self._live.do("")
        with self._has_line:
            self._is_busy = bool(self._queued)
            self._live.changed()
            self._has_line.wait_for(lambda: self._queued or self._is_over)
            self._is_busy = True
            return "" if self._is_over else self._queued.pop(0)[0]

    def _steer(self, give: Callable[[str], bool]) -> None:
        """Give the model what was typed for it; what it cannot take now becomes the next question."""
        with self._has_line:
            waiting = [text for text, steers in self._queued if steers]
            self._queued = [line for line in self._queued if not line[1]]
        for place, text in enumerate(waiting):
            if give(text):
                self._repl.view.echo(text)
            else:
                self._queued.insert(place, (text, False))

    def _leave(self) -> None:
        if self._editor.app.is_running and not self._editor.app.is_done:
            self._editor.app.exit()

    def _accept(self, buffer: Buffer) -> bool:
        """Take a line: as the reply to a question of the chat, else as the next line for the thread."""
        text = buffer.text.strip()
        if self._asked:
            self._asked = ""
            self._replies.put(text)
            buffer.set_document(Document(self._draft), bypass_readonly=True)
            return True
        if text:
            steers = self._is_answering and text.startswith("!") and len(text) > 1
            with self._has_line:
                self._queued.append((text[1:].strip() if steers else text, steers))
                self._has_line.notify()
        return False

    def _read(self, prompt: str, text: str = "", /) -> str:
        """Ask the person something, from the thread; the line that is being typed comes back afterwards."""

        def ask() -> None:
            buffer = self._editor.default_buffer
            self._draft = buffer.text
            buffer.set_document(Document(text), bypass_readonly=True)
            self._asked = prompt

        self._live.post(ask)
        reply = self._replies.get()
        if reply is None:
            raise KeyboardInterrupt
        return reply

    def _cancel(self) -> None:
        """Stop the answer, and give the queued lines back to the input line."""
        if self._asked:
            self._asked = ""
            self._editor.default_buffer.set_document(Document(self._draft), bypass_readonly=True)
            self._replies.put(None)
        if "session" in vars(self._repl):
            self._repl.session.cancel()
        with self._has_line:
            given, self._queued = [f"{'!' * steers}{text}" for text, steers in self._queued], []
            self._has_line.notify()
        if given:
            buffer = self._editor.default_buffer
            buffer.set_document(Document("\n".join([*given, *([buffer.text] if buffer.text else [])])))

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("escape", "enter")
        @keys.add("c-j")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("escape")
        def _(_: KeyPressEvent) -> None:
            if self._is_busy:
                self._cancel()

        @keys.add("c-o")
        def _(_: KeyPressEvent) -> None:
            if not self._asked:
                self._accept(Buffer(document=Document("/show")))

        @keys.add("<vt100-mouse-event>")
        def _(_: KeyPressEvent) -> None:
            """Not a mouse's, which is off, but a part of pasted text, in which prompt_toolkit fails to read a place."""

        @keys.add("c-z")
        def _(event: KeyPressEvent) -> None:
            def stop() -> None:
                with Vt100Input.cooked_mode(cast(Vt100Input, event.app.input)):
                    os.kill(0, signal.SIGTSTP)

            run_in_terminal(stop)

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            if self._is_answering or self._queued:
                self._cancel()
            elif self._is_busy and not event.current_buffer.text:
                event.app.exit()  # nothing to lose while the model is loaded
            elif event.current_buffer.text:
                event.current_buffer.reset()
            else:
                self._repl.view.note("press Ctrl-D or type /quit to leave", "dim")

        return keys

    def _compose(self, _: object) -> None:
        """Make what is above the input line, once for each picture: it is asked for at each row of a long input."""
        size = self._editor.app.output.get_size()
        shown: StyleAndTextTuples = []
        if drawn := self._live.draw(size.columns, max(1, size.rows - _BELOW - len(self._queued))):
            shown += to_formatted_text(ANSI(drawn.translate(_APART)))
        for line, steers in [*self._queued] if self._is_busy else []:
            when = "after its next call" if steers else "queued"
            shown += [("class:queued", fit(f"  {when}: {line}", size.columns - 1).translate(_APART) + "\n")]
        style = "bold ansiyellow" if self._asked else "bold ansicyan"
        self._above = [*shown, (style, safe_line(self._asked) or "› ")]

    @property
    def _is_answering(self) -> bool:
        return self._is_busy and "session" in vars(self._repl)

    def _status(self) -> str:
        """The status line; parts that do not fit are left out, from the end."""
        parts = [*self._about, *self._figures()]
        while len(parts) > 1 and cell_len(" · ".join(parts)) > self._editor.app.output.get_size().columns:
            parts.pop()
        return safe_line(" · ".join(parts))

    def _figures(self) -> list[str]:
        if "session" not in vars(self._repl):
            return [self._loading]
        session = self._repl.session
        parts = ["Enter queues, !text steers"] * self._is_busy + [counted(len(session.offered), "tool")]
        parts += [f"fault {session.gate.fault} next"] if session.gate.fault else []
        # Of a reply that was stopped, the tokens of its prompt are not known.
        steps = (step for one in reversed(session.rounds) for step in reversed(one.steps) if step.prompt_tokens)
        used = next((step.prompt_tokens + step.tokens for step in steps), 0)
        context = getattr(session.model, "context", 0)
        parts.append(f"{used:,} of {context:,} tokens" if context else counted(used, "token"))
        return [*parts, f"{_memory() / 1e6:,.0f} MB of memory"]


def _memory() -> int:
    """Bytes of memory in use; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


class ChatCompleter(Completer):
    """Completes the line of a chat; only a line that begins with `/`."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """See prompt_toolkit."""
        text = document.text_before_cursor
        name, space, rest = text.partition(" ")
        if not text.startswith("/"):
            return
        if not space:
            yield from _matching(name, COMMANDS)
            return
        usage = COMMANDS[name].usage if name in COMMANDS else ""
        tools = [tool for toolset in self._repl.toolsets for tool in toolset.definitions]
        if name in WORDS:
            yield from _matching(rest, WORDS[name](self._repl))
        elif "FILE" in usage:
            yield from self._paths.get_completions(Document(rest), complete_event)
        elif "NAME" in usage:
            *before, word = rest.split(" ")
            if "{" not in rest and (not before or before[-1] in {"on", "off"}):
                yield from _matching(word, [tool.name for tool in tools])
            elif found := next((tool for tool in tools if before and tool.name == before[0]), None):
                yield from _matching(word, [example(found)])


def _matching(word: str, options: Iterable[str]) -> Iterator[Completion]:
    return (Completion(option, -len(word)) for option in options if option.startswith(word))


def example(tool: ToolDefinition) -> str:
    """A call's required arguments, to be filled in."""
    return json.dumps(dict.fromkeys(cast(list[str], tool.parameters.get("required", [])), ""))
