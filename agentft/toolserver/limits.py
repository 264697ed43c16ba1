"""The limits of a tool server: body size and depth, call time, request rate and sessions."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one server.

    Attributes:
        body: bytes of a request's body; a larger one gets a 413.
        depth: levels of nested lists and objects in a body; a deeper one gets a 400.
        seconds: time for a call, queueing included; then it gets a 504, while its handler runs on.
        rate: requests per second of all callers, with bursts of up to one second's worth; others get a 429.
        sessions: sessions that have written; a further one gets a 503.
        idle: seconds without use after which a session may be dropped.
    """

    body: int = 1 << 20
    depth: int = 64
    seconds: float = 5.0
    rate: float = 10_000.0
    sessions: int = 10_000
    idle: float = 3600.0
