"""The terminal agent: a chat with all that it needs to go on, and its loop: read, answer or obey, keep."""

from __future__ import annotations

import difflib
import io
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from rich.text import Text

from agentft.agent import INFRASTRUCTURE, ToolRunner, open_conversation, say, step
from agentft.calls import CallFormat
from agentft.display.chat import ChatView
from agentft.display.tools import tool_table
from agentft.errors import AgentftError, InputError
from agentft.models import Backend, OnText, Sampling
from agentft.repl.saving import append_row, check_place
from agentft.toolset import Toolset
from agentft.types import Conversation, Step, ToolDefinition

__all__ = ["COMMANDS", "PERSONA", "Reader", "Repl", "Session", "line_reader", "terminal_reader"]

Reader = Callable[[], str]
"""Gives the next question; raises EOFError at the end and KeyboardInterrupt on Ctrl-C."""

PERSONA = "You are a helpful assistant."

COMMANDS = {
    "/help": "what can be typed here",
    "/tools": "the tools with their arguments",
    "/reset": "forget the conversation and begin anew",
    "/save FILE": "add the conversation to a JSONL file of MS-Agent rows",
    "/quit": "leave (Ctrl-D does too)",
}
NAMES = [usage.split()[0] for usage in COMMANDS]


@dataclass
class Session:
    """The state of a chat. `max_steps`: completions for one question."""

    backend: Backend
    fmt: CallFormat
    client: ToolRunner
    sampling: Sampling
    tools: tuple[ToolDefinition, ...]
    persona: str = PERSONA
    max_steps: int = 6
    conversation: Conversation = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew: no turns, and a fresh state of the tool worlds."""
        key = f"chat-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        self.conversation = open_conversation(key, self.persona, self.tools, self.fmt.name)

    @property
    def asked(self) -> bool:
        """Whether anything was said."""
        return any(turn.role == "user" for turn in self.conversation.turns)

    def ask(self, text: str, listening: Callable[[], AbstractContextManager[OnText | None]]) -> Iterator[Step]:
        """Ask, and give each completion with what its calls led to, until the model answers or the steps are used up.

        `listening` is entered around each completion, and gives what to call with the text as it appears. If anything
        goes wrong or the consumer stops, put `conversation` back to what it was before.
        """
        self.conversation = say(self.conversation, text)
        for _ in range(self.max_steps):
            with listening() as on_text:
                self.conversation, made = step(
                    self.conversation, self.backend, self.fmt, self.client, self.sampling, self.conversation.id, on_text
                )
            yield made
            if not made.exchanges:
                return


@dataclass
class Repl:
    """The terminal agent.

    `save_to`: file that each conversation is added to when it ends. `interactive`: a person is typing, so Ctrl-C stops
    an answer and errors are shown; otherwise both end the run.
    """

    session: Session
    view: ChatView
    read: Reader
    toolsets: tuple[Toolset, ...]
    save_to: Path | None = None
    interactive: bool = True
    _saved: list[tuple[Path, Conversation]] = field(default_factory=list, init=False)

    def run(self) -> None:
        """Until the input ends or `/quit`. The conversation is kept whatever ends it."""
        try:
            while (text := self._next()) is not None:
                if text.startswith("/"):
                    if not self._obey(text):
                        break
                elif text:
                    self._answer(text)
        finally:
            self._keep()

    def _next(self) -> str | None:
        try:
            text = self.read().strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            self.view.note("Ctrl-D or /quit leaves", "dim")
            return ""
        if text and not self.interactive:
            self.view.echo(text)
        return text

    def _answer(self, text: str) -> None:
        before, begun = self.session.conversation, time.monotonic()
        steps: list[Step] = []
        try:
            for made in self.session.ask(text, self.view.listening):
                steps.append(made)
                self.view.step(made)
            self.view.answered(steps, time.monotonic() - begun)
            self._remark(steps)
        except (KeyboardInterrupt, AgentftError, *INFRASTRUCTURE) as error:
            self.session.conversation = before
            if not self.interactive:
                raise
            if isinstance(error, KeyboardInterrupt):
                self.view.note("stopped; the question is taken back")
            else:
                self.view.note(f"error: {error}", "red")

    def _remark(self, steps: list[Step]) -> None:
        if steps[-1].exchanges:
            self.view.note(f"stopped after {len(steps)} steps without an answer; ask on, or /reset")
        elif steps[-1].finish == "length":
            limit = self.session.sampling.max_new_tokens
            self.view.note(f"cut at {limit} tokens; --max-new-tokens allows more")

    def _obey(self, line: str) -> bool:
        """Run a slash command; False ends the chat."""
        name, _, rest = line.partition(" ")
        if name == "/quit":
            return False
        if name == "/help":
            self.view.show(_help())
        elif name == "/tools":
            self.view.show(tool_table(self.toolsets) if self.toolsets else Text("no tools", "dim"))
        elif name == "/reset":
            self._keep()
            self.session.reset()
            self.view.note("a new conversation", "dim")
        elif name == "/save":
            self._save(rest.strip())
        else:
            near = difflib.get_close_matches(name, NAMES, 1)
            self.view.note(f"there is no command {name}; {f'did you mean {near[0]}?' if near else 'try /help'}")
        return True

    def _save(self, name: str) -> None:
        path = Path(name).expanduser()
        try:
            if not name:
                raise InputError("give a file: /save chats.jsonl")
            check_place(path)
            self._add_to(path)
        except (InputError, OSError) as error:
            self.view.note(str(error), "red")

    def _keep(self) -> None:
        if self.save_to is not None:
            self._add_to(self.save_to)

    def _add_to(self, path: Path) -> None:
        if not self.session.asked:
            self.view.note("nothing was said, so nothing was saved", "dim")
            return
        done = (path.resolve(), self.session.conversation)
        if done not in self._saved:
            append_row(*done)
            self._saved.append(done)
        self.view.note(f"saved to {path}", "dim")


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


def _help() -> Text:
    width = max(map(len, COMMANDS))
    lines = [Text.assemble("  ", (usage.ljust(width), "cyan"), "  ", about) for usage, about in COMMANDS.items()]
    keys = "  Ctrl-C stops an answer · a pasted text may have several lines"
    return Text("\n").join([*lines, Text(keys, "dim")])
