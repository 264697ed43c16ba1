"""What every request passes before it reaches a tool: the Host, the token, and the address that a model would use."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agentft.types import ToolDefinition

__all__ = ["AddressBook", "Guard"]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class AddressBook:
    """Which tool answers at which host and path: every endpoint of every definition."""

    def __init__(self, definitions: Iterable[ToolDefinition]) -> None:
        self._tools = {
            _place(endpoint): definition.name for definition in definitions for endpoint in definition.endpoints
        }
        self._hosts = frozenset(host for host, _ in self._tools)

    def knows(self, host: str) -> bool:
        """Whether `host` (a Host header) is loopback, on any port, or that of an endpoint."""
        return host.lower() in self._hosts or _hostname(host) in _LOOPBACK

    def tool(self, host: str, path: str) -> str | None:
        """The tool at an address, if there is one."""
        return self._tools.get((host.lower(), path))


def _place(endpoint: str) -> tuple[str, str]:
    parts = urlsplit(endpoint)
    return parts.netloc.lower(), parts.path


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class Guard:
    """ASGI middleware. A tool's own address (Host and path) becomes `/tools/<name>`; `/health` needs no token."""

    def __init__(self, app: ASGIApp, book: AddressBook, token: str) -> None:
        self._app = app
        self._book = book
        self._authorization = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that must not pass, or hand it on."""
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._book.knows(host):
            # A page of another site that had its name point to loopback (DNS rebinding) ends here.
            refusal = JSONResponse({"error": "this host is not served here"}, status_code=403)
        elif scope["path"] != "/health" and not self._authorized(headers):
            challenge = {"WWW-Authenticate": "Bearer"}
            refusal = JSONResponse({"error": "missing or wrong bearer token"}, status_code=401, headers=challenge)
        else:
            tool = self._book.tool(host, scope["path"])
            await self._app({**scope, "path": f"/tools/{tool}"} if tool else scope, receive, send)
            return
        await refusal(scope, receive, send)

    def _authorized(self, headers: dict[bytes, bytes]) -> bool:
        return hmac.compare_digest(headers.get(b"authorization", b""), self._authorization)
