"""What a fault does to an answer, down to the bytes on the socket. Nothing in an answer tells that it is one."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentft.errors import ToolError
from agentft.toolserver.body import JSON_MEDIA, answer, json_or_text, read_arguments
from agentft.toolserver.faults import KINDS, Fault, Schedule
from agentft.toolserver.limits import Limits
from agentft.types import Json

__all__ = ["Wire", "WireProtocol"]

_CALLS_KEPT = 100_000
_HUGE = 4 << 20
_PIECES = 20
_READ_SECONDS = 0.02  # for the client to read what came, since a reset throws away what it has not read
_CLOSE_SECONDS = 5.0


class WireProtocol(H11Protocol):
    """uvicorn's protocol, with a request's transport at `scope["state"]["transport"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport for the requests of this connection."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class Wire:
    """Stands before a service's answers and spoils those that the schedule names. For one event loop."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._earlier: dict[tuple[str, str], Response] = {}

    async def answer(self, request: Request, tool: str, run: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
        """What a call is answered with; `run` gives the true answer, with whatever effect the call has."""
        key = request.headers.get("x-session", "default"), tool
        fault, found = await self._answer(key, partial(run, request), request)
        return partial(_PLAYS[fault.kind], fault, found) if fault is not None and fault.kind in _PLAYS else found

    async def tell(
        self, key: tuple[str, str], run: Callable[[], Awaitable[Response]], scope: Scope
    ) -> tuple[int, Json]:
        """The same for MCP: status and content of a call's result. `key` is session and tool."""
        fault, found = await self._answer(key, run)
        if fault is not None and fault.kind in _PLAYS:
            if _PLAYS[fault.kind] is _cut:
                await _cut(fault, found, scope, _no_message, _no_message)
            else:
                await asyncio.sleep(fault.takes)
        return found.status_code, json_or_text(bytes(found.body))

    async def _answer(
        self, key: tuple[str, str], run: Callable[[], Awaitable[Response]], request: Request | None = None
    ) -> tuple[Fault | None, Response]:
        """The fault that this call meets, and what it is answered with."""
        fault = self._schedule.at(*key, self._count(key))
        if fault is None or fault.after or fault.does.effect:
            true = await run()
        else:
            # What was sent is read all the same: a socket closed on unread bytes would reset the connection.
            with suppress(ToolError):
                await read_arguments(request, Limits()) if request else None
            true = answer(504, {"error": KINDS["504"].text})
        if fault is None or fault.kind in _PLAYS or (fault.does.effect and true.status_code != 200):
            if fault is None and true.status_code == 200 and self._schedule.stale:
                self._earlier[key] = true
            return fault, true  # a refusal stays what it is
        return fault, self._earlier.get(key, true) if fault.kind == "stale" else _changed(fault, true)

    def _count(self, key: tuple[str, str]) -> int:
        """The number of this call, from 1. The sessions that were quiet longest are forgotten."""
        self._counts[key] = self._counts.pop(key, 0) + 1
        if len(self._counts) > _CALLS_KEPT:
            old, _ = self._counts.popitem(last=False)
            self._earlier.pop(old, None)
        return self._counts[key]


def _changed(fault: Fault, true: Response) -> Response:
    """A whole answer, but not the true one."""
    text, body, status = fault.text or fault.does.text, bytes(true.body), fault.does.status or 200
    match fault.kind:
        case "html":
            return answer(status, text, "text/html")
        case "empty":
            return Response(b"", media_type=JSON_MEDIA)
        case "wrong-type":
            return answer(status, body, "application/octet-stream")
        case "huge":
            piece = body + b", "
            return Response(b"[" + piece * (_HUGE // len(piece)) + body + b"]", media_type=JSON_MEDIA)
        case "schema":
            return answer(status, _twisted(json_or_text(body)))
        case "injection":
            content = json_or_text(body)
            return answer(status, {**content, "note": text} if isinstance(content, dict) else [content, text])
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status == 429:
        headers = {"Retry-After": str(math.ceil(fault.takes))}
    return answer(status, {"error": text.replace("{seconds}", headers.get("Retry-After", ""))}, headers=headers)


def _twisted(value: Json) -> Json:
    """Numbers become texts, and texts lists."""
    if isinstance(value, dict):
        return {key: _twisted(item) for key, item in value.items()}
    return [value] if isinstance(value, str) else json.dumps(value)


async def _cut(fault: Fault, true: Response, scope: Scope, receive: Receive, _: Send) -> None:
    """The head and half of the body, and then the connection ends: in order (FIN), or by a reset (RST)."""
    transport: asyncio.Transport = scope["state"]["transport"]
    status = f"HTTP/1.1 {true.status_code} {HTTPStatus(true.status_code).phrase}".encode()
    lines = [status, *(b": ".join(header) for header in true.raw_headers), b""]
    transport.write(b"\r\n".join([*lines, bytes(true.body[: len(true.body) // 2])]))
    if fault.kind == "reset":
        await asyncio.sleep(_READ_SECONDS)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    transport.close()
    await _gone(receive, _CLOSE_SECONDS)


async def _drip(fault: Fault, true: Response, _: Scope, receive: Receive, send: Send) -> None:
    size = len(true.body) // _PIECES + 1
    await send({"type": "http.response.start", "status": true.status_code, "headers": true.raw_headers})
    for start in range(0, len(true.body), size):
        if await _gone(receive, fault.takes / _PIECES):
            return
        await send({"type": "http.response.body", "body": bytes(true.body[start : start + size]), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _late(fault: Fault, true: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Who waits long enough is answered: with the result, or with a 504 if there was no effect."""
    if not await _gone(receive, fault.takes):
        await true(scope, receive, send)


async def _no_message(*_: object) -> Any:
    """MCP's SDK has the connection's messages: wait until whoever waits has had enough."""
    await asyncio.Event().wait()


async def _gone(receive: Receive, seconds: float) -> bool:
    """Wait, and say whether the client left meanwhile."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
            return True
    return False


_PLAYS = {"reset": _cut, "truncated": _cut, "drip": _drip, "timeout": _late}
