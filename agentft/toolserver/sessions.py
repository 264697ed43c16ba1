"""The worlds' states, one set for each session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from agentft.errors import ToolError
from agentft.toolset import State, Toolset, digest, nearest
from agentft.types import Json

__all__ = ["Sessions"]


@dataclass(slots=True)
class _Session:
    lock: Lock = field(default_factory=Lock)
    states: dict[str, State] = field(default_factory=dict)  # by world; only worlds that were written to


class Sessions:
    """Runs calls on per-session states. Safe for threads: the calls of one session run one after the other.

    A session that has only read shares the initial state with all others, so a thousand sessions cost little.

    Args:
        toolsets: the worlds; no two share a tool's name.
        seed: replaces the seed that the worlds were loaded with.
    """

    def __init__(self, toolsets: Sequence[Toolset], seed: int | None = None) -> None:
        self._seed = seed
        self._toolsets = {toolset.name: toolset for toolset in toolsets}
        self._worlds = {name: toolset.name for toolset in toolsets for name in toolset.tools}
        self._initial = {toolset.name: toolset.new_state(seed) for toolset in toolsets}
        self._sessions: dict[str, _Session] = {}
        self._lock = Lock()

    def call(self, name: str, arguments: Mapping[str, Json], session: str) -> Json:
        """Run a tool in a session.

        Raises:
            ToolError: the call is refused.
            HandlerError: the tool's handler has a bug.
        """
        world = self._worlds.get(name)
        if world is None:
            raise ToolError(f"there is no tool {name[:60]!r}{nearest(name, list(self._worlds))}", status=404)
        toolset, kept = self._toolsets[world], self._session(session)
        with kept.lock:
            if not toolset.is_write(name):
                return toolset.call(name, arguments, kept.states.get(world, self._initial[world]))
            state = kept.states.get(world) or toolset.new_state(self._seed)
            result = toolset.call(name, arguments, state)
            kept.states[world] = state
            return result

    def digest(self, session: str) -> str:
        """SHA-256 over the states of all worlds in a session."""
        kept = self._session(session)
        with kept.lock:
            return digest({**self._initial, **kept.states})

    def _session(self, session: str) -> _Session:
        with self._lock:
            return self._sessions.setdefault(session, _Session())
