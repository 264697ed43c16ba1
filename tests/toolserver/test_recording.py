"""A real service behind a world: only it is called, its responses are recorded without secrets, and replayed."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from agentft.errors import InputError, ToolError
from agentft.toolserver import ServerGone, Source, ToolServer, open_source
from agentft.toolserver.recording import Recorded, Recorder, Replayer
from agentft.toolserver.source import RealService
from agentft.toolset import Route, Toolset, load_toolset
from agentft.types import Exchange, Json, Span, ToolCall

WORLD = load_toolset("calculator")


class Service(ThreadingHTTPServer):
    """A real HTTP service that returns the number of the request, and keeps the raw requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.reply: tuple[int, dict[str, str], bytes] | None = None
        self.daemon_threads = True
        self.over = Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        service = self.server
        assert isinstance(service, Service)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        service.requests.append((self.command, self.path, dict(self.headers), body))
        counted = json.dumps({"count": len(service.requests), "access_token": "t0ps3cret"}).encode()
        status, headers, content = service.reply or (200, {"Content-Type": "application/json"}, counted)
        if status < 0:
            self._fail(status)
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Set-Cookie", "sid=abc")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _fail(self, how: int) -> None:
        """Close the connection without an answer (-1), or answer nothing (-2) or drip (-3) until the test is over."""
        self.close_connection = True
        if how == -3:
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        assert isinstance(self.server, Service)
        while how != -1 and not self.server.over.is_set():
            time.sleep(0.05)
            if how == -3:
                self.wfile.write(b"x")
                self.wfile.flush()

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


def ask(server: ToolServer, expression: str = "1", session: str = "s") -> Exchange:
    return server.client().call(ToolCall("c", "calculate", {"expression": expression}, Span(0, 0)), session)


def routed(route: Route) -> Toolset:
    """The calculator, with `convert_units` at a route of an API."""
    tools = {**WORLD.tools, "convert_units": replace(WORLD.tools["convert_units"], route=route)}
    return Toolset(WORLD.name, WORLD.base_url, tools, WORLD.new_state())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_responses_are_recorded_and_replayed(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    source = open_source([WORLD], real=service.address + "/v1/", record=path)
    with ToolServer([WORLD], source=source) as server:
        received = [ask(server, text).received for text in ("1", "1", "2")]
    assert [json.loads(text)["count"] for text in received] == [1, 2, 3]
    assert [request[:2] for request in service.requests] == [("POST", "/v1/tools/calculate")] * 3
    assert json.loads(service.requests[2][3]) == {"expression": "2"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = lines(path)[0]
    assert (first["tool"], first["arguments"], first["status"]) == ("calculate", {"expression": "1"}, 200)
    assert first["body"] == {"count": 1, "access_token": "[redacted]"}
    assert first["headers"]["set-cookie"] == "[redacted]"
    with ToolServer([WORLD], source=open_source([WORLD], replay=path)) as server:
        again = [json.loads(ask(server, text).received)["count"] for text in ("2", "1", "1", "1")]
        assert again == [3, 1, 2, 2]
        assert json.loads(ask(server, "1", "other").received)["count"] == 1
        missed = ask(server, "3")
        assert (missed.status, missed.is_error) == (404, True)
        assert "there is no recorded answer to calculate with these arguments" in missed.received
    with ToolServer([WORLD], source=open_source([WORLD], replay=path, miss="mock")) as server:
        assert json.loads(ask(server, "3 + 4").received)["result"] == 7
    assert len(service.requests) == 3


def test_credentials_come_from_the_environment_and_stay_out_of_the_file(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTFT_REAL_AUTHORIZATION", "Bearer 0123456789abcdef0123")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    path = tmp_path / "kept.jsonl"
    with ToolServer([WORLD], source=open_source([WORLD], real=service.address, record=path)) as server:
        ask(server)
        assert server.token not in str(service.requests)
    assert service.requests[0][2]["Authorization"] == "Bearer 0123456789abcdef0123"
    assert "0123456789abcdef" not in path.read_text()


def test_secrets_are_recorded_only_with_keep(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    with ToolServer([WORLD], source=open_source([WORLD], real=service.address, record=path, keep=True)) as server:
        ask(server)
    assert lines(path)[0]["body"]["access_token"] == "t0ps3cret"


def test_a_redirect_is_returned_and_not_followed(service: Service) -> None:
    service.reply = (307, {"Location": "http://127.0.0.1:9/"}, b"")
    with ToolServer([WORLD], source=open_source([WORLD], real=service.address)) as server:
        assert ask(server).status == 307
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        ((404, {"Content-Type": "application/problem+json"}, b'{"title": "no"}'), 404, '{"title": "no"}'),
        ((503, {"Content-Type": "text/html"}, b"<h1>Down</h1>"), 503, "<h1>Down</h1>"),
        ((200, {"Content-Type": "application/json"}, b'{"cut": '), 200, '{"cut": '),
        ((200, {}, b"plain"), 200, "plain"),
        ((200, {"Content-Type": "application/json"}, b'{"x": NaN}'), 200, '{"x": NaN}'),
        ((200, {"Content-Type": "application/json"}, b"[" * 100_000), 200, "[[["),
        ((200, {"Content-Type": "application/json"}, b"[" * 900 + b"]" * 900), 200, "[[["),
        ((200, {"Content-Type": "text/plain"}, b"x" * (2 << 20)), 502, "larger than 1048576 bytes"),
        ((-1, {}, b""), 502, "the service does not answer"),
        ((-2, {}, b""), 502, "no answer within 0.2 seconds"),
        ((-3, {}, b""), 502, "no answer within 0.2 seconds"),
    ],
)
def test_any_response_is_passed_on_and_recorded(
    service: Service, tmp_path: Path, reply: tuple[int, dict[str, str], bytes], status: int, body: str
) -> None:
    path = tmp_path / "kept.jsonl"
    service.reply = reply
    wait = 1 / 3 if reply[0] < 0 else None
    source = open_source([WORLD], real=service.address, record=path, client_seconds=wait)
    with ToolServer([WORLD], source=source) as server:
        exchange = ask(server)
    assert exchange.status == status
    assert body in exchange.received
    with ToolServer([WORLD], source=open_source([WORLD], replay=path)) as server:
        assert ask(server) == exchange


def test_refused_calls_are_recorded_and_replayed(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    wrong: list[dict[str, Json]] = [{}, {"expression": 5}, {"expression": "1", "x": float("nan")}]
    calls = [ToolCall("c", "calculate", arguments, Span(0, 0)) for arguments in wrong]
    with ToolServer([WORLD], source=open_source([WORLD], real=service.address, record=path)) as server:
        refused = [server.client().call(call, "s") for call in calls]
    assert [exchange.status for exchange in refused] == [400, 400, 400]
    assert service.requests == []
    assert len(lines(path)) == 2
    with ToolServer([WORLD], source=open_source([WORLD], replay=path)) as server:
        assert [server.client().call(call, "s") for call in calls] == refused


def test_a_service_that_does_not_respond_is_a_502(service: Service) -> None:
    address = service.address
    service.server_close()
    with ToolServer([WORLD], source=RealService(address, [WORLD])) as server:
        exchange = ask(server)
    assert exchange.status == 502
    assert "the service does not answer" in exchange.received


def test_wrong_arguments_are_never_sent(service: Service) -> None:
    with ToolServer([WORLD], source=RealService(service.address, [WORLD])) as server:
        refused = server.client().call(ToolCall("c", "calculate", {"expression": 5}, Span(0, 0)), "s")
    assert refused.status == 400
    assert service.requests == []


def convert(source: Source, **changes: Json) -> None:
    source("convert_units", {"value": 5, "from_unit": "km", "to_unit": "mi", **changes}, "s")


def test_arguments_are_sent_in_the_places_of_the_route(service: Service) -> None:
    arguments = WORLD.tools["convert_units"].check.names
    assert len(arguments) == 3
    value, source_unit, target = arguments
    places = {value: ("query", "v"), source_unit: ("path", "from"), target: ("header", "X-To")}
    real = RealService(service.address + "/api", [routed(Route("GET", "/units/{from}/x", places))])
    real("convert_units", {**WORLD.tools["convert_units"].example, value: 2.5}, "s")
    method, path, headers, body = service.requests[0]
    assert (method, body) == ("GET", b"")
    assert path.startswith("/api/units/")
    assert path.endswith("/x?v=2.5")
    assert headers["X-To"] == WORLD.tools["convert_units"].example[target]
    real.close()


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        *((text, False) for text in ("..", ".", "", "...", "../../admin", "a/..", "..\\admin", "..;v=1/admin", "..\0")),
        *((text, True) for text in ("a/b?c#d", "%2e%2e", "http://evil.example/", "a\r\nX: y", "..a", "a..b/c")),
    ],
)
def test_a_path_argument_cannot_leave_its_route(service: Service, text: str, sent: bool) -> None:
    name = "expression"
    tools = {"calculate": replace(WORLD.tools["calculate"], route=Route("GET", "/e/{e}/end", {name: ("path", "e")}))}
    real = RealService(service.address, [Toolset("calculator", WORLD.base_url, tools, {})])
    if sent:
        real("calculate", {name: text}, "s")
        _, path, headers, _ = service.requests[0]
        assert path.startswith("/e/")
        assert path.endswith("/end")
        assert path.count("/") == 3
        assert "?" not in path
        assert "X" not in headers
    else:
        with pytest.raises(ToolError, match="cannot stand in a path"):
            real("calculate", {name: text}, "s")
        assert service.requests == []
    real.close()


@pytest.mark.parametrize(
    "path", [":19302/x", "0/x", "@127.0.0.1:9/x", ".evil.test/x", "/../../x", "/../tenants/x", "?x"]
)
def test_the_path_of_a_route_cannot_choose_where_a_call_goes(service: Service, path: str) -> None:
    """Files cannot hold these paths; this is the check just before the request."""
    real = RealService(f"{service.address}/v1/tenant", [routed(Route("GET", path, {}))])
    with pytest.raises(ToolError, match=r"does not stay below|cannot be sent"):
        convert(real)
    assert service.requests == []
    real.close()


@pytest.mark.parametrize("header", ["Host", "Authorization", "Content-Length", "Transfer-Encoding"])
def test_a_header_argument_cannot_be_a_reserved_header_or_two_lines(service: Service, header: str) -> None:
    def real(name: str) -> RealService:
        route = Route("GET", "/e", {"expression": ("header", name)})
        tools = {"calculate": replace(WORLD.tools["calculate"], route=route)}
        return RealService(service.address, [Toolset("calculator", WORLD.base_url, tools, {})])

    real(header)("calculate", {"expression": "evil"}, "s")
    assert "evil" not in str(service.requests)
    for text in ("a\r\nHost: evil", "é中", "\x00"):
        with pytest.raises(ToolError, match="cannot be sent as it is"):
            real("X-E")("calculate", {"expression": text}, "s")


@pytest.mark.parametrize(
    "options",
    [
        {"record": Path("x")},
        {"real": "ftp://x"},
        {"real": "http://u:p@x"},
        {"real": "x"},
        {"real": "http://x:y"},
        {"real": "http://x/?a=1"},
        {"real": "http://x", "replay": Path("x")},
        {"replay": Path("nowhere.jsonl")},
        {"miss": "maybe"},
    ],
)
def test_invalid_or_conflicting_options_are_refused(options: Mapping[str, Any]) -> None:
    with pytest.raises(InputError):
        open_source([WORLD], **options)


def test_without_options_there_is_no_source() -> None:
    assert open_source([WORLD]) is None


def test_a_broken_recording_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    for text, message in [
        ("{", ":1: it is not a JSON object"),
        ('{"tool": "a", "arguments": {}, "status": 200}', ":1: `body` is missing"),
        ('{"tool": "a", "arguments": {}, "status": "x", "body": 1}', ":1: `status` is 'x'"),
        ('\n{"tool": "a", "arguments": {}, "status": 200, "body": 1, "boddy": 1}', ":2: there is no key 'boddy'"),
    ]:
        path.write_text(text)
        for use in (Replayer, Recorder):
            with pytest.raises(InputError, match=r"kept\.jsonl") as caught:
                use(path)
            assert message in str(caught.value)


def test_many_threads_append_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    for _ in range(2):
        recorder = Recorder(path)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(recorder.add, [Recorded("t", {"a": "x" * 5000}, 200, {})] * 20))
        recorder.close()
        recorder.close()
    assert len(lines(path)) == 40


def test_numbers_and_the_order_of_keys_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    recorder = Recorder(path)
    recorder.add(Recorded("t", {"a": 25.0, "b": {"x": 1, "y": 2}}, 200, "yes"))
    recorder.close()
    found = Replayer(path)("t", {"b": {"y": 2.0, "x": 1}, "a": 25}, "s")
    assert found is not None
    assert found.body == "yes"
    with pytest.raises(ToolError):
        Replayer(path)("t", {"a": 26, "b": {"x": 1, "y": 2}}, "s")


def test_a_call_with_a_secret_is_matched(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    recorder = Recorder(path)
    recorder.add(Recorded("login", {"user": "ada", "password": "hunter2"}, 200, {"ok": True}))
    recorder.close()
    assert "hunter2" not in path.read_text()
    assert Replayer(path)("login", {"user": "ada", "password": "other"}, "s") is not None


def test_a_dead_server_with_a_source_is_gone_too(service: Service) -> None:
    with ToolServer([WORLD], source=RealService(service.address, [WORLD])) as server:
        client = server.client()
    with pytest.raises((ServerGone, RuntimeError)):
        client.call(ToolCall("c", "calculate", {"expression": "1"}, Span(0, 0)), "s")
