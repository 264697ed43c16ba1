"""Every route over a real socket: its responses and its refusals."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentft.toolserver import Limits, ToolServer
from agentft.toolset import load_toolset
from agentft.types import Span, ToolCall
from tests.toolserver.conftest import Gated
from tests.waiting import PATIENCE, wait_until

TOOLS = [name for world in ("weather", "search", "calculator") for name in load_toolset(world).tools]

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
arguments = st.dictionaries(
    st.sampled_from(["city", "days", "unit", "condition", "query", "page", "label", "expression", "value", "name"])
    | st.sampled_from(["from_unit", "to_unit"])
    | st.text(max_size=5),
    json_values | st.sampled_from(["Paris", "celsius", "km", "p1", 1, 2.0, "rain"]),
    max_size=4,
)
fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def post(http: httpx.Client, path: str, body: object, **headers: str) -> tuple[int, Any]:
    answer = http.post(path, content=json.dumps(body).encode(), headers=headers)
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


def test_a_tool_is_called(http: httpx.Client) -> None:
    status, answer = post(http, "/tools/current_weather", {"city": "巴黎"})
    assert status == 200
    assert list(answer) == ["city", "condition", "temperature", "unit", "humidity"]
    assert answer["city"] == "巴黎"


def test_chinese_is_returned_unescaped(http: httpx.Client) -> None:
    answer = http.post("/tools/web_search", content='{"query": "绿茶"}'.encode())
    assert "如何泡绿茶" in answer.text


def test_a_tool_is_served_at_its_own_address(http: httpx.Client) -> None:
    direct = post(http, "/tools/air_quality", {"city": "Rome"})
    assert post(http, "/air_quality", {"city": "Rome"}, Host="weather.test") == direct
    assert post(http, "/air_quality", {"city": "Rome"}, Host="WEATHER.test") == direct
    assert post(http, "/v1/crash", {}, Host="broken.test")[0] == 500


@pytest.mark.parametrize(
    ("path", "host"),
    [("/air_quality", "search.test"), ("/air_quality", "127.0.0.1"), ("/crash", "broken.test"), ("/v1", "broken.test")],
)
def test_an_address_must_match_in_host_and_path(http: httpx.Client, path: str, host: str) -> None:
    status, answer = post(http, path, {"city": "Rome"}, Host=host)
    assert (status, answer) == (404, {"error": f"nothing is served at {path}; tools are at /tools/<name>"})


def test_the_definitions_are_listed(http: httpx.Client) -> None:
    listed = {tool["name"]: tool for tool in http.get("/tools").json()}
    assert set(TOOLS) <= set(listed)
    definition = load_toolset("weather").definitions[1]
    assert listed["weather_forecast"] == {
        "name": "weather_forecast",
        "description": definition.description,
        "parameters": definition.parameters,
        "endpoints": ["http://weather.test/weather_forecast"],
    }


def test_health_needs_no_token(server: ToolServer) -> None:
    answer = httpx.get(f"{server.address}/health", trust_env=False, timeout=60)
    assert answer.json() == {"status": "ok", "worlds": ["weather", "search", "calculator", "broken", "fixture_world"]}


@pytest.mark.parametrize("path", ["/tools", "/state", "/tools/calculate", "/nothing"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}])
def test_a_missing_or_wrong_token_is_a_401(server: ToolServer, path: str, headers: dict[str, str]) -> None:
    for answer in (
        httpx.get(f"{server.address}{path}", headers=headers, trust_env=False, timeout=60),
        httpx.post(f"{server.address}{path}", headers=headers, content=b"{}", trust_env=False, timeout=60),
    ):
        assert (answer.status_code, answer.json()) == (401, {"error": "missing or wrong bearer token"})
        assert answer.headers["www-authenticate"] == "Bearer"


def test_each_server_has_its_own_token(server: ToolServer) -> None:
    with ToolServer([load_toolset("search")]) as other:
        assert other.token != server.token
        assert len(other.token) >= 32


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "weather.test.evil.example", "10.0.0.1", "[bad"])
def test_another_host_is_refused_even_with_the_token(http: httpx.Client, host: str) -> None:
    status, answer = post(http, "/tools/calculate", {"expression": "1"}, Host=host)
    assert (status, answer) == (403, {"error": "this host is not served here"})


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1", "[::1]:80"])
def test_loopback_names_are_served(http: httpx.Client, host: str) -> None:
    assert post(http, "/tools/calculate", {"expression": "1"}, Host=host)[0] == 200


def test_a_request_without_a_host_is_refused(server: ToolServer) -> None:
    parts = urlsplit(server.address)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as raw:
        raw.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert b" 403 " in raw.recv(4096)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body cannot be read: not JSON (Expecting value"),
        (b"{", "the body cannot be read: not JSON (Expecting property name"),
        (b"city=Paris", "the body cannot be read: not JSON (Expecting value"),
        (b'{"expression": "\xff"}', "the body cannot be read: not UTF-8 (byte 0xff at position 16)"),
        (b'\xef\xbb\xbf{"expression": "1"}', "the body cannot be read: not JSON (Expecting value at character 0)"),
        (b'{"value": NaN}', "the body cannot be read: NaN is not JSON"),
        (b'{"value": [1e999]}', "the body cannot be read: the number 1e999 is too large"),
        (b'{"value": -Infinity}', "the body cannot be read: -Infinity is not JSON"),
        (b'{"value": ' + b"9" * 5000 + b"}", "the body cannot be read: Exceeds the limit"),
        (b'{"expression": "\\ud800"}', "the body cannot be read: a lone surrogate"),
        (b"[" * 100_000, "the body cannot be read: nested more than 64 levels deep"),
        (b"[1]", "the body must be a JSON object of arguments"),
        (b'"x"', "the body must be a JSON object of arguments"),
        (b"null", "the body must be a JSON object of arguments"),
    ],
)
def test_a_body_that_is_not_a_json_object_is_a_400(http: httpx.Client, body: bytes, message: str) -> None:
    answer = http.post("/tools/calculate", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


@pytest.mark.parametrize("size", [(1 << 20) + 1, 3 << 20])
def test_a_body_over_a_mebibyte_is_a_413_and_the_connection_stays_open(http: httpx.Client, size: int) -> None:
    answer = http.post("/tools/calculate", content=b'{"expression": "1"}'.ljust(size))
    assert (answer.status_code, answer.json()) == (413, {"error": "the body is larger than 1048576 bytes"})
    assert post(http, "/tools/calculate", {"expression": "1"})[0] == 200


def test_a_body_of_a_mebibyte_is_read(http: httpx.Client) -> None:
    assert http.post("/tools/calculate", content=b'{"expression": "1"}'.ljust(1 << 20)).status_code == 200


def test_an_endless_body_is_cut_off(http: httpx.Client) -> None:
    try:
        status = http.post("/tools/calculate", content=b" " * (24 << 20)).status_code
    except httpx.TransportError:
        status = 413
    assert status == 413
    assert http.get("/health").status_code == 200


def test_a_refusal_has_a_message_and_names_the_argument(http: httpx.Client) -> None:
    assert post(http, "/tools/weather_forecast", {"city": "Rome", "days": 9}) == (
        422,
        {"error": "argument 'days' must be from 1 to 7, not 9", "argument": "days"},
    )
    assert post(http, "/tools/calculate", {"expression": "1/0"}) == (422, {"error": "division by zero"})
    assert post(http, "/tools/current_weather", {"city": "Peking"}) == (
        404,
        {"error": "unknown city 'Peking'; did you mean 'Beijing'?"},
    )


def test_an_unknown_tool_names_a_near_one(http: httpx.Client) -> None:
    error = "there is no tool 'current_wether'; did you mean 'current_weather'?"
    assert post(http, "/tools/current_wether", {}) == (404, {"error": error})


@pytest.mark.parametrize(("method", "path"), [("GET", "/tools/calculate"), ("PUT", "/tools"), ("DELETE", "/state")])
def test_a_wrong_method_is_a_405(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 405
    assert answer.json() == {"error": f"{path} does not take {method}; a tool is called with POST"}


def test_a_handlers_bug_is_a_500_without_a_traceback(server: ToolServer, http: httpx.Client) -> None:
    assert post(http, "/tools/crash", {}) == (500, {"error": "internal error in tool crash"})
    assert repr(server.crashes[-1].__cause__) == "KeyError('a secret')"


def test_a_slow_tool_delays_no_other_request(gated: Gated) -> None:
    with ToolServer([gated.world], limits=Limits(seconds=PATIENCE)) as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.client(PATIENCE).call, ToolCall("c", "wait", {}, Span(0, 0)), "s")
        wait_until(lambda: gated.inside)
        assert httpx.get(f"{server.address}/health", trust_env=False, timeout=60).status_code == 200
        assert not slow.done()
        gated.gate.set()
        assert slow.result().status == 200


def test_sessions_have_their_own_state(http: httpx.Client) -> None:
    body = {"name": "rent", "value": 950}
    assert post(http, "/tools/store_number", body, **{"X-Session": "one"})[0] == 200
    assert post(http, "/tools/recall_number", {"name": "rent"}, **{"X-Session": "one"})[0] == 200
    assert post(http, "/tools/recall_number", {"name": "rent"}, **{"X-Session": "two"})[0] == 404
    digests = [http.get("/state", headers={"X-Session": name}).json()["digest"] for name in ("one", "two", "three")]
    assert digests[0] != digests[1] == digests[2]


def test_the_length_of_a_session_name_is_limited(http: httpx.Client) -> None:
    error = {"error": "X-Session is longer than 256 characters"}
    headers = {"X-Session": "x" * 257}
    assert post(http, "/tools/calculate", {"expression": "1"}, **headers) == (400, error)
    answer = http.get("/state", headers=headers)
    assert (answer.status_code, answer.json()) == (400, error)


@fuzz
@given(tool=st.sampled_from(TOOLS), body=arguments)
def test_any_arguments_are_accepted_or_refused(http: httpx.Client, tool: str, body: dict[str, Any]) -> None:
    status, answer = post(http, f"/tools/{tool}", body)
    assert status in {200, 400, 404, 409, 422}
    assert isinstance(answer, dict)
    assert ("error" in answer) == (status != 200)


@fuzz
@given(tool=st.sampled_from(TOOLS), body=st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(http: httpx.Client, tool: str, body: bytes) -> None:
    assert http.post(f"/tools/{tool}", content=body).status_code in {200, 400, 404, 409, 422}


@fuzz
@given(path=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
def test_any_path_is_served_or_refused(http: httpx.Client, path: str) -> None:
    assert http.post(f"/{quote(path)}", content=b"{}").status_code in {200, 400, 404, 405}
