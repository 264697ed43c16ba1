"""Applies faults to responses, down to the bytes on the socket. Nothing in a response shows that it is a fault."""

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

from agentft.errors import ToolError
from agentft.toolserver.body import JSON_MEDIA, json_or_text, json_response, read_body_arguments
from agentft.toolserver.faults import FAULT_KINDS, Fault, Schedule
from agentft.toolserver.limits import Limits
from agentft.types import Json

__all__ = ["Wire"]

_CALLS_KEPT = 100_000
_HUGE = 4 << 20
_PIECES = 20
_READ_SECONDS = 0.02  # time for the client to read, because a reset discards unread bytes
_CLOSE_SECONDS = 5.0


class Wire:
    """Applies the schedule's faults to a service's responses. For use from one event loop."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._earlier: dict[tuple[str, str], Response] = {}

    async def respond(self, request: Request, tool: str, run: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
        """The response to a call, with the fault that the schedule has for it, if any; `run` executes the call."""
        key = request.headers.get("x-session", "default"), tool
        fault, found = await self._spoil(key, partial(run, request), request)
        return partial(_SENDERS[fault.kind], fault, found) if fault is not None and fault.kind in _SENDERS else found

    async def spoil_result(
        self, key: tuple[str, str], run: Callable[[], Awaitable[Response]], scope: Scope
    ) -> tuple[int, Json]:
        """The same for MCP; returns the status and the content of the result. `key`: the session and the tool."""
        fault, found = await self._spoil(key, run)
        if fault is not None and fault.kind in _SENDERS:
            if _SENDERS[fault.kind] is _send_half:
                await _send_half(fault, found, scope, _no_message, _no_message)
            else:
                await asyncio.sleep(fault.delay)
        return found.status_code, json_or_text(bytes(found.body))

    async def _spoil(
        self, key: tuple[str, str], run: Callable[[], Awaitable[Response]], request: Request | None = None
    ) -> tuple[Fault | None, Response]:
        """The fault of this call, if any, and its response."""
        fault = self._schedule.at(*key, self._count(key))
        if fault is None or fault.after or fault.definition.effect:
            real = await run()
        else:
            # Read the body anyway: closing a socket with unread bytes would reset the connection.
            with suppress(ToolError):
                await read_body_arguments(request, Limits()) if request else None
            real = json_response(504, {"error": FAULT_KINDS["504"].text})
        if fault is None or fault.kind in _SENDERS or (fault.definition.effect and real.status_code != 200):
            if fault is None and real.status_code == 200 and self._schedule.stale:
                self._earlier[key] = real
            return fault, real  # error responses are left unchanged
        return fault, self._earlier.get(key, real) if fault.kind == "stale" else _spoiled(fault, real)

    def _count(self, key: tuple[str, str]) -> int:
        """The number of this call, from 1. Beyond `_CALLS_KEPT` entries, the least recently used is dropped."""
        self._counts[key] = self._counts.pop(key, 0) + 1
        if len(self._counts) > _CALLS_KEPT:
            old, _ = self._counts.popitem(last=False)
            self._earlier.pop(old, None)
        return self._counts[key]


def _spoiled(fault: Fault, real: Response) -> Response:
    """A complete response that replaces the real one."""
    text, body, status = fault.text or fault.definition.text, bytes(real.body), fault.definition.status or 200
    match fault.kind:
        case "html":
            return json_response(status, text, "text/html")
        case "empty":
            return Response(b"", media_type=JSON_MEDIA)
        case "wrong-type":
            return json_response(status, body, "application/octet-stream")
        case "huge":
            piece = body + b", "
            return Response(b"[" + piece * (_HUGE // len(piece)) + body + b"]", media_type=JSON_MEDIA)
        case "schema":
            return json_response(status, _with_wrong_types(json_or_text(body)))
        case "injection":
            content = json_or_text(body)
            return json_response(status, {**content, "note": text} if isinstance(content, dict) else [content, text])
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status == 429:
        headers = {"Retry-After": str(math.ceil(fault.delay))}
    return json_response(status, {"error": text.replace("{seconds}", headers.get("Retry-After", ""))}, headers=headers)


def _with_wrong_types(value: Json) -> Json:
    """The value with numbers as strings, and strings in lists."""
    if isinstance(value, dict):
        return {key: _with_wrong_types(item) for key, item in value.items()}
    return [value] if isinstance(value, str) else json.dumps(value)


async def _send_half(fault: Fault, real: Response, scope: Scope, receive: Receive, _: Send) -> None:
    """Send the head and half of the body, then close the connection (FIN) or reset it (RST)."""
    transport: asyncio.Transport = scope["state"]["transport"]
    status = f"HTTP/1.1 {real.status_code} {HTTPStatus(real.status_code).phrase}".encode()
    lines = [status, *(b": ".join(header) for header in real.raw_headers), b""]
    transport.write(b"\r\n".join([*lines, bytes(real.body[: len(real.body) // 2])]))
    if fault.kind == "reset":
        await asyncio.sleep(_READ_SECONDS)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    transport.close()
    await _client_left(receive, _CLOSE_SECONDS)


async def _send_slowly(fault: Fault, real: Response, _: Scope, receive: Receive, send: Send) -> None:
    size = len(real.body) // _PIECES + 1
    await send({"type": "http.response.start", "status": real.status_code, "headers": real.raw_headers})
    for start in range(0, len(real.body), size):
        if await _client_left(receive, fault.delay / _PIECES):
            return
        await send({"type": "http.response.body", "body": bytes(real.body[start : start + size]), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _send_late(fault: Fault, real: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Respond after the delay if the client still waits: with the result, or with 504 if the call had no effect."""
    if not await _client_left(receive, fault.delay):
        await real(scope, receive, send)


async def _no_message(*_: object) -> Any:
    """A receive function that never returns, because the MCP SDK receives the connection's messages."""
    await asyncio.Event().wait()


async def _client_left(receive: Receive, seconds: float) -> bool:
    """Wait, and return whether the client disconnected meanwhile."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
            return True
    return False


_SENDERS = {"reset": _send_half, "truncated": _send_half, "drip": _send_slowly, "timeout": _send_late}
