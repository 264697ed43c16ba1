"""The terminal agent: the state of a chat, and the loop that reads questions and commands."""

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

from agentft.agent import INFRASTRUCTURE, ToolRunner, add_user_turn, open_conversation, step
from agentft.display.chat import ChatView
from agentft.display.tools import tool_table
from agentft.errors import AgentftError, InputError
from agentft.models import Model, OnDelta, Sampling
from agentft.repl.saving import append_row, check_place
from agentft.toolset import Toolset
from agentft.types import Conversation, Step, ToolDefinition

__all__ = ["COMMANDS", "PERSONA", "Reader", "Repl", "Session", "line_reader", "terminal_reader"]

Reader = Callable[[], str]
"""Returns the next line of input; raises EOFError at the end and KeyboardInterrupt on Ctrl-C."""

PERSONA = "You are a helpful assistant."

COMMANDS = {
    "/help": "list the commands",
    "/tools": "list the tools with their arguments",
    "/reset": "start a new conversation",
    "/save FILE": "append the conversation to a JSONL file of MS-Agent rows",
    "/quit": "leave (or press Ctrl-D)",
}
NAMES = [usage.split()[0] for usage in COMMANDS]


@dataclass
class Session:
    """The state of a chat. `max_steps`: maximum replies per question."""

    model: Model
    client: ToolRunner
    sampling: Sampling
    tools: tuple[ToolDefinition, ...]
    persona: str = PERSONA
    max_steps: int = 6
    conversation: Conversation = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start a new conversation, with the tool worlds in their initial state."""
        key = f"chat-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        self.conversation = open_conversation(key, self.persona, self.tools, self.model.source)

    @property
    def is_empty(self) -> bool:
        """Whether the user has not asked anything yet."""
        return not any(turn.role == "user" for turn in self.conversation.turns)

    def ask(self, text: str, listening: Callable[[], AbstractContextManager[OnDelta | None]]) -> Iterator[Step]:
        """Ask a question; yields each step until the model has answered or `max_steps` is reached.

        On an error, or if the caller stops early, the caller must restore `conversation`.

        Args:
            listening: a context manager entered around each reply; its value is called with the reply's deltas.
        """
        self.conversation = add_user_turn(self.conversation, text)
        for _ in range(self.max_steps):
            with listening() as on_delta:
                self.conversation, made = step(
                    self.conversation, self.model, self.client, self.sampling, self.conversation.id, on_delta
                )
            yield made
            if not made.exchanges:
                return


@dataclass
class Repl:
    """The terminal agent.

    Args:
        save_to: the file to which each conversation is appended when it ends.
        interactive: a person is typing, so that Ctrl-C stops an answer and errors are shown; otherwise both end the
            chat.
    """

    session: Session
    view: ChatView
    read: Reader
    toolsets: tuple[Toolset, ...]
    save_to: Path | None = None
    interactive: bool = True
    _saved: list[tuple[Path, Conversation]] = field(default_factory=list, init=False)

    def run(self) -> None:
        """Run until the input ends or `/quit`. The conversation is saved to `save_to` however the chat ends."""
        try:
            while (text := self._next()) is not None:
                if text.startswith("/"):
                    if not self._run_command(text):
                        break
                elif text:
                    self._answer(text)
        finally:
            self._save_to_file()

    def _next(self) -> str | None:
        try:
            text = self.read().strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            self.view.note("press Ctrl-D or type /quit to leave", "dim")
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
            self._warn_if_cut(steps)
        except (KeyboardInterrupt, AgentftError, *INFRASTRUCTURE) as error:
            self.session.conversation = before
            if not self.interactive:
                raise
            if isinstance(error, KeyboardInterrupt):
                self.view.note("stopped; the question was removed from the conversation")
            else:
                self.view.note(f"error: {error}", "red")

    def _warn_if_cut(self, steps: list[Step]) -> None:
        if steps[-1].exchanges:
            self.view.note(f"stopped after {len(steps)} steps without an answer; ask again, or /reset")
        elif steps[-1].finish == "length":
            limit = self.session.sampling.max_new_tokens
            self.view.note(f"the answer was cut at {limit} tokens; raise --max-new-tokens")

    def _run_command(self, line: str) -> bool:
        """Run a slash command; False ends the chat."""
        name, _, rest = line.partition(" ")
        if name == "/quit":
            return False
        if name == "/help":
            self.view.show(_help())
        elif name == "/tools":
            self.view.show(tool_table(self.toolsets) if self.toolsets else Text("no tools", "dim"))
        elif name == "/reset":
            self._save_to_file()
            self.session.reset()
            self.view.note("new conversation", "dim")
        elif name == "/save":
            self._save(rest.strip())
        else:
            near = difflib.get_close_matches(name, NAMES, 1)
            self.view.note(f"unknown command {name}; {f'did you mean {near[0]}?' if near else 'try /help'}")
        return True

    def _save(self, name: str) -> None:
        path = Path(name).expanduser()
        try:
            if not name:
                raise InputError("name a file: /save chats.jsonl")
            check_place(path)
            self._append_to(path)
        except (InputError, OSError) as error:
            self.view.note(str(error), "red")

    def _save_to_file(self) -> None:
        if self.save_to is not None:
            self._append_to(self.save_to)

    def _append_to(self, path: Path) -> None:
        if self.session.is_empty:
            self.view.note("the conversation is empty; nothing was saved", "dim")
            return
        done = (path.resolve(), self.session.conversation)
        if done not in self._saved:
            append_row(*done)
            self._saved.append(done)
        self.view.note(f"saved to {path}", "dim")


def line_reader(stream: TextIO) -> Reader:
    """One question per line, for piped input. Bytes that are not UTF-8 become replacement characters."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8-sig", errors="replace")

    def read() -> str:
        line = stream.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    return read


def terminal_reader(history: Path, commands: Sequence[str]) -> Reader:
    """Line editing with a history and completion of commands; pasted text may have several lines."""
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
    keys = "  Ctrl-C stops an answer · pasted text may have several lines"
    return Text("\n").join([*lines, Text(keys, "dim")])
