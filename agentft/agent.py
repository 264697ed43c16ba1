"""The agent loop: the model speaks, its calls go to the tool servers, their results come back, until it has answered.

`step` takes one completion of one conversation (the terminal agent); `run_cases` runs the cases of an evaluation in
lockstep batches. Both go through `ask` and `advance`, so what is chatted is what is scored.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from agentft.calls import CallFormat
from agentft.errors import FrameError, MissingError
from agentft.models import Backend, Completion, OnText, Request, Sampling
from agentft.rendering.render import render_prompt
from agentft.types import (
    Case,
    Conversation,
    Exchange,
    Span,
    Step,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Trajectory,
    Turn,
)

__all__ = [
    "INFRASTRUCTURE",
    "Job",
    "Options",
    "ToolRunner",
    "advance",
    "ask",
    "open_conversation",
    "run_cases",
    "say",
    "step",
]

INFRASTRUCTURE = (OSError, RuntimeError, MissingError, FrameError)
"""What makes a case invalid rather than failed: a server or device that gave out, a row that cannot be rendered."""


class ToolRunner(Protocol):
    """What the loop needs of a tool client (`agentft.toolserver.ToolClient`)."""

    def call(self, call: ToolCall, session: str) -> Exchange:
        """Send one call; raises an `INFRASTRUCTURE` error when the server is gone."""
        ...

    def state_digest(self, session: str) -> str:
        """The digest of the session's state."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One case to run: with which persona and tools, and for which time (`trial`, from 0)."""

    case: Case
    persona: str
    tools: tuple[ToolDefinition, ...]
    trial: int = 0

    def session(self, run: str) -> str:
        """Its session with the tools in a run: faults go by what follows the dot, which is the same in every run."""
        # Hashes, since a session's name travels in a header and ids may hold anything.
        case = f"{self.case.suite}\0{self.case.id}\0{self.trial}"
        return ".".join(hashlib.sha256(name.encode()).hexdigest()[:24] for name in (run, case))


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. `max_steps`: completions for one user turn. `run`: keeps this run's tool sessions apart."""

    batch_size: int = 16
    max_steps: int = 6
    sampling: Sampling = field(default_factory=Sampling)
    run: str = "run"


def open_conversation(key: str, persona: str, tools: Sequence[ToolDefinition], source: str) -> Conversation:
    """A conversation with only its system turn; the tools are declared when it is rendered."""
    parts = (Text(persona, Span(0, len(persona))),) if persona else ()
    return Conversation(key, (Turn("system", parts, persona),), tuple(tools), source)


def say(conversation: Conversation, text: str) -> Conversation:
    """The conversation with one more user turn."""
    return _grown(conversation, Turn("user", (Text(text, Span(0, len(text))),), text))


def ask(conversation: Conversation, backend: Backend, fmt: CallFormat, key: str) -> Request:
    """The request for what the model says next.

    Raises:
        FrameError: the model's chat template cannot carry the conversation.
    """
    return Request(key, render_prompt(conversation, fmt, backend.frame), fmt.stop)


def advance(  # noqa: PLR0917
    conversation: Conversation, completion: Completion, fmt: CallFormat, client: ToolRunner, session: str, turn: int
) -> tuple[Conversation, Step]:
    """Take in one completion: parse it, run its calls, append both turns. `turn` is the index of the user turn."""
    parts = fmt.parse(completion.text)
    conversation = _grown(conversation, Turn("assistant", parts, completion.text))
    calls = [part for part in parts if isinstance(part, ToolCall)]
    exchanges = tuple(_exchange(call, client, session) for call in calls)
    if exchanges:
        conversation = _grown(conversation, _results(exchanges))
    made = Step(
        turn=turn,
        completion=completion.text,
        parts=parts,
        finish=completion.finish,
        exchanges=exchanges,
        prompt_tokens=completion.prompt_tokens,
        tokens=completion.tokens,
    )
    return conversation, made


def step(  # noqa: PLR0917
    conversation: Conversation,
    backend: Backend,
    fmt: CallFormat,
    client: ToolRunner,
    sampling: Sampling,
    session: str,
    on_text: OnText | None = None,
) -> tuple[Conversation, Step]:
    """One completion of one conversation, with its calls executed. It has answered when the step has no exchanges."""
    turn = sum(turn.role == "user" for turn in conversation.turns) - 1
    request = ask(conversation, backend, fmt, f"{conversation.id}/{turn}/{_steps_since_user(conversation)}")
    completion = backend.complete([request], sampling, on_text)[0]
    return advance(conversation, completion, fmt, client, session, turn)


def run_cases(
    jobs: Iterable[Job], backend: Backend, fmt: CallFormat, client_for: Callable[[Job], ToolRunner], options: Options
) -> Iterator[Trajectory]:
    """Run jobs, up to `options.batch_size` at a time, and give each trajectory as soon as it is finished.

    `client_for` gives the client that knows a job's tools and no others.

    A batch is refilled when a case ends, so that the device stays busy. A case that meets an `INFRASTRUCTURE` error
    ends as `invalid`; the others go on.
    """
    waiting = deque(jobs)
    active: list[_Run] = []
    while waiting or active:
        while waiting and len(active) < options.batch_size:
            job = waiting.popleft()
            active.append(_Run(job, client_for(job), fmt, options))
        for run, completion in _complete(active, backend, fmt, options.sampling):
            run.take(completion, fmt, options.max_steps)
        yield from (run.trajectory() for run in active if run.outcome)
        active = [run for run in active if not run.outcome]


class _Run:
    """One case under way."""

    def __init__(self, job: Job, client: ToolRunner, fmt: CallFormat, options: Options) -> None:
        self.job = job
        self.client = client
        self.session = job.session(options.run)
        opened = open_conversation(job.case.id, job.persona, job.tools, fmt.name)
        self.conversation = say(opened, job.case.turns[0].user)
        self.turn = 0
        self.here = 0  # steps of this user turn
        self.steps: list[Step] = []
        self.prompt = ""
        self.outcome = ""
        self.problem = ""

    def request(self, backend: Backend, fmt: CallFormat) -> Request:
        request = ask(self.conversation, backend, fmt, f"{self.job.case.id}/{self.turn}/{self.here}")
        self.prompt = self.prompt or "".join(segment.text for segment in request.segments)
        return request

    def take(self, completion: Completion, fmt: CallFormat, max_steps: int) -> None:
        try:
            self.conversation, made = advance(self.conversation, completion, fmt, self.client, self.session, self.turn)
        except INFRASTRUCTURE as error:
            self.fail(error)
            return
        self.steps.append(made)
        self.here += 1
        if not made.exchanges:
            self.next_turn()
        elif self.here >= max_steps:
            self.outcome = "step-limit"

    def next_turn(self) -> None:
        self.turn, self.here = self.turn + 1, 0
        if self.turn == len(self.job.case.turns):
            self.outcome = "done"
        else:
            self.conversation = say(self.conversation, self.job.case.turns[self.turn].user)

    def fail(self, error: Exception) -> None:
        self.outcome = "invalid"
        self.problem = f"{type(error).__name__}: {error}"

    def trajectory(self) -> Trajectory:
        state = ""
        if self.outcome != "invalid":
            try:
                state = self.client.state_digest(self.session)
            except INFRASTRUCTURE as error:
                self.fail(error)
        return Trajectory(
            case_id=self.job.case.id,
            trial=self.job.trial,
            prompt=self.prompt,
            steps=tuple(self.steps),
            outcome=self.outcome,
            state=state,
            problem=self.problem,
        )


def _complete(
    runs: Sequence[_Run], backend: Backend, fmt: CallFormat, sampling: Sampling
) -> list[tuple[_Run, Completion]]:
    """One completion for each run. If the batch fails, each is tried alone, so that one bad prompt ends one case."""
    requests: list[tuple[_Run, Request]] = []
    for run in runs:
        try:
            requests.append((run, run.request(backend, fmt)))
        except INFRASTRUCTURE as error:
            run.fail(error)
    try:
        done = backend.complete([request for _, request in requests], sampling) if requests else []
        return [(run, completion) for (run, _), completion in zip(requests, done, strict=True)]
    except INFRASTRUCTURE as error:
        if len(requests) == 1:
            requests[0][0].fail(error)
            return []
    return [pair for run, _ in requests for pair in _complete([run], backend, fmt, sampling)]


def _exchange(call: ToolCall, client: ToolRunner, session: str) -> Exchange:
    """What came of one call. An unreadable one is not sent; the model is told what was wrong and may mend it."""
    if call.parse_error is None:
        return client.call(call, session)
    said = json.dumps({"error": f"the call could not be read: {call.parse_error}"}, ensure_ascii=False)
    return Exchange(call, method="", url=None, sent=None, status=None, received=said, is_error=True)


def _results(exchanges: Sequence[Exchange]) -> Turn:
    parts: list[ToolResult] = []
    at = 0
    for exchange in exchanges:
        end = at + len(exchange.received)
        parts.append(ToolResult(exchange.call.id, exchange.received, Span(at, end), exchange.is_error))
        at = end
    return Turn("tool", tuple(parts), "".join(exchange.received for exchange in exchanges))


def _grown(conversation: Conversation, turn: Turn) -> Conversation:
    return replace(conversation, turns=(*conversation.turns, turn))


def _steps_since_user(conversation: Conversation) -> int:
    count = 0
    for turn in reversed(conversation.turns):
        if turn.role == "user":
            break
        count += turn.role == "assistant"
    return count
