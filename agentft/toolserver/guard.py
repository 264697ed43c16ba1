"""What every request passes before it reaches a tool: the Host, the Origin, the token, the rate, a model's address."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from agentft.toolserver.limits import Bucket
from agentft.types import ToolDefinition

__all__ = ["AddressBook", "Guard"]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class AddressBook:
    """Which tool answers at which host and path: every endpoint of every definition.

    `bound` is the address that the server listens on; bound to the network, any IP address may be its Host.
    """

    def __init__(self, definitions: Iterable[ToolDefinition], bound: str = "127.0.0.1") -> None:
        self._tools = {
            _place(endpoint): definition.name for definition in definitions for endpoint in definition.endpoints
        }
        self._hosts = frozenset(host for host, _ in self._tools)
        self._bound = bound

    def knows(self, host: str) -> bool:
        """Whether `host` (a Host header) is loopback, on any port, that of an endpoint, or where the server stands."""
        name = _hostname(host)
        if host.lower() in self._hosts or name in _LOOPBACK or name == self._bound:
            return True
        # Another site's name can be made to point here (DNS rebinding); an IP address is nobody's name.
        return self._bound not in _LOOPBACK and _is_ip(name or "")

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


def _is_ip(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


class Guard:
    """ASGI middleware. A tool's own address (Host and path) becomes `/tools/<name>`; `/health` needs no token.

    A program sends the token as a bearer token. A browser opens `/?token=...` once and gets a cookie, which opens
    what is read with GET and nothing else.
    """

    def __init__(self, app: ASGIApp, book: AddressBook, token: str, bucket: Bucket) -> None:
        self._app = app
        self._book = book
        self._token = token.encode()
        self._bucket = bucket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that must not pass, or hand it on."""
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        answer = self._answer(scope, headers, host)
        if answer is not None:
            await answer(scope, receive, send)
            return
        tool = self._book.tool(host, scope["path"])
        await self._app({**scope, "path": f"/tools/{tool}"} if tool else scope, receive, send)

    def _answer(self, scope: Scope, headers: dict[bytes, bytes], host: str) -> Response | None:
        if not self._book.knows(host):
            return _refusal(403, "this host is not served here")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() not in {f"http://{host}".lower()}:
            return _refusal(403, "requests from the pages of other sites are not served here")
        if scope["path"] == "/health":
            return None
        cookie = f"agentft_{(scope.get('server') or ('', 0))[1]}"
        if not self._authorized(scope, headers, cookie):
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
            if scope["path"] == "/" and given and self._is_token(given[0].encode()):
                return _welcome(cookie, given[0])
            return _refusal(401, "missing or wrong bearer token", {"WWW-Authenticate": "Bearer"})
        if not self._bucket.take():
            return _refusal(429, "too many requests a second; wait a moment", {"Retry-After": "1"})
        return None

    def _authorized(self, scope: Scope, headers: dict[bytes, bytes], cookie: str) -> bool:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme == b"Bearer":
            return self._is_token(given)
        if scope["method"] not in {"GET", "HEAD"} or b"cookie" not in headers:
            return False
        try:
            found = SimpleCookie(headers[b"cookie"].decode("latin-1")).get(cookie)
        except CookieError:
            return False
        return found is not None and self._is_token(found.value.encode())

    def _is_token(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._token)


def _refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def _welcome(cookie: str, token: str) -> Response:
    answer = RedirectResponse("/", status_code=303, headers={"Referrer-Policy": "no-referrer"})
    answer.set_cookie(cookie, token, httponly=True, samesite="strict")
    return answer
