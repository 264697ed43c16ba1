"""A model's call reaches registered tools at registered addresses, and nothing else."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread

import pytest

from agentft.errors import AgentftError, InputError, MissingError
from agentft.toolserver import Limits, ServerGone, ToolClient, ToolServer
from agentft.toolset import load_toolset
from agentft.types import Exchange, Json, ParseFailure, Span, ToolCall, ToolDefinition
from tests.toolserver.conftest import Gated
from tests.waiting import PATIENCE

BASE = "http://weather.test"


def call(
    name: str, arguments: Mapping[str, Json] | None = None, endpoint: str | None = None, error: str | None = None
) -> ToolCall:
    failure = ParseFailure("content", error) if error else None
    return ToolCall("c1", name, arguments or {}, Span(0, 0), parse_error=failure, endpoint=endpoint)


def refused(exchange: Exchange) -> dict[str, Json]:
    assert (exchange.status, exchange.sent, exchange.is_error) == (None, None, True)
    answer = json.loads(exchange.received)
    assert isinstance(answer, dict)
    return answer


def test_a_call_without_an_endpoint_goes_to_the_tools_path(client: ToolClient) -> None:
    asked = call("calculate", {"expression": "6 * 7"})
    exchange = client.call(asked, "s")
    assert exchange == Exchange(
        call=asked,
        method="POST",
        url="/tools/calculate",
        sent={"expression": "6 * 7"},
        status=200,
        received='{"expression": "6 * 7", "result": 42}',
        is_error=False,
    )


def test_a_registered_endpoint_is_called_and_recorded_as_the_model_wrote_it(client: ToolClient) -> None:
    asked = call("current_weather", {"city": "北京"}, f"{BASE}/current_weather")
    exchange = client.call(asked, "s")
    assert (exchange.url, exchange.status) == (f"{BASE}/current_weather", 200)
    assert exchange.received == client.call(call("current_weather", {"city": "北京"}), "s").received
    assert "北京" in exchange.received


def test_a_base_url_with_a_path_is_reached(client: ToolClient) -> None:
    assert client.call(call("crash", endpoint="http://broken.test/v1/crash"), "s").status == 500


@pytest.mark.parametrize(
    "endpoint",
    [
        f"{BASE}/air_quality",
        f"{BASE}/current_weather/",
        f"{BASE}/current_weather?x=1",
        f" {BASE}/current_weather",
        "https://weather.test/current_weather",
        "http://weather.test:80/current_weather",
        "http://user@weather.test/current_weather",
        "http://WEATHER.test/current_weather",
        "http://evil.example/current_weather",
        "http://127.0.0.1/tools/current_weather",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "/tools/current_weather",
        "http://[",
        "",
    ],
)
def test_any_other_address_is_never_sent(client: ToolClient, endpoint: str) -> None:
    answer = refused(client.call(call("current_weather", {"city": "Rome"}, endpoint), "s"))
    assert answer == {"error": f"{endpoint} is not the address of current_weather", "url": f"{BASE}/current_weather"}


def test_a_tool_may_have_several_endpoints(server: ToolServer) -> None:
    endpoints = (f"{BASE}/current_weather", "http://search.test/web_search")
    definition = ToolDefinition("current_weather", "", {}, endpoints)
    with ToolClient(server.address, server.token, [definition]) as client:
        assert client.call(call("current_weather", {"city": "Rome"}, endpoints[0]), "s").status == 200
        answer = refused(client.call(call("current_weather", {}, "http://other.test/"), "s"))
        assert answer["url"] == list(endpoints)


def test_an_unknown_tool_is_never_sent(client: ToolClient) -> None:
    answer = refused(client.call(call("get_weather", {"city": "Rome"}), "s"))
    assert answer["error"] == "there is no tool get_weather"
    tools = answer["tools"]
    assert isinstance(tools, list)
    assert tools[:2] == ["current_weather", "weather_forecast"]


@pytest.mark.parametrize("name", ["../state", "calculate/../../health", "", "\ud800", "x" * 10_000])
def test_a_tools_name_is_not_used_as_a_path(client: ToolClient, name: str) -> None:
    answer = refused(client.call(call(name), "s"))
    assert str(answer["error"]).startswith("there is no tool ")
    assert len(str(answer["error"])) < 80


def test_an_unreadable_call_is_never_sent(client: ToolClient) -> None:
    answer = refused(client.call(call("calculate", error="a bracket is missing"), "s"))
    assert answer == {"error": "the call could not be read: a bracket is missing"}


def test_a_refused_call_is_an_error_with_its_message(client: ToolClient) -> None:
    exchange = client.call(call("current_weather", {"town": "Rome"}), "s")
    assert (exchange.status, exchange.is_error) == (400, True)
    assert json.loads(exchange.received) == {"error": "missing argument 'city' (string)", "argument": "city"}


def test_any_arguments_of_a_model_get_a_response(client: ToolClient) -> None:
    deep: Json = 1
    for _ in range(100_000):
        deep = [deep]
    assert client.call(call("calculate", {"expression": "\ud800"}), "s").status == 400
    assert client.call(call("store_number", {"name": "x", "value": float("nan")}), "s").status == 400
    assert client.call(call("calculate", {"expression": "x" * (2 << 20)}), "s").status == 413
    assert refused(client.call(call("calculate", {"expression": deep}), "s"))["error"]


def test_the_digest_is_that_of_the_session(client: ToolClient) -> None:
    empty = client.state_digest("first")
    client.call(call("calculate", {"expression": "1"}), "first")
    assert client.state_digest("first") == empty
    client.call(call("store_number", {"name": "a", "value": 25}), "first")
    client.call(call("store_number", {"name": "a", "value": 25.0}), "second")
    assert client.state_digest("first") == client.state_digest("second") != empty


def test_a_session_may_have_any_name(client: ToolClient) -> None:
    client.call(call("sign_book", {"name": "Ada"}), "weather/案例 1\r\nX: y")
    assert client.state_digest("weather/案例 1\r\nX: y") != client.state_digest("weather/案例 2")


def test_proxies_of_the_environment_are_ignored(server: ToolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with server.client() as client:
        assert client.call(call("calculate", {"expression": "1"}), "s").status == 200


def test_another_address_than_loopback_is_refused() -> None:
    for address in ("http://10.0.0.1:80", "http://localhost.evil.example", "http://127.0.0.1.evil.example:1"):
        with pytest.raises(InputError, match="is not on loopback"):
            ToolClient(address, "t", [])


@pytest.fixture
def redirecting() -> Iterator[str]:
    """A server that sends every request elsewhere, to an address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n"
                    b"Connection: close\r\n\r\n"
                )

        thread = Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_redirect_is_not_followed(redirecting: str) -> None:
    with ToolClient(redirecting, "t", load_toolset("calculator").definitions) as client:
        assert client.call(call("calculate", {"expression": "1"}), "s").status == 307


def test_a_server_that_is_gone_raises_server_gone(guest_world: str) -> None:
    with ToolServer([load_toolset(guest_world)]) as server:
        address, token = server.address, server.token
    with ToolClient(address, token, load_toolset(guest_world).definitions) as client:
        with pytest.raises(ServerGone, match="does not respond"):
            client.call(call("sign_book", {"name": "Ada"}), "s")
        with pytest.raises(ServerGone):
            client.state_digest("s")
    assert issubclass(ServerGone, MissingError | AgentftError)


def test_a_tool_that_hangs_is_a_timeout_as_long_as_the_server_responds(gated: Gated) -> None:
    with ToolServer([gated.world], limits=Limits(seconds=PATIENCE)) as server, server.client(timeout=0.1) as client:
        exchange = client.call(call("wait"), "hang")
        gated.gate.set()
    assert (exchange.status, exchange.sent, exchange.is_error) == (None, {}, True)
    assert json.loads(exchange.received) == {"error": "no answer within 0.1 seconds"}


def test_a_server_that_hangs_is_gone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentft.toolserver.client._HEALTH_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            ToolClient(address, "t", load_toolset("calculator").definitions, timeout=0.1) as client,
            pytest.raises(ServerGone, match="ReadTimeout"),
        ):
            client.call(call("calculate", {"expression": "1"}), "s")


def test_a_wrong_token_gets_no_digest(server: ToolServer) -> None:
    with ToolClient(server.address, "wrong", []) as client, pytest.raises(ServerGone, match="returned no state: 401"):
        client.state_digest("s")


@pytest.mark.parametrize("text", ["<html>", "[]", "{}"])
def test_a_response_without_a_digest_is_no_state(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(ToolClient, "_send", lambda *_: (200, text, False))
    with ToolClient(server.address, "t", []) as client, pytest.raises(ServerGone, match="returned no state: "):
        client.state_digest("s")


def test_connections_are_persistent(client: ToolClient) -> None:
    def seconds() -> float:
        started = time.perf_counter()
        client.call(call("calculate", {"expression": "1"}), "s")
        return time.perf_counter() - started

    for _ in range(20):
        seconds()
    # Without TCP_NODELAY on the server's side nearly every call would now take 40 ms.
    assert sum(seconds() < 0.03 for _ in range(100)) > 20


def test_the_text_a_model_sees_is_the_same_on_any_port(guest_world: str, tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        with ToolServer([load_toolset("weather", seed=4)]) as server:
            exchange = server.client().call(call("air_quality", {"city": "Rome"}, f"{BASE}/air_quality"), "s")
            seen.append((exchange.url, exchange.received, server.client().state_digest("s")))
    assert seen[0] == seen[1]
