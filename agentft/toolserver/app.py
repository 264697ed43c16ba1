"""The ASGI application that serves tool worlds: `POST /tools/{name}`, the paths of imported APIs, and MCP at `/mcp`.

`GET /tools`, `/openapi.json`, `/state` and `/health` return JSON; `GET /` is a page for people.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from agentft.errors import ToolError
from agentft.toolserver.body import JSON_MEDIA, error_body, is_sendable, json_response, read_body_arguments
from agentft.toolserver.description import openapi_document
from agentft.toolserver.faults import Schedule
from agentft.toolserver.limits import Limits
from agentft.toolserver.mcp import McpEndpoint
from agentft.toolserver.page import RecentCall, draw_page
from agentft.toolserver.places import PathBook, read_route_arguments
from agentft.toolserver.sessions import Sessions
from agentft.toolserver.source import REAL_SECONDS, Source
from agentft.toolserver.wire import Wire
from agentft.toolserver.workers import Workers
from agentft.toolset import HandlerError, Toolset
from agentft.types import Json

__all__ = ["Service"]

_SESSION_LIMIT = 256
_RECENT = 50
_Read: TypeAlias = Callable[[Request, Limits], Awaitable[dict[str, Json]]]


class Service:
    """The ASGI application for a set of worlds. `crashes`: the most recent handler bugs, with their causes."""

    def __init__(
        self,
        toolsets: Sequence[Toolset],
        seed: int | None = None,
        limits: Limits | None = None,
        faults: Schedule | None = None,
        source: Source | None = None,
    ) -> None:
        self.toolsets = tuple(toolsets)
        self.crashes: deque[HandlerError] = deque(maxlen=100)
        self._limits = limits or Limits()
        self._source = source
        self._wire = Wire(faults) if faults else None
        self.sessions = Sessions(toolsets, seed, self._limits)
        self._names = {name for toolset in toolsets for name in toolset.tools}
        self._seconds = self._limits.seconds if source is None else 4 * REAL_SECONDS
        self._workers = Workers(self._seconds)
        self._paths = PathBook(toolsets)
        self._recent: deque[RecentCall] = deque(maxlen=_RECENT)
        self._mcp = McpEndpoint(self.toolsets, self.run_for_mcp)
        definitions = [asdict(definition) for toolset in toolsets for definition in toolset.definitions]
        self._documents: dict[str, Callable[[], object]] = {
            "/tools": lambda: definitions,
            "/openapi.json": lambda: openapi_document(self.toolsets),
            "/health": lambda: {"status": "ok", "worlds": [toolset.name for toolset in self.toolsets]},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["path"] == "/mcp":
            await self._mcp(scope, receive, send)
            return
        try:
            response = await self._answer(Request(scope, receive))
        except ToolError as error:
            response = _refusal(error)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        path, method = request.scope["path"], request.method
        start, _, name = path.rpartition("/")
        if start == "/tools" and name:
            if method != "POST":
                return _wrong_method(request, ["POST"], "a tool is called with POST")
            return await self._call_with_faults(request, name, read_body_arguments)
        if found := self._paths.find(request.scope):
            if method not in found:
                return _wrong_method(request, found, f"it takes {', '.join(sorted(found))}")
            tool, values = found[method]
            return await self._call_with_faults(
                request, tool.definition.name, partial(read_route_arguments, tool, values)
            )
        if path not in self._documents and path not in {"/", "/state"}:
            raise ToolError(f"nothing is served at {path[:100]}; tools are at /tools/<name>", status=404)
        if method not in {"GET", "HEAD"}:
            return _wrong_method(request, ["GET", "HEAD"], "a tool is called with POST")
        if path == "/":
            return draw_page(self.toolsets, self.sessions, self._recent)
        if path == "/state":
            try:
                digest = await self._workers.run("", self.sessions.digest, _session(request))
            except TimeoutError:
                raise ToolError(f"no answer within {self._seconds:g} seconds", status=504) from None
            return json_response(200, {"digest": digest})
        return json_response(200, self._documents[path]())

    async def _call_with_faults(self, request: Request, name: str, read: _Read) -> ASGIApp:
        run = partial(self._call, name, read)
        return await (self._wire.respond(request, name, run) if self._wire else run(request))

    async def _call(self, name: str, read: _Read, request: Request) -> Response:
        try:
            session = _session(request)
            arguments = await read(request, self._limits)
        except ToolError as error:
            return _refusal(error)
        return json_response(*await self.run(name, arguments, session))

    async def run(self, name: str, arguments: Mapping[str, Json], session: str) -> tuple[int, Json, str]:
        """Run a tool; returns the status, the result (JSON, or a real service's text) and its media type."""
        result: Json
        media = JSON_MEDIA
        try:
            status, result, media = await self._workers.run(name, self._run_tool, name, arguments, session)
        except ToolError as error:
            status, result = error.status, error_body(error)
        except TimeoutError:
            status, result = 504, {"error": f"{name[:60]} gave no answer within {self._seconds:g} seconds"}
        except HandlerError as error:
            self.crashes.append(error)
            status, result = 500, {"error": str(error)}
        self._recent.append((time.time(), session, name, arguments, status))
        return status, result, media

    async def run_for_mcp(
        self, name: str, arguments: Mapping[str, Json], session: str, scope: Scope
    ) -> tuple[int, Json]:
        """Like `run`, with the schedule's faults; returns the status and the result. `scope`: the HTTP request's."""

        async def respond() -> Response:
            return json_response(*await self.run(name, arguments, session))

        if self._wire is not None:
            return await self._wire.spoil_result((session, name), respond, scope)
        status, result, _ = await self.run(name, arguments, session)
        return status, result

    def _run_tool(self, name: str, arguments: Mapping[str, Json], session: str) -> tuple[int, Json, str]:
        if self._source is not None and name in self._names and (found := self._source(name, arguments, session)):
            return found.status, found.body, found.type
        try:
            return 200, self.sessions.call(name, arguments, session), JSON_MEDIA
        except ToolError as error:
            if is_sendable(error):
                raise
            raise HandlerError(f"internal error in tool {name}") from error

    def close(self) -> None:
        """Stop the worker threads after their current calls, and close the source."""
        self._workers.close()
        if self._source is not None:
            self._source.close()


def _session(request: Request) -> str:
    session = request.headers.get("x-session", "default")
    if len(session) > _SESSION_LIMIT:
        raise ToolError(f"X-Session is longer than {_SESSION_LIMIT} characters")
    return session


def _refusal(error: ToolError) -> Response:
    return json_response(error.status, error_body(error))


def _wrong_method(request: Request, allowed: Iterable[str], hint: str) -> Response:
    body = {"error": f"{request.scope['path'][:100]} does not take {request.method}; {hint}"}
    return json_response(405, body, headers={"Allow": ", ".join(sorted(allowed))})
