"""The state of a chat: its conversation, its rounds with the worlds' states before each, and the loop of a round."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import Any, Protocol, TypeAlias

from agentft.agent import INFRASTRUCTURE, add_user_turn, advance, open_conversation, step
from agentft.errors import FrameError, InputError
from agentft.models import (
    CallDone,
    CallText,
    ConcurrentModel,
    Delta,
    InspectableModel,
    Model,
    OnDelta,
    Reply,
    Request,
    Sampling,
    TextDelta,
    Usage,
)
from agentft.models.rewriting import called, rewrite, spoken
from agentft.repl.gate import CallGate
from agentft.types import Conversation, Step, ToolCall, ToolDefinition

__all__ = ["PERSONA", "ChatRound", "Listening", "Session", "Worlds", "repeats"]

PERSONA = "You are a helpful assistant."
Listening: TypeAlias = Callable[[], AbstractContextManager[OnDelta]]
States: TypeAlias = Mapping[str, dict[str, Any]]

_TIMES, _LONG, _UNIT = 4, 160, 200
"""A text repeats itself if it ends with one piece of up to `_UNIT` characters `_TIMES` or more, `_LONG` in all."""


class Worlds(Protocol):
    """The tool worlds' states, which go back with the conversation (`agentft.toolserver.ToolServer`)."""

    def initial(self) -> States:
        """The states that sessions start with."""

    def snapshot(self, session: str) -> States:
        """The states of the worlds that the session has written to."""

    def restore(self, session: str, states: States) -> None:
        """Put the session's worlds into these states; worlds that are not named into their initial ones."""


@dataclass
class ChatRound:
    """A question and the steps that answered it.

    `at`: turns before it. `states`: the worlds' before it. `marks`: the worlds' before each of its assistant turns.
    """

    question: str
    at: int
    states: States = field(default_factory=dict)
    marks: list[States] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


class _StoppedError(Exception):
    """The reply was stopped: `stopped` by the person, or `repeated`."""


@dataclass
class _Listener:
    """Passes deltas on, keeps the text, and stops the reply if the person or its repetition says so."""

    session: Session
    on_delta: OnDelta
    text: str = ""
    pieces: int = 0

    def __call__(self, index: int, delta: Delta) -> None:
        self.pieces += delta != TextDelta("")
        if self.session.gate.cancelled.is_set():
            raise _StoppedError("stopped")
        self.on_delta(index, delta)
        if isinstance(delta, TextDelta) and not delta.thought:
            self.text += delta.text
        growing = delta.text if isinstance(delta, CallText) else self.text
        if not isinstance(delta, CallDone) and repeats(growing):
            raise _StoppedError("repeated")


def _new_id() -> str:
    return f"chat-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def repeats(text: str) -> int:
    """How many characters of the end of a text only repeat what is before them; 0 if it is not degenerate."""
    for unit in range(1, min(_UNIT, len(text) // _TIMES) + 1):
        piece = text[-unit:]
        times = max(_TIMES, -(-_LONG // unit))
        if text.endswith(piece * times):
            while text.endswith(piece * (times + 1)):
                times += 1
            return unit * (times - 1)
    return 0


@dataclass
class Session:
    """The state of a chat.

    `max_steps`: maximum replies per question. `dropped`: oldest rounds that did not fit. `unanswered`: the last
    question, if it got no answer and was removed. `name`: what the person called the session.
    """

    model: Model
    gate: CallGate
    sampling: Sampling
    tools: tuple[ToolDefinition, ...]
    persona: str = PERSONA
    worlds: Worlds | None = None
    max_steps: int = 6
    conversation: Conversation = field(init=False)
    rounds: list[ChatRound] = field(default_factory=list, init=False)
    dropped: int = field(default=0, init=False)
    fixes: list[str] = field(default_factory=list, init=False)
    unanswered: str = field(default="", init=False)
    name: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start a new conversation, with the tool worlds in their initial state."""
        self.rounds, self.dropped, self.fixes, self.unanswered, self.name = [], 0, [], "", ""
        self.conversation = open_conversation(_new_id(), self.persona, self.offered, self.model.source)

    @property
    def offered(self) -> tuple[ToolDefinition, ...]:
        """The tools that are on."""
        return tuple(tool for tool in self.tools if tool.name not in self.gate.off)

    def said(self) -> list[tuple[str, list[Step]]]:
        """What the person said, and the steps after each; a text that steered stands between those of its round."""
        steps = (step for one in self.rounds for step in one.steps)
        turns = [turn for turn in self.conversation.turns if turn.role in {"user", "assistant"}]
        said = [at for at, turn in enumerate(turns) if turn.role == "user"]
        return [(turns[at].raw, [*islice(steps, end - at - 1)]) for at, end in pairwise([*said, len(turns)])]

    def ask(self, text: str, listening: Listening) -> Iterator[Step]:
        """Ask a question; yields each step until the model has answered, was stopped, or `max_steps` is reached.

        A stopped reply keeps what came. If nothing came, the question is removed, as it is by the caller on an error
        (with `remove_question`).

        Args:
            listening: a context manager entered around each reply; its value is called with the reply's deltas.
        """
        self.unanswered = ""
        self.rounds.append(ChatRound(text, len(self.conversation.turns), self._snapshot()))
        self.conversation = add_user_turn(self.conversation, text)
        yield from self.proceed(listening)

    def proceed(self, listening: Listening) -> Iterator[Step]:
        """Continue the last round until it is answered."""
        self.gate.cancelled.clear()
        current = self.rounds[-1]
        while len(current.steps) < self.max_steps and not self.gate.cancelled.is_set():
            sampling = replace(self.sampling, max_new_tokens=self._make_room())
            current.marks.append(self._snapshot())
            made = self._step(listening, sampling)
            if made is None:
                current.marks.pop()
                if not current.steps:
                    self.remove_question()
                return
            current.steps.append(made)
            yield made
            if not made.exchanges or made.finish in {"stopped", "repeated"}:
                return

    def steer(self, text: str) -> bool:
        """Add a user turn within the round, after a call's result; False if the model's template does not allow it."""
        steered = add_user_turn(self.conversation, text)
        try:
            getattr(self.model, "prompt", lambda _: "")(steered)
        except FrameError:
            return False
        self.conversation = steered
        return True

    def warm(self) -> None:
        """Let a model on this machine read the system text and the tools, so that its first answer begins sooner."""
        if isinstance(self.model, InspectableModel) and self.model.context:
            listener = _Listener(self, lambda *_: None)
            asked = Request("warm", add_user_turn(self.conversation, "?"))
            with suppress(_StoppedError, *INFRASTRUCTURE):
                self.model.reply([asked], Sampling(max_new_tokens=1), listener)

    def _step(self, listening: Listening, sampling: Sampling) -> Step | None:
        """One reply with its calls; what came of it if it was stopped, None if nothing came."""
        with listening() as on_delta:
            listener = _Listener(self, on_delta)
            try:
                before = self.conversation
                after, made = step(before, self.model, self.gate, sampling, before.id, listener)
            except _StoppedError as error:
                return self._keep(listener, str(error))
            except (KeyboardInterrupt, *INFRASTRUCTURE) as error:
                if isinstance(error, KeyboardInterrupt) and self.gate.interruptible:
                    self.gate.cancelled.set()
                if not self.gate.cancelled.is_set():  # it is for an endpoint's request that was cancelled
                    raise
                return self._keep(listener, "stopped")
        self.conversation = after
        self._take_edits(made)
        return made

    def cancel(self) -> None:
        """Stop the reply or the call in progress; from any thread."""
        self.gate.cancelled.set()
        if isinstance(self.model, ConcurrentModel):
            self.model.cancel()

    def rewind(self, number: int) -> str:
        """Go back to before a round (from 1), the worlds' states too; returns its question."""
        gone, self.unanswered = self.rounds[number - 1], ""
        del self.rounds[number - 1 :]
        self.conversation = replace(self.conversation, turns=self.conversation.turns[: gone.at])
        self._restore(gone.states)
        return gone.question

    def remove_question(self) -> None:
        """Remove the last round, which got no answer."""
        self.unanswered = self.rewind(len(self.rounds))

    def fix_call(self, call: ToolCall) -> Step:
        """Put this call in place of the last one of the last round, and send it; `proceed` then goes on.

        Without a call in the round, it takes the place of the answer.

        Raises:
            InputError: the call fails; then nothing has changed.
        """
        current, was = self.rounds[-1], self.conversation
        turns, states = was.turns, self._snapshot()
        spoke = [at for at in range(current.at, len(turns)) if turns[at].role == "assistant"]
        calling = [at for at in spoke if any(isinstance(part, ToolCall) for part in turns[at].parts)]
        place = (calling or spoke)[-1]
        number = spoke.index(place)
        written = [part for part in turns[place].parts if isinstance(part, ToolCall)]
        before = replace(was, turns=turns[:place])
        turn = rewrite(turns[place], before, {written[-1].id: call}) if written else called(call, before)
        self._restore(current.marks[number])
        self.gate.cancelled.clear()
        reply = Reply(turn, "stop", Usage(), raw=turn.raw)
        after, made = advance(before, reply, self.gate, was.id, len(self.rounds) - 1)
        if made.exchanges[-1].is_error:
            self._restore(states)
            raise InputError(f"the call failed, and nothing was changed: {made.exchanges[-1].received}")
        self.conversation = after
        current.steps[number:], current.marks[number + 1 :] = [made], []
        self.fixes.append(f"call {call.name}")
        return made

    def fix_answer(self, text: str) -> None:
        """Put this text in place of the last answer.

        Raises:
            InputError: the last turn is not an answer, or the text is empty.
        """
        *turns, last = self.conversation.turns
        if not text:
            raise InputError("the answer is empty; nothing was changed")
        if last.role != "assistant" or any(isinstance(part, ToolCall) for part in last.parts):
            raise InputError("the last round has no answer yet; fix its call first, with /fix NAME {...}")
        turn = spoken(text, self.conversation)
        self.conversation = replace(self.conversation, turns=(*turns, turn))
        steps = self.rounds[-1].steps
        steps[-1:] = [replace(one, parts=turn.parts, raw=turn.raw) for one in steps[-1:]]
        self.fixes.append("answer")

    def branch(self) -> str:
        """Go on as a copy with a name of its own; returns the name of the one that is left as it is."""
        left, states = self.conversation.id, self._snapshot()
        self.conversation, self.name = replace(self.conversation, id=_new_id()), ""
        self._restore(states)
        return left

    def _restore(self, states: States) -> None:
        if self.worlds is not None:
            self.worlds.restore(self.conversation.id, states)

    def _snapshot(self) -> States:
        return self.worlds.snapshot(self.conversation.id) if self.worlds is not None else {}

    def _keep(self, listener: _Listener, why: str) -> Step | None:
        """Keep the text of a reply that was stopped, without the repetition."""
        text = listener.text
        text = text[: len(text) - repeats(text)] if why == "repeated" else text
        text = text.rstrip()
        if not text:
            return None
        turn = spoken(text, self.conversation)
        self.conversation = replace(self.conversation, turns=(*self.conversation.turns, turn))
        return Step(len(self.rounds) - 1, turn.parts, turn.raw, why, (), tokens=listener.pieces)

    def _take_edits(self, made: Step) -> None:
        """Put calls that the person edited into the turn, so that it is what was sent."""
        written = {part.id: part for part in made.parts if isinstance(part, ToolCall)}
        changed = {one.call.id: one.call for one in made.exchanges if one.call != written.get(one.call.id)}
        if changed:
            *turns, turn, results = self.conversation.turns
            turn = rewrite(turn, self.conversation, changed)
            self.conversation = replace(self.conversation, turns=(*turns, turn, results))

    def _make_room(self) -> int:
        """The tokens that a reply may have; leaves out the oldest rounds if they leave it less than it may need.

        More than is needed are left out at once: what follows them is read anew, and the next rounds shall be cheap.

        Raises:
            InputError: the last round alone does not fit.
        """
        model, wanted = self.model, self.sampling.max_new_tokens
        if not isinstance(model, InspectableModel) or not model.context:
            return wanted
        room, used = model.context - min(wanted, model.context // 4), model.count(self.conversation)
        if used > room and len(self.rounds) > 1:
            always = add_user_turn(replace(self.conversation, turns=self.conversation.turns[: self.rounds[0].at]), "?")
            goal = room - max(0, room - model.count(always)) // 4
            while used > goal and len(self.rounds) > 1:
                start, end = self.rounds[0].at, self.rounds[1].at
                turns = self.conversation.turns
                self.conversation = replace(self.conversation, turns=turns[:start] + turns[end:])
                del self.rounds[0]
                for one in self.rounds:
                    one.at -= end - start
                self.dropped += 1
                used = model.count(self.conversation)
        if used >= model.context:
            why = f"question, tools and results have {used:,} tokens, the model's context only {model.context:,}"
            raise InputError(f"{why}; ask in fewer words, or /tools off NAME")
        return min(wanted, model.context - used)
