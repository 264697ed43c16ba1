"""The agent loop: the model replies, its calls are sent to the tool servers, and their results go back to the model.

`step` generates one reply in one conversation (used by the terminal agent); `run_cases` runs the cases of an
evaluation in batches. Both go through `advance`, so a chat behaves exactly as an evaluation does.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Event
from typing import Protocol

from agentft.errors import FrameError, MissingError
from agentft.models import ConcurrentModel, Model, OnDelta, Reply, Request, Sampling
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
    "add_user_turn",
    "advance",
    "open_conversation",
    "replay",
    "run_cases",
    "step",
]

INFRASTRUCTURE = (OSError, RuntimeError, MissingError, FrameError)
"""Errors that make a case invalid, not failed: a server or device broke down, or a row cannot be rendered."""


class ToolRunner(Protocol):
    """The part of a tool client (`agentft.toolserver.ToolClient`) that the loop needs."""

    def call(self, call: ToolCall, session: str) -> Exchange:
        """Send one call; raises an `INFRASTRUCTURE` error if the server does not respond."""

    def state_digest(self, session: str) -> str:
        """SHA-256 of the session's state."""


@dataclass(frozen=True, slots=True)
class Job:
    """One case to run, with its persona and tools. `trial`: index of the run of this case, from 0.

    `history`: turns of the conversation before the case's own. `held`: by name, the user turn from which a tool is
    offered; the others are from the start.
    """

    case: Case
    persona: str
    tools: tuple[ToolDefinition, ...]
    trial: int = 0
    history: tuple[Turn, ...] = ()
    held: Mapping[str, int] = field(default_factory=dict)

    def begin_turn(self, conversation: Conversation, turn: int) -> Conversation:
        """The conversation with the case's user turn, and with the tools that are offered from then on."""
        tools = tuple(tool for tool in self.tools if self.held.get(tool.name, 0) <= turn)
        return add_user_turn(replace(conversation, tools=tools), self.case.turns[turn].user)

    def session(self, run: str) -> str:
        """The session id for the tool servers. `run`: the name of the run; a dot separates it from that of the arm.

        Faults depend on the part after the last dot, and recordings on all but the first part, which are the same in
        every run.
        """
        # Hashed, because a session id is sent in a header and case ids may contain any character.
        case = f"{self.case.suite}\0{self.case.id}\0{self.trial}"
        return ".".join(hashlib.sha256(name.encode()).hexdigest()[:24] for name in (*run.split(".", 1), case))


@dataclass(frozen=True, slots=True)
class Options:
    """Run options. `run`: keeps tool sessions apart from other runs'.

    `max_steps`: maximum replies per user turn, or two more than its expected calls, if that is more.
    """

    batch_size: int = 16
    max_steps: int = 6
    sampling: Sampling = field(default_factory=Sampling)
    run: str = "run"


def open_conversation(key: str, persona: str, tools: Sequence[ToolDefinition], source: str) -> Conversation:
    """A conversation with its system turn only. `source`: the model's (see `Model.source`)."""
    parts = (Text(persona, Span(0, len(persona))),) if persona else ()
    return Conversation(key, (Turn("system", parts, persona),), tuple(tools), source)


def add_user_turn(conversation: Conversation, text: str) -> Conversation:
    """The conversation with one more user turn."""
    return _append(conversation, Turn("user", (Text(text, Span(0, len(text))),), text))


def advance(
    conversation: Conversation, reply: Reply, client: ToolRunner | None, session: str, turn: int
) -> tuple[Conversation, Step]:
    """Append a reply, send its calls, and append their results. `turn`: index of the user turn.

    Without a client, calls are not sent, and the reply ends the turn.
    """
    conversation = _append(conversation, reply.turn)
    calls = [part for part in reply.turn.parts if isinstance(part, ToolCall)]
    exchanges = tuple(_exchange(call, client, session) for call in calls) if client is not None else ()
    if exchanges:
        conversation = _append(conversation, _results_turn(exchanges))
    made = Step(
        turn=turn,
        parts=reply.turn.parts,
        raw=reply.raw,
        finish=reply.finish,
        exchanges=exchanges,
        prompt_tokens=reply.usage.prompt_tokens,
        tokens=reply.usage.tokens,
        response=reply.response,
    )
    return conversation, made


def step(  # noqa: PLR0917
    conversation: Conversation,
    model: Model,
    client: ToolRunner,
    sampling: Sampling,
    session: str,
    on_delta: OnDelta | None = None,
) -> tuple[Conversation, Step]:
    """Generate one reply and execute its calls. A step without exchanges is the answer.

    Raises:
        FrameError: the model's chat template cannot render the conversation.
    """
    turn = sum(turn.role == "user" for turn in conversation.turns) - 1
    request = Request(f"{conversation.id}/{turn}/{_steps_since_user(conversation)}", conversation)
    reply = model.reply([request], sampling, on_delta)[0]
    return advance(conversation, reply, client, session, turn)


def run_cases(
    jobs: Iterable[Job], model: Model, client_for: Callable[[Job], ToolRunner | None], options: Options
) -> Generator[Trajectory]:
    """Run jobs, up to `options.batch_size` at a time, and yield each trajectory when its case ends.

    A finished case is immediately replaced in the batch, to keep the device busy. A case with an `INFRASTRUCTURE` error
    ends as `invalid`; the others continue. With a `ConcurrentModel`, each case runs in a thread of its own.

    Args:
        client_for: returns the client for a job, which knows only the job's tools; None: its calls are not sent.
    """
    if isinstance(model, ConcurrentModel):
        yield from _run_concurrently(jobs, model, client_for, options)
        return
    waiting = deque(jobs)
    active: list[_Run] = []
    while waiting or active:
        while waiting and len(active) < options.batch_size:
            job = waiting.popleft()
            active.append(_Run(job, client_for(job), model.source, options))
        for run, reply in _replies(active, model, options.sampling):
            run.take(reply, options.max_steps)
        yield from (run.trajectory() for run in active if run.outcome)
        active = [run for run in active if not run.outcome]


def _run_concurrently(
    jobs: Iterable[Job], model: ConcurrentModel, client_for: Callable[[Job], ToolRunner | None], options: Options
) -> Iterator[Trajectory]:
    """Run each case in a thread of its own, so that none waits for another's reply or tools."""
    stopped = Event()

    def finish(run: _Run) -> Trajectory:
        while not run.outcome and not stopped.is_set():
            for _, reply in _replies([run], model, options.sampling):
                run.take(reply, options.max_steps)
        return run.trajectory()

    waiting = iter(jobs)
    running: set[Future[Trajectory]] = set()
    with ThreadPoolExecutor(options.batch_size, "agentft-case") as pool:
        try:
            while True:
                # Twice as many as run at once, so that the next case starts before the caller has taken the last.
                for job in islice(waiting, 2 * options.batch_size - len(running)):
                    running.add(pool.submit(finish, _Run(job, client_for(job), model.source, options)))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            stopped.set()
            left = [future for future in running if not future.cancel()]
            while wait(left, timeout=0.05).not_done:
                model.cancel()


def replay(job: Job, steps: Sequence[Step], source: str) -> Iterator[Conversation]:
    """The conversation before each of these steps of the job, as `run_cases` had it. `source`: the model's."""
    conversation, turn = _begin(job, source), 0
    for step_ in steps:
        if step_.turn > turn:
            turn = step_.turn
            conversation = job.begin_turn(conversation, turn)
        yield conversation
        conversation = _append(conversation, Turn("assistant", step_.parts, step_.raw or ""))
        if step_.exchanges:
            conversation = _append(conversation, _results_turn(step_.exchanges))


def _begin(job: Job, source: str) -> Conversation:
    """The conversation up to the first user turn of the case."""
    opened = open_conversation(job.case.id, job.persona, job.tools, source)
    return job.begin_turn(replace(opened, turns=opened.turns + job.history), 0)


class _Run:
    """One case in progress."""

    def __init__(self, job: Job, client: ToolRunner | None, source: str, options: Options) -> None:
        self.job = job
        self.client = client
        self.session = job.session(options.run)
        self.conversation = _begin(job, source)
        self.turn = 0
        self.turn_steps = 0  # steps since the last user turn
        self.steps: list[Step] = []
        self.prompt = ""
        self.outcome = ""
        self.problem = ""

    def request(self) -> Request:
        return Request(f"{self.job.case.id}/{self.turn}/{self.turn_steps}", self.conversation)

    def take(self, reply: Reply, max_steps: int) -> None:
        if not self.steps:
            self.prompt = reply.prompt or ""
        try:
            self.conversation, made = advance(self.conversation, reply, self.client, self.session, self.turn)
        except INFRASTRUCTURE as error:
            self.fail(error)
            return
        self.steps.append(made)
        self.turn_steps += 1
        if not made.exchanges:
            self.next_turn()
        elif self.turn_steps >= max(max_steps, len(self.job.case.turns[self.turn].calls) + 2):
            self.outcome = "step-limit"

    def next_turn(self) -> None:
        self.turn, self.turn_steps = self.turn + 1, 0
        if self.turn == len(self.job.case.turns):
            self.outcome = "done"
        else:
            self.conversation = self.job.begin_turn(self.conversation, self.turn)

    def fail(self, error: Exception) -> None:
        self.outcome = "invalid"
        self.problem = f"{type(error).__name__}: {error}"

    def trajectory(self) -> Trajectory:
        state = ""
        if self.outcome != "invalid" and self.client is not None:
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


def _replies(runs: Sequence[_Run], model: Model, sampling: Sampling) -> list[tuple[_Run, Reply]]:
    """One reply for each run; all are of one trial, which is added to the seed.

    If the batch fails, each run is tried alone, so that one bad prompt ends one case.
    """
    if not runs:
        return []
    seeded = replace(sampling, seed=sampling.seed + runs[0].job.trial)
    try:
        replies = model.reply([run.request() for run in runs], seeded)
        return list(zip(runs, replies, strict=True))
    except INFRASTRUCTURE as error:
        if len(runs) == 1:
            runs[0].fail(error)
            return []
    return [pair for run in runs for pair in _replies([run], model, sampling)]


def _exchange(call: ToolCall, client: ToolRunner, session: str) -> Exchange:
    """Send a call. An unreadable call is not sent; its result tells the model why."""
    if call.parse_error is None:
        return client.call(call, session)
    received = json.dumps({"error": f"the call could not be read: {call.parse_error}"}, ensure_ascii=False)
    return Exchange(call, method="", url=None, sent=None, status=None, received=received, is_error=True)


def _results_turn(exchanges: Sequence[Exchange]) -> Turn:
    parts: list[ToolResult] = []
    at = 0
    for exchange in exchanges:
        end = at + len(exchange.received)
        parts.append(ToolResult(exchange.call.id, exchange.received, Span(at, end), exchange.is_error))
        at = end
    return Turn("tool", tuple(parts), "".join(exchange.received for exchange in exchanges))


def _append(conversation: Conversation, turn: Turn) -> Conversation:
    return replace(conversation, turns=(*conversation.turns, turn))


def _steps_since_user(conversation: Conversation) -> int:
    count = 0
    for turn in reversed(conversation.turns):
        if turn.role == "user":
            break
        count += turn.role == "assistant"
    return count
