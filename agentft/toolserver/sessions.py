"""The states of the worlds, one set per session."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock, Semaphore

from agentft.errors import ToolError
from agentft.toolserver.limits import Limits
from agentft.toolset import State, Toolset, digest
from agentft.toolset.marks import did_you_mean
from agentft.toolset.state import freeze
from agentft.types import Json

__all__ = ["Sessions"]

_WAITING = 64  # writes of one session, waiting ones included


@dataclass(slots=True)
class _Session:
    used: float
    lock: Lock = field(default_factory=Lock)
    queue: Semaphore = field(default_factory=lambda: Semaphore(_WAITING))
    states: dict[str, State] = field(default_factory=dict)  # by world; only worlds that were written to


class Sessions:
    """Runs calls on per-session states. Thread-safe: the writes of one session run one after another.

    Sessions share the records that they did not change, and a session is stored only from its first write on, so a
    thousand sessions need little memory.

    Args:
        toolsets: the worlds; no two share a tool's name.
        seed: replaces the seed that the worlds were loaded with.
        limits: `sessions` and `idle` are used.
    """

    def __init__(self, toolsets: Sequence[Toolset], seed: int | None = None, limits: Limits | None = None) -> None:
        self._toolsets = {toolset.name: toolset for toolset in toolsets}
        self._worlds = {name: toolset.name for toolset in toolsets for name in toolset.tools}
        self._initial = {toolset.name: toolset.new_state(seed) for toolset in toolsets}
        self._untouched = digest(self._initial)
        self._limits = limits or Limits()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()  # least recently used first
        self._lock = Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The sessions that have written, most recently used last."""
        with self._lock:
            return tuple(self._sessions)

    def call(self, name: str, arguments: Mapping[str, Json], session: str) -> Json:
        """Run a tool in a session.

        Raises:
            ToolError: the call is refused; 503 if there are too many sessions, 429 if too many writes wait.
            HandlerError: the tool's handler has a bug.
        """
        world = self._worlds.get(name)
        if world is None:
            raise ToolError(f"there is no tool {name[:60]!r}{did_you_mean(name, list(self._worlds))}", status=404)
        toolset = self._toolsets[world]
        kept = self._session(session, make=toolset.is_write(name))
        if kept is None or not toolset.is_write(name):
            # A state is replaced as a whole, so reading it needs no lock.
            return toolset.call(name, arguments, self._state(kept, world))
        if not kept.queue.acquire(blocking=False):
            raise ToolError(f"{_WAITING} calls of this session are still running; wait for them", status=429)
        try:
            with kept.lock:
                state = {**self._state(kept, world)}
                result = toolset.call(name, arguments, state)
                kept.states[world] = state
                return result
        finally:
            kept.queue.release()

    def digest(self, session: str) -> str:
        """SHA-256 over the states of all worlds in a session."""
        kept = self._session(session)
        return digest({**self._initial, **kept.states}) if kept is not None else self._untouched

    def snapshot(self, session: str) -> dict[str, State]:
        """The states of the worlds that the session has written to. They are never changed, only replaced."""
        kept = self._session(session)
        return {} if kept is None else {**kept.states}

    def restore(self, session: str, states: Mapping[str, State]) -> None:
        """Put the session's worlds into these states, and the other worlds into their initial ones."""
        with self._lock:
            self._sessions.pop(session, None)
        if states and (kept := self._session(session, make=True)) is not None:
            kept.states = {world: freeze(state) for world, state in states.items() if world in self._toolsets}

    def initial(self) -> dict[str, State]:
        """The states that sessions start with, by world."""
        return {**self._initial}

    def _state(self, kept: _Session | None, world: str) -> State:
        return self._initial[world] if kept is None else kept.states.get(world, self._initial[world])

    def _session(self, session: str, make: bool = False) -> _Session | None:
        now = time.monotonic()
        with self._lock:
            kept = self._sessions.get(session)
            if kept is None and not make:
                return None
            while self._sessions and next(iter(self._sessions.values())).used < now - self._limits.idle:
                self._sessions.popitem(last=False)
            if kept is None and len(self._sessions) >= self._limits.sessions:
                most, idle = self._limits.sessions, self._limits.idle
                why = f"{most} sessions are in use; one that was idle for {idle:g} seconds makes room"
                raise ToolError(why, status=503)
            kept = self._sessions.setdefault(session, kept or _Session(now))
            kept.used = now
            self._sessions.move_to_end(session)
            return kept
