"""The terminal agent: answers questions and runs commands, one line after another, wherever the lines come from."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from agentft.agent import INFRASTRUCTURE
from agentft.display.chat import ChatView
from agentft.errors import AgentftError, InputError
from agentft.metrics.reading import is_only_thought
from agentft.models import Model
from agentft.models.served import other_model
from agentft.repl.commands import find_command
from agentft.repl.gate import Decision
from agentft.repl.keeping import keep
from agentft.repl.reading import Reader
from agentft.repl.session import Session
from agentft.repl.store import SessionStore, StoredSession
from agentft.repl.tooling import read_arguments
from agentft.strict import counted
from agentft.toolset import Toolset
from agentft.types import Exchange, Json, Step, Text, ToolCall

__all__ = ["Repl"]

REPEATS = 3  # equal calls in one round after which it is stopped
_REMOVED = "the question was removed from the conversation (/retry asks it again)"
_FIXED = "the corrected call and its result are kept; /fix sends it again"


@dataclass
class Repl:
    """The terminal agent.

    Args:
        opened: returns the session once the model is loaded; called when it is first needed.
        view: shows what happens.
        read: the next line of input.
        save_to: the file of rows in which each conversation is saved when it ends.
        interactive: a person is typing, so that Ctrl-C stops an answer and errors are shown; otherwise both end the
            chat.
        store: where the session is stored after every step.
        form: the form of rows that are kept, `msagent` or `openai`.
        tokenizer_of: the model whose tokenizer `/mask` uses; "": none.
        open_base: opens the model without its adapter.
        resumed: the stored session to begin with.
        steering: gives what the person has typed for the model to a function that returns whether it was taken.
    """

    opened: Callable[[], Session]
    view: ChatView
    read: Reader
    toolsets: tuple[Toolset, ...]
    save_to: Path | None = None
    interactive: bool = True
    store: SessionStore | None = None
    form: str = "msagent"
    tokenizer_of: str = ""
    open_base: Callable[[], Model] | None = None
    resumed: StoredSession | None = None
    steering: Callable[[Callable[[str], bool]], None] = lambda _: None
    base: Model | None = field(default=None, init=False)
    keep_to: Path | None = field(default=None, init=False)
    answered: list[dict[str, Json]] = field(default_factory=list, init=False)

    @cached_property
    def session(self) -> Session:
        """The session; waits until the model is loaded."""
        session = self.opened()
        gate = session.gate
        gate.on_start = lambda call: self.view.doing(f"running {call.name}")
        gate.on_done = self._show_exchange
        gate.ask = self._ask_person
        gate.interruptible = self.interactive
        if self.resumed is not None:
            self.resumed.open(session)
            self.view.replay(session.said())
            self.view.note(f"resumed {session.name or session.conversation.id}", "dim")
        return session

    def run(self) -> None:
        """Run until the input ends or `/quit`."""
        try:
            while (text := self._next()) is not None and self.handle(text):
                pass
        finally:
            self.finish()

    def handle(self, text: str) -> bool:
        """Answer a question or run a command; False ends the chat."""
        if not text.startswith("/"):
            if text:
                self.follow(text)
                self.store_session()
            return True
        name, _, rest = text.partition(" ")
        if name in {"/quit", "/exit"}:
            return False
        try:
            command = find_command(name)
            if rest and not command.usage:
                raise InputError(f"{name} takes no argument")
            command.run(self, rest.strip())
        except (EOFError, KeyboardInterrupt) as error:  # where a command asks
            if not self.interactive and isinstance(error, KeyboardInterrupt):
                raise
            self.view.note(f"{name} was cancelled", "dim")
        except (AgentftError, OSError, *INFRASTRUCTURE) as error:
            if not self.interactive and not isinstance(error, InputError):
                raise
            place, why = getattr(error, "filename", None), getattr(error, "strerror", None)
            self.view.note(f"{place}: {why}; name another place" if place else str(error), "red")
        self.store_session()
        return True

    def finish(self) -> None:
        """Save the conversation to `save_to`, however it ends, and tell a person how to go on with it."""
        if self.save_to is not None and "session" in vars(self):
            try:
                keep(self, self.save_to)
            except InputError as error:
                self.view.note(str(error), "dim")
        if self.store is not None and "session" in vars(self) and self.session.rounds:
            name = shlex.quote(self.session.name or self.session.conversation.id)
            self.view.note(f"to go on: agentft chat --resume {name}", "dim")

    def store_session(self) -> None:
        """Write the session to the store. A chat goes on without one that refuses it."""
        if self.store is not None and "session" in vars(self):
            try:
                self.store.save(self.session)
            except OSError as error:
                self.store = None
                why = f"{error.filename}: {error.strerror}"
                self.view.note(f"this chat is not stored any more ({why}); `/good FILE` keeps it elsewhere", "red")

    def follow(self, text: str | None) -> None:
        """Ask the model, and show the steps of its answer; None: those that continue the last round."""
        session = self.session
        begun, dropped = time.monotonic() - session.gate.seconds, session.dropped
        steps: list[Step] = []
        try:
            made = session.proceed(self.view.listening) if text is None else session.ask(text, self.view.listening)
            for step in made:
                steps.append(step)
                self.store_session()
                self.view.step(step)
                if step.exchanges:
                    self.steering(session.steer)
                if _loops(session.rounds[-1].steps):
                    session.gate.cancelled.set()
                    self.view.note(f"stopped: the same call {REPEATS} times; /retry, /fix or /undo")
        except (AgentftError, *INFRASTRUCTURE) as error:
            if text is not None:
                session.remove_question()
            if not self.interactive:
                raise
            self.view.note(f"error: {error}; {_REMOVED if text is not None else _FIXED}", "red")
            return
        finally:
            self.view.doing("")
        if session.dropped > dropped:
            left_out = counted(session.dropped - dropped, "old round")
            self.view.note(f"the model's context is full: {left_out} left out", "dim")
        if not steps:
            self.view.note(f"stopped; {_REMOVED if text is not None else _FIXED}")
            return
        self.view.answered(steps, time.monotonic() - begun - session.gate.seconds, self._explain_end(steps[-1]))
        if not self.answered and (other := other_model(session.model.name, steps[-1].response)):
            self.view.note(f"the server says that another model answers: {other:.100}")
        self.answered.append(_record(text or "", steps))

    def _explain_end(self, last: Step) -> str:
        session = self.session
        if last.finish == "repeated":
            return "stopped: the model repeats itself; /set temperature 0.7, then /retry, may help"
        if last.finish == "stopped" or session.gate.cancelled.is_set():
            return "stopped; what came is kept (/undo removes it)"
        if last.finish == "filtered":
            return "a filter of the server withheld or cut the answer"
        if is_only_thought(last):
            return "a thought without an answer; check that the server's reasoning parser is the model's"
        if last.exchanges:
            return f"stopped after {counted(len(session.rounds[-1].steps), 'step')} without an answer; /retry or /undo"
        limit = session.sampling.max_new_tokens
        cut = f"cut at {limit} tokens; /set max_new_tokens {2 * limit} allows more"
        cut = "cut, for the model's context is full; /reset begins anew" if 0 < last.tokens < limit else cut
        return cut * (last.finish == "length")

    def _next(self) -> str | None:
        try:
            return self.read("› ").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            self.view.note("press Ctrl-D or type /quit to leave", "dim")
            return ""

    def _show_exchange(self, exchange: Exchange, seconds: float) -> None:
        self.view.exchange(exchange, seconds)
        self.view.doing("thinking")

    def _ask_person(self, call: ToolCall, access: str) -> Decision:
        """Ask whether to send a call, until the reply is one of those offered."""
        self.view.ask_for(call, access)
        while True:
            try:
                said = self.read(f"allow {call.name}? y, n [why], e(dit), a(lways) › ").strip()
                word, _, reason = said.partition(" ")
                match word.lower():
                    case "y" | "yes" | "a" | "always" as yes:
                        return Decision(True, always=yes.startswith("a"))
                    case "n" | "no":
                        return Decision(False, reason=reason.strip())
                    case "e" | "edit":
                        written = json.dumps(dict(call.arguments), ensure_ascii=False)
                        return Decision(True, read_arguments(self.read("arguments › ", written)))
            except InputError as error:
                self.view.note(str(error), "red")
            except (EOFError, KeyboardInterrupt):
                self.session.gate.cancelled.set()
                return Decision(False, reason="stopped")


def _loops(steps: list[Step]) -> bool:
    """Whether the last calls are all the same, with the same results."""
    sent = [one for step in steps for one in step.exchanges]
    made = [(one.call.name, json.dumps(dict(one.call.arguments), sort_keys=True), one.received) for one in sent]
    return len(made) >= REPEATS and len(set(made[-REPEATS:])) == 1


def _record(question: str, steps: list[Step]) -> dict[str, Json]:
    """A round for `--json`."""
    keys = ("name", "arguments", "status", "result", "is_error")
    made = [one for step in steps for one in step.exchanges]
    values = [(one.call.name, dict(one.call.arguments), one.status, one.received, one.is_error) for one in made]
    return {
        "question": question,
        "answer": "".join(part.text for part in steps[-1].parts if isinstance(part, Text) and not part.thought).strip(),
        "calls": [dict(zip(keys, row, strict=True)) for row in values],
        "finish": steps[-1].finish,
        "tokens": sum(step.tokens for step in steps),
    }
