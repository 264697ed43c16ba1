"""The faces of a set of worlds: `POST /tools/{name}`, an imported API's own paths, MCP at `/mcp`, and a description.

`GET /tools`, `/openapi.json`, `/state` and `/health` answer JSON; `GET /` is a page for people.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agentft.errors import ToolError
from agentft.toolserver.body import read_arguments
from agentft.toolserver.description import describe
from agentft.toolserver.faults import Schedule
from agentft.toolserver.guard import AddressBook, Guard
from agentft.toolserver.limits import Bucket, Limits
from agentft.toolserver.mcp import McpFace
from agentft.toolserver.page import RecentCall, draw_page
from agentft.toolserver.paths import Found, PathBook, read_own_arguments
from agentft.toolserver.real import Source
from agentft.toolserver.sessions import Sessions
from agentft.toolserver.wire import Wire
from agentft.toolserver.workers import Workers
from agentft.toolset import HandlerError, Tool, Toolset
from agentft.types import Json

__all__ = ["Service", "make_app"]

_SESSION_LIMIT = 256
_JSON = "application/json"
_RECENT = 50
_REAL_SECONDS = 10.0


class Service:
    """The endpoints over one set of worlds. `crashes` keeps the last handler bugs, with what was raised as cause."""

    def __init__(
        self,
        toolsets: Sequence[Toolset],
        seed: int | None = None,
        limits: Limits | None = None,
        faults: Schedule | None = None,
        source: Source | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.source = source
        self._wire = Wire(faults) if faults else None
        self.toolsets = tuple(toolsets)
        self.sessions = Sessions(toolsets, seed, most=self.limits.sessions, idle=self.limits.idle)
        self.workers = Workers(self.limits.seconds if source is None else _REAL_SECONDS)
        self.definitions = tuple(definition for toolset in toolsets for definition in toolset.definitions)
        self.paths = PathBook(toolsets)
        self.crashes: deque[HandlerError] = deque(maxlen=100)
        self.recent: deque[RecentCall] = deque(maxlen=_RECENT)
        self._worlds: list[Json] = [toolset.name for toolset in toolsets]

    async def run(self, name: str, arguments: Mapping[str, Json], session: str) -> tuple[int, Json]:
        """Run a tool: the status and the JSON (or a real service's text) of its answer, whatever happens."""
        status, answer, _ = await self._run(name, arguments, session)
        return status, answer

    async def _run(self, name: str, arguments: Mapping[str, Json], session: str) -> tuple[int, Json, str]:
        """All faces come through here. The last value is the type of the answer."""
        status: int
        answer: Json
        kind = _JSON
        try:
            status, answer, kind = await self.workers.run(self._ask, name, arguments, session)
        except ToolError as error:
            status, answer = error.status, _error(error)
        except TimeoutError:
            status, answer = 504, {"error": f"{name[:60]} gave no answer within {self.limits.seconds:g} seconds"}
        except HandlerError as error:
            self.crashes.append(error)
            status, answer = 500, {"error": str(error)}
        self.recent.append(RecentCall(time.time(), session, name, arguments, status))
        return status, answer, kind

    def _ask(self, name: str, arguments: Mapping[str, Json], session: str) -> tuple[int, Json, str]:
        if self.source is not None and (found := self.source(name, arguments, session)):
            return found.status, found.body, found.type
        return 200, self.sessions.call(name, arguments, session), _JSON

    async def call(self, request: Request) -> ASGIApp:
        """Run a tool: the body is its arguments, `X-Session` names the state."""
        return await self._on_the_wire(request, self._call)

    async def _on_the_wire(self, request: Request, run: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
        return await (self._wire.answer(request, run) if self._wire else run(request))

    async def _call(self, request: Request) -> Response:
        try:
            session = _session(request)
            arguments = await read_arguments(request, self.limits)
        except ToolError as error:
            return _answer(error.status, _error(error))
        return _answer(*await self._run(request.path_params["name"], arguments, session))

    async def own_path(self, request: Request, found: Found) -> ASGIApp:
        """Run the tool of an imported API that stands at the request's path."""
        if request.method not in found.tools:
            allow = ", ".join(sorted(found.tools))
            error = {"error": f"{request.url.path[:100]} does not take {request.method}; it takes {allow}"}
            return _answer(405, error, headers={"Allow": allow})
        tool, values = found.tools[request.method]
        request.scope["path_params"] = {"name": tool.definition.name}
        return await self._on_the_wire(request, partial(self._own_call, tool, values))

    async def _own_call(self, tool: Tool, values: Mapping[str, str], request: Request) -> Response:
        try:
            session = _session(request)
            arguments = await read_own_arguments(request, tool, values, self.limits)
        except ToolError as error:
            return _answer(error.status, _error(error))
        return _answer(*await self._run(tool.definition.name, arguments, session))

    async def tools(self, _: Request) -> Response:
        """The definitions of all tools."""
        return _answer(200, [asdict(definition) for definition in self.definitions])

    async def openapi(self, _: Request) -> Response:
        """The OpenAPI 3.1 document of this server."""
        return _answer(200, describe(self.toolsets))

    async def state(self, request: Request) -> Response:
        """The digest of a session's state."""
        try:
            session = _session(request)
        except ToolError as error:
            return _answer(error.status, _error(error))
        return _answer(200, {"digest": await self.workers.run(self.sessions.digest, session)})

    async def health(self, _: Request) -> Response:
        """That the server is up, and what it serves."""
        return _answer(200, {"status": "ok", "worlds": self._worlds})

    async def page(self, _: Request) -> Response:
        """The page for people."""
        return draw_page(self.toolsets, self.sessions, self.recent)

    def close(self) -> None:
        """Let the threads end, and what answers in place of the worlds."""
        self.workers.close()
        if self.source is not None:
            self.source.close()


def make_app(service: Service, token: str, bound: str = "127.0.0.1") -> Guard:
    """The guarded ASGI application of a service that listens on the address `bound`."""
    routes = [
        Route("/tools/{name}", service.call, methods=["POST"]),
        Route("/tools", service.tools),
        Route("/openapi.json", service.openapi),
        Route("/state", service.state),
        Route("/health", service.health),
        Route("/mcp", McpFace(service)),
        Route("/", service.page),
    ]
    starlette = Starlette(routes=routes, exception_handlers={HTTPException: _http_error})
    starlette.router.redirect_slashes = False
    book = AddressBook(service.definitions, bound)
    return Guard(_quick(service, starlette), book, token, Bucket(service.limits.rate))


def _quick(service: Service, rest: ASGIApp) -> ASGIApp:
    """Calls go straight to the service, which saves a third of their time; all else goes through Starlette."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        start, _, name = scope["path"].rpartition("/")
        if start == "/tools" and name and scope["method"] == "POST":
            request = Request({**scope, "path_params": {"name": name}}, receive)
            response = await service.call(request)
        elif found := service.paths.find(scope):
            response = await service.own_path(Request(scope, receive), found)
        else:
            await rest(scope, receive, send)
            return
        await response(scope, receive, send)

    return app


def _session(request: Request) -> str:
    session = request.headers.get("x-session", "default")
    if len(session) > _SESSION_LIMIT:
        raise ToolError(f"X-Session is longer than {_SESSION_LIMIT} characters")
    return session


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    if status == 405:
        message = f"{request.url.path} does not take {request.method}; a tool is called with POST"
    else:
        message = f"nothing is served at {request.url.path[:100]}; tools are at /tools/<name>"
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def _error(error: ToolError) -> dict[str, Json]:
    return {"error": str(error), **cast("dict[str, Json]", error.details)}


def _answer(status: int, content: object, kind: str = _JSON, headers: Mapping[str, str] | None = None) -> Response:
    text = content if isinstance(content, str) and not kind.endswith("json") else None
    text = json.dumps(content, ensure_ascii=False, allow_nan=False) if text is None else text
    return Response(text, status, headers, media_type=kind)
