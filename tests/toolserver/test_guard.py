"""The guard without sockets: which requests pass, which are refused and how, and the rate limit."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from agentft.toolserver.guard import Guard
from agentft.types import ToolDefinition

TOKEN = "a-long-token"
ANY = "0.0.0.0"  # noqa: S104
DEFINITIONS = [ToolDefinition("forecast", "", {}, ("http://Weather.test/v1/forecast", "http://w.test:81/f"))]


class Passed:
    """An application that keeps the scopes that reach it."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.scopes.append(scope)


class Client:
    """Sends requests through a guard and returns the status, or None for a request that passed."""

    def __init__(self, bound: str = "127.0.0.1", rate: float = 1000) -> None:
        self.app = Passed()
        self.guard = Guard(self.app, DEFINITIONS, bound, TOKEN, rate)
        self.headers: dict[str, str] = {}
        self.body = b""

    def __call__(self, path: str = "/tools", method: str = "GET", query: str = "", **headers: str) -> int | None:
        sent = {"host": "localhost", "authorization": f"Bearer {TOKEN}", **headers}
        scope: dict[str, Any] = {"type": "http", "path": path, "method": method, "query_string": query.encode()}
        scope["headers"] = [(name.encode(), value.encode()) for name, value in sent.items() if value != "none"]
        scope["server"] = ("127.0.0.1", 4711)
        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

        async def receive() -> Message:
            return {"type": "http.request", "body": b""}

        asyncio.run(self.guard(scope, receive, send))
        if not messages:
            return None
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body = messages[1]["body"]
        return int(messages[0]["status"])

    def error(self) -> str:
        return str(json.loads(self.body)["error"])


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:80", "weather.TEST", "w.test:81"])
def test_loopback_and_the_hosts_of_tools_are_served(host: str) -> None:
    assert Client()(host=host) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "w.test", "w.test:82", "10.1.2.3", "0.0.0.1", "", "none", "[", "a:b:c"]
)
def test_other_hosts_are_refused(host: str) -> None:
    client = Client()
    assert client(host=host) == 403
    assert client.error() == "this host is not served here"
    assert client.app.scopes == []


@pytest.mark.parametrize(
    ("bound", "host", "status"),
    [
        (ANY, "10.1.2.3:80", None),
        (ANY, "[fe80::1]", None),
        (ANY, "evil.example", 403),
        (ANY, "", 403),
        ("box.lan", "box.lan:80", None),
        ("box.lan", "other.lan", 403),
        ("::1", "10.1.2.3", 403),
        ("localhost", "10.1.2.3", 403),
    ],
)
def test_a_server_on_the_network_accepts_any_ip_address_as_host(bound: str, host: str, status: int | None) -> None:
    assert Client(bound)(host=host) == status


@pytest.mark.parametrize("origin", ["http://localhost", "HTTP://LOCALHOST"])
def test_the_servers_own_origin_passes(origin: str) -> None:
    assert Client()(origin=origin) is None


@pytest.mark.parametrize(
    "origin",
    ["https://localhost", "http://localhost:1", "http://zzz.example", "http://a.b", "null", ""],
)
def test_another_origin_is_refused_at_every_path(origin: str) -> None:
    client = Client()
    for path in ("/tools", "/health", "/"):
        assert client(path, origin=origin) == 403
        assert client.error() == "requests from the pages of other sites are not served here"


def test_the_address_of_a_tool_becomes_its_path() -> None:
    client = Client()
    assert client("/v1/forecast", "POST", "a=1", host="weather.test") is None
    assert client("/f", "POST", host="w.test:81") is None
    assert client("/v1/forecast", "POST") is None
    assert [scope["path"] for scope in client.app.scopes] == ["/tools/forecast", "/tools/forecast", "/v1/forecast"]
    first = client.app.scopes[0]
    assert (first["method"], first["query_string"]) == ("POST", b"a=1")


@pytest.mark.parametrize(
    "authorization",
    ["none", "", "Bearer", "Bearer ", "Bearer wrong", f"bearer {TOKEN}", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"],
)
def test_only_health_needs_no_token(authorization: str) -> None:
    client = Client()
    for path in ("/tools", "/", "/mcp", "/health/"):
        assert client(path, authorization=authorization) == 401
        assert client.error() == "missing or wrong bearer token"
        assert client.headers["www-authenticate"] == "Bearer"
    assert client("/health", authorization=authorization) is None


def test_a_browser_gets_a_read_only_cookie_for_its_token() -> None:
    client = Client()
    for path, query in (("/tools", f"token={TOKEN}"), ("/", "token=wrong"), ("/", "tokens=1"), ("/", "")):
        assert client(path, query=query, authorization="none") == 401
    assert client("/", query=f"a=1&token={TOKEN}", authorization="none") == 303
    assert (client.headers["location"], client.headers["referrer-policy"]) == ("/", "no-referrer")
    cookie = client.headers["set-cookie"].lower()
    assert cookie.startswith(f"agentft_4711={TOKEN};")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    for method, status in (("GET", None), ("HEAD", None), ("POST", 401), ("DELETE", 401)):
        assert client("/state", method, authorization="none", cookie=f"agentft_4711={TOKEN}") == status
    assert client("/state", authorization="none", cookie=f"agentft_4712={TOKEN}") == 401
    assert client("/state", authorization="none", cookie="agentft_4711=wrong") == 401
    assert client("/state", authorization="Bearer wrong", cookie=f"agentft_4711={TOKEN}") == 401


def test_the_rate_limit_allows_a_burst_of_one_second_and_refills(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("agentft.toolserver.guard.time.monotonic", lambda: now)
    client = Client(rate=4)
    assert [client() for _ in range(5)] == [None, None, None, None, 429]
    assert client.error() == "too many requests a second; wait a moment"
    assert client.headers["retry-after"] == "1"
    assert client("/health") is None
    now += 0.125  # half a request
    assert client() == 429
    now += 0.125
    assert [client(), client()] == [None, 429]
    now += 60  # a long pause still fills one second's worth only
    assert [client() for _ in range(5)] == [None, None, None, None, 429]
    assert client(authorization="none") == 401  # a refused token costs nothing
    now += 0.25
    assert client(authorization="none") == 401
    assert client() is None


def test_only_http_is_handled() -> None:
    client = Client()

    async def never(*_: object) -> Any:
        raise AssertionError

    asyncio.run(client.guard({"type": "websocket"}, never, never))
    assert client.app.scopes == []


@pytest.mark.parametrize("host", ["user@localhost", "evil.example@127.0.0.1", "a:b@[::1]:80", "localhost/x", "[::1]x"])
def test_a_host_with_more_than_a_name_and_a_port_is_refused(host: str) -> None:
    assert Client()(host=host) == 403
