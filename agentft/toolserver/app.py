"""The routes: `POST /tools/{name}`, `GET /tools`, `GET /state`, `GET /health`. Every answer is JSON."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agentft.errors import ToolError
from agentft.toolserver.body import read_arguments
from agentft.toolserver.faults import Schedule
from agentft.toolserver.guard import AddressBook, Guard
from agentft.toolserver.real import Source
from agentft.toolserver.sessions import Sessions
from agentft.toolserver.wire import Wire
from agentft.toolset import HandlerError, Toolset
from agentft.types import Json

__all__ = ["Service", "make_app"]

_SESSION_LIMIT = 256


class Service:
    """The endpoints over one set of worlds. `crashes` keeps the last handler bugs, with what was raised as cause."""

    def __init__(
        self, toolsets: Sequence[Toolset], seed: int | None, faults: Schedule | None, source: Source | None
    ) -> None:
        self.sessions = Sessions(toolsets, seed)
        self.definitions = tuple(definition for toolset in toolsets for definition in toolset.definitions)
        self.source = source
        self._wire = Wire(faults) if faults else None
        self.crashes: deque[HandlerError] = deque(maxlen=100)
        self._worlds: list[Json] = [toolset.name for toolset in toolsets]

    async def call(self, request: Request) -> ASGIApp:
        """Run a tool: the body is its arguments, `X-Session` names the state."""
        return await (self._wire.answer(request, self._run) if self._wire else self._run(request))

    async def _run(self, request: Request) -> Response:
        try:
            session = _session(request)
            arguments = await read_arguments(request)
            return await run_in_threadpool(self._result, request.path_params["name"], arguments, session)
        except ToolError as error:
            return _answer({"error": str(error), **error.details}, error.status)
        except HandlerError as error:
            self.crashes.append(error)
            return _answer({"error": str(error)}, 500)

    def _result(self, tool: str, arguments: Mapping[str, Json], session: str) -> Response:
        if self.source is not None and (found := self.source(tool, arguments, session)):
            return Response(found.text, found.status, media_type=found.type)
        return _answer(self.sessions.call(tool, arguments, session))

    async def tools(self, _: Request) -> Response:
        """The definitions of all tools."""
        return _answer([asdict(definition) for definition in self.definitions])

    async def state(self, request: Request) -> Response:
        """The digest of a session's state."""
        try:
            session = _session(request)
        except ToolError as error:
            return _answer({"error": str(error)}, error.status)
        return _answer({"digest": await run_in_threadpool(self.sessions.digest, session)})

    async def health(self, _: Request) -> Response:
        """That the server is up, and what it serves."""
        return _answer({"status": "ok", "worlds": self._worlds})


def make_app(service: Service, token: str) -> Guard:
    """The guarded ASGI application of a service."""
    routes = [
        Route("/tools/{name}", service.call, methods=["POST"]),
        Route("/tools", service.tools),
        Route("/state", service.state),
        Route("/health", service.health),
    ]
    starlette = Starlette(routes=routes, exception_handlers={HTTPException: _http_error})
    starlette.router.redirect_slashes = False
    return Guard(starlette, AddressBook(service.definitions), token)


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


def _answer(content: object, status: int = 200) -> Response:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Response(text, status, media_type="application/json")
