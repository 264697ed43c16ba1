"""The limits of a tool server: body size and depth, call time, request rate and sessions."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one server.

    Attributes:
        body: bytes of a request's body; more is a 413.
        depth: lists and objects inside each other in a body; more is a 400.
        seconds: what a call may take, its waiting included; then it is answered 504. Its handler cannot be stopped.
        rate: requests a second over all callers, after a burst of as many; more is a 429.
        sessions: sessions that have written; one more is a 503.
        idle: seconds after which a session that was not used makes room.
    """

    body: int = 1 << 20
    depth: int = 64
    seconds: float = 5.0
    rate: float = 10_000.0
    sessions: int = 10_000
    idle: float = 3600.0
