"""The limits of a connection before its request is read: size and time of the head, time of the body, connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentft.toolserver.body import DRAIN_LIMIT

__all__ = ["CONNECTIONS", "HEAD_BYTES", "LimitedProtocol", "WireProtocol"]

HEAD_BYTES = 64 << 10
"""The largest head (request line and headers); a larger one gets a 431."""

CONNECTIONS = 512
"""The most connections at once; a further one gets a 503. Below the usual limit of 1,024 open files."""

_SECONDS = 10.0  # for a head, and then for a body
_REST_BYTES = 32 << 20  # of a body with its chunk headers and trailers; a body may have far fewer
_END = b"\r\n\r\n"
_PHRASES = {431: "Request Header Fields Too Large", 503: "Service Unavailable"}

if TYPE_CHECKING:
    _Base = H11Protocol
else:
    _Base = object


class _Limited(_Base):
    """Mixed into a protocol of uvicorn. It sees the bytes before the parser does, which has no limits of its own."""

    _size = 0  # bytes of the head, or of what follows it
    _tail = b""  # the last bytes of the head so far, in which its end may begin
    _in_head = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self._refuse(503)
        else:
            self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Pass the bytes to the parser, unless a limit is exceeded."""
        if self.transport.is_closing():
            return
        if not self._in_head and not self._is_body_open():
            self._in_head, self._size, self._tail = True, 0, b""
            self._start_timer()
        if self._in_head:
            end = (self._tail + data).find(_END)
            self._size += len(data) if end < 0 else end - len(self._tail)
            if self._size > HEAD_BYTES:
                self._refuse(431)
                return
            self._tail = (self._tail + data)[-len(_END) + 1 :]
            if end >= 0:
                self._in_head, self._size = False, 0
                self._start_timer()
        else:
            self._size += len(data)
            if self._size > _REST_BYTES:
                self.transport.abort()
                return
            if self._size > DRAIN_LIMIT and self.cycle is not None:
                self.cycle.keep_alive = False  # the answer comes before the body's end
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(_SECONDS, self._close_if_late)

    def _close_if_late(self) -> None:
        if self._in_head or self._is_body_open():
            self.transport.abort()

    def _is_body_open(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_complete

    def _refuse(self, status: int) -> None:
        head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        cycle: Any = self.cycle
        if cycle is None or not cycle.more_body:  # else this is the rest of a body that was answered before its end
            self.transport.write(head.encode())
        self.transport.close()


class LimitedProtocol(_Limited, AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol (httptools, which is faster, if it is installed) with the limits."""


class WireProtocol(_Limited, H11Protocol):
    """uvicorn's h11 protocol with the limits, and with a request's transport at `scope["state"]["transport"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport for the requests of this connection."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
