"""Checks the Host, Origin, token and rate of every request, and maps tool URLs to `/tools/<name>`."""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from agentft.toolserver.body import json_response
from agentft.types import ToolDefinition

__all__ = ["Guard"]

_HOST = re.compile(r"(?:\[[0-9a-f:.]+\]|[^\s/?#@\[\]\\:]+)(?::\d*)?")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Guard:
    """ASGI middleware. A tool's own address (Host and path) becomes `/tools/<name>`; `/health` needs no token.

    Programs send the token as a bearer token. A browser opens `/?token=...` once and gets a cookie, which authorises
    GET and HEAD requests only.

    Args:
        app: the application to guard.
        definitions: the tools, with their addresses.
        bound: the address that the server listens on; if it is not loopback, any IP address may be the Host.
        token: the bearer token.
        rate: requests per second, with bursts of up to one second's worth.
    """

    def __init__(
        self, app: ASGIApp, definitions: Iterable[ToolDefinition], bound: str, token: str, rate: float
    ) -> None:
        self._app = app
        places = [(urlsplit(address), tool.name) for tool in definitions for address in tool.endpoints]
        self._tools = {(place.netloc.lower(), place.path): name for place, name in places}
        self._hosts = frozenset(host for host, _ in self._tools)
        self._bound = bound
        self._token = token.encode()
        self._rate = self._left = rate
        self._then = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it to the application."""
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if (refusal := self._refusal(scope, headers, host)) is not None:
            await refusal(scope, receive, send)
            return
        tool = self._tools.get((host, scope["path"]))
        await self._app({**scope, "path": f"/tools/{tool}"} if tool else scope, receive, send)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes], host: str) -> Response | None:
        if not self._serves(host):
            return json_response(403, {"error": "this host is not served here"})
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() != f"http://{host}":
            return json_response(403, {"error": "requests from the pages of other sites are not served here"})
        if scope["path"] == "/health":
            return None
        cookie = f"agentft_{(scope.get('server') or ('', 0))[1]}"
        if not self._authorized(scope, headers, cookie):
            tokens = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
            if scope["path"] == "/" and tokens and self._is_token(tokens[0].encode()):
                response = RedirectResponse("/", status_code=303, headers={"Referrer-Policy": "no-referrer"})
                response.set_cookie(cookie, tokens[0], httponly=True, samesite="strict")
                return response
            return json_response(
                401, {"error": "missing or wrong bearer token"}, headers={"WWW-Authenticate": "Bearer"}
            )
        if not self._is_within_rate():
            return json_response(
                429, {"error": "too many requests a second; wait a moment"}, headers={"Retry-After": "1"}
            )
        return None

    def _serves(self, host: str) -> bool:
        """Whether a Host header is loopback (on any port), a tool's host, or the address that the server listens on."""
        if not _HOST.fullmatch(host):  # such as a Host with user information
            return False
        try:
            name = urlsplit(f"//{host}").hostname
            if host in self._hosts or name in _LOOPBACK or name == self._bound:
                return True
            # A foreign domain can be made to resolve to this machine (DNS rebinding); an IP address cannot.
            return self._bound not in _LOOPBACK and bool(ipaddress.ip_address(name or ""))
        except ValueError:
            return False

    def _authorized(self, scope: Scope, headers: dict[bytes, bytes], cookie: str) -> bool:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme == b"Bearer":
            return self._is_token(token)
        found = cookie_parser(headers.get(b"cookie", b"").decode("latin-1")).get(cookie, "")
        return scope["method"] in {"GET", "HEAD"} and self._is_token(found.encode())

    def _is_token(self, token: bytes) -> bool:
        return hmac.compare_digest(token, self._token)

    def _is_within_rate(self) -> bool:
        """Take one request from a token bucket that holds one second's worth."""
        now = time.monotonic()
        self._left = min(self._rate, self._left + (now - self._then) * self._rate)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
