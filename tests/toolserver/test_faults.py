"""Faults on real sockets: the bytes on the wire, the errors of the client, and the determinism of the schedule."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentft.errors import InputError
from agentft.toolserver import Schedule, ServerGone, ToolClient, ToolServer, read_faults
from agentft.toolserver.faults import FAULT_KINDS
from agentft.toolset import Toolset, load_toolset, load_toolsets
from agentft.types import Exchange, Json, Span, ToolCall
from tests.waiting import wait_until

WORLDS = load_toolsets(["calculator", "weather"], seed=5)
CALCULATE: dict[str, Json] = {"expression": "6 * 7"}
TRUE = '{"expression": "6 * 7", "result": 42}'


def write(folder: Path, *rules: str, head: str = "client_seconds = 2") -> str:
    path = folder / "faults.toml"
    path.write_text(head + "\n" + "".join(f"[[fault]]\n{rule}\n" for rule in rules))
    return str(path)


def call(client: ToolClient, tool: str = "calculate", /, session: str = "s", **arguments: Json) -> Exchange:
    return client.call(ToolCall("c", tool, arguments or CALCULATE, Span(0, 0)), session)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ToolServer]]:
    running: list[ToolServer] = []

    def start(*rules: str, worlds: tuple[Toolset, ...] = WORLDS) -> ToolServer:
        server = ToolServer(worlds, faults=read_faults(write(tmp_path, *rules), worlds))
        running.append(server.__enter__())
        return server

    yield start
    for server in running:
        server.close()


def raw(server: ToolServer, seconds: float = 60, body: bytes = b'{"expression": "6 * 7"}') -> tuple[bytes, bool]:
    """The bytes of one response on its socket, and whether the connection was reset."""
    host, port = server.address.removeprefix("http://").split(":")
    head = f"POST /tools/calculate HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {server.token}\r\n"
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        got = bytearray()
        try:
            while piece := connection.recv(65536):
                got += piece
        except ConnectionResetError:
            return bytes(got), True
    return bytes(got), False


STATUSES = [name for name, kind in FAULT_KINDS.items() if (kind.status or 0) >= 400]


@pytest.mark.parametrize("kind", STATUSES)
def test_an_error_has_its_status_and_a_message(serve: Callable[..., ToolServer], kind: str) -> None:
    client = serve(f'kind = "{kind}"\ncalls = [1]').client()
    first, second = call(client), call(client)
    assert (first.status, first.is_error) == (FAULT_KINDS[kind].status, True)
    assert kind == "html" or json.loads(first.received)["error"]
    assert (second.status, second.received) == (200, TRUE)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_no_response_reveals_that_it_is_a_fault(serve: Callable[..., ToolServer], kind: str) -> None:
    seconds = "seconds = 2.5" if kind == "timeout" else ""
    answer, _ = raw(serve(f'kind = "{kind}"\ncalls = [1, 2]\n{seconds}'))
    assert answer.startswith(b"HTTP/1.1 ")
    for word in (b"fault", b"inject", b"simulat", b"mock", b"agentft", b"on purpose"):
        assert word not in answer.lower()


def test_a_429_says_when_to_try_again(serve: Callable[..., ToolServer]) -> None:
    answer, _ = raw(serve('kind = "429"\ncalls = [1]\nseconds = 7'))
    assert b"HTTP/1.1 429 " in answer
    assert b"retry-after: 7\r\n" in answer.lower()
    assert b"try again in 7 seconds" in answer


@pytest.mark.parametrize("after", [False, True])
def test_a_reset_happens_in_the_middle_of_the_body(serve: Callable[..., ToolServer], after: bool) -> None:
    server = serve(f'kind = "reset"\ncalls = [1, 2]\nafter = {str(after).lower()}')
    answer, reset = raw(server)
    head, _, body = answer.partition(b"\r\n\r\n")
    promised = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert reset
    assert 0 < len(body) < promised
    exchange = call(server.client())
    assert (exchange.status, exchange.is_error) == (None, True)
    assert json.loads(exchange.received) == {"error": "the connection was closed before the whole answer came"}
    assert exchange.sent == CALCULATE


def test_a_truncated_body_really_ends_early(serve: Callable[..., ToolServer]) -> None:
    server = serve('kind = "truncated"\ncalls = [1, 2]')
    answer, reset = raw(server)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert not reset
    assert f"content-length: {len(TRUE)}".encode() in head
    assert body == TRUE.encode()[: len(TRUE) // 2]
    exchange = call(server.client())
    assert exchange.status is None
    assert "the connection was closed before the whole answer came" in exchange.received
    assert call(server.client(), session="t").received == exchange.received


def test_a_timeout_really_waits_longer_than_the_client(serve: Callable[..., ToolServer]) -> None:
    server = serve('kind = "timeout"\ncalls = [1]\nseconds = 600')
    with server.client(timeout=0.5) as client:
        started = time.monotonic()
        exchange = call(client)
        assert 0.5 <= time.monotonic() - started < 300
        assert exchange.status is None
        assert json.loads(exchange.received) == {"error": "no answer within 0.5 seconds"}
    assert call(server.client()).received == TRUE


@pytest.mark.slow
def test_a_client_that_outwaits_a_timeout_gets_a_response(serve: Callable[..., ToolServer]) -> None:
    """`test_wire.py` tests the delay to the instant, on a clock of its own."""
    before = serve('kind = "timeout"\ncalls = [1]\nseconds = 2.1')
    started = time.monotonic()
    assert b"HTTP/1.1 504 " in raw(before, seconds=60)[0]
    assert time.monotonic() - started >= 2.1
    after = serve('kind = "timeout"\ncalls = [1]\nseconds = 2.1\nafter = true')
    assert TRUE.encode() in raw(after, seconds=60)[0]


def test_a_drip_is_slow_but_complete_unless_the_client_gives_up(serve: Callable[..., ToolServer]) -> None:
    server = serve('kind = "drip"\ncalls = [1]\nseconds = 1')
    slower = serve('kind = "drip"\ncalls = [1]\nseconds = 600')
    with server.client(timeout=60) as patient, slower.client(timeout=0.3) as hasty:
        started = time.monotonic()
        assert call(patient).received == TRUE
        assert time.monotonic() - started > 0.8
        started = time.monotonic()
        exchange = call(hasty, session="other")
        assert (exchange.status, json.loads(exchange.received)) == (None, {"error": "no answer within 0.3 seconds"})
        assert time.monotonic() - started < 300


def test_odd_answers_with_a_200(serve: Callable[..., ToolServer]) -> None:
    kinds = ["empty", "wrong-type", "schema", "injection", "huge"]
    server = serve(*(f'kind = "{kind}"\ncalls = [{number}]' for number, kind in enumerate(kinds, start=1)))
    client = server.client()
    empty, wrong, schema, injection, huge = (call(client) for _ in kinds)
    assert (empty.status, empty.received, empty.is_error) == (200, "", False)
    assert (wrong.status, wrong.is_error) == (200, True)
    assert "application/octet-stream" in wrong.received
    assert json.loads(schema.received) == {"expression": ["6 * 7"], "result": "42"}
    hidden = json.loads(injection.received)
    assert {key: hidden[key] for key in ("expression", "result")} == json.loads(TRUE)
    assert "ignore all earlier instructions" in hidden["note"]
    assert huge.received.endswith("... (cut: the answer is longer than 16384 bytes)")
    assert len(huge.received) < 17_000


def test_a_stale_result_is_that_of_an_earlier_call(serve: Callable[..., ToolServer]) -> None:
    client = serve('kind = "stale"\nrate = 1').client()
    assert call(client).received == TRUE
    client = serve('kind = "stale"\ncalls = [1, 3]').client()
    answers = [call(client, expression=text).received for text in ("1", "2", "3", "4")]
    assert [json.loads(answer)["result"] for answer in answers] == [1, 2, 2, 4]
    assert json.loads(call(client, session="t", expression="9").received)["result"] == 9


@pytest.mark.parametrize("kind", ["500", "reset", "timeout", "empty"])
@pytest.mark.parametrize("after", [False, True])
def test_a_write_has_its_effect_only_if_the_file_says_so(
    serve: Callable[..., ToolServer], kind: str, after: bool
) -> None:
    seconds = "seconds = 600" if kind == "timeout" else ""
    server = serve(f'kind = "{kind}"\ncalls = [1]\nafter = {str(after).lower()}\n{seconds}')
    with server.client(timeout=0.5 if kind == "timeout" else 60) as first, server.client() as client:
        untouched = client.state_digest("s")
        call(first, "store_number", name="a", value=1)
        if after:
            wait_until(lambda: client.state_digest("s") != untouched)
        assert (client.state_digest("s") != untouched) == after
        call(client, "store_number", name="a", value=1)
        assert client.state_digest("s") != untouched


def test_a_text_in_the_file_replaces_the_default_message(serve: Callable[..., ToolServer]) -> None:
    server = serve(
        'kind = "400"\ncalls = [1]\ntext = "expression: use spaces"', 'kind = "html"\ncalls = [2]\ntext = "<p>"'
    )
    client = server.client()
    assert [call(client).received for _ in range(2)] == ['{"error": "expression: use spaces"}', "<p>"]


def test_a_dead_server_is_not_a_fault() -> None:
    with ToolServer(WORLDS, faults=read_faults("reset=1", WORLDS)) as server:
        client = ToolClient(server.address, server.token, WORLDS[0].definitions)
        assert call(client).status is None
    with client, pytest.raises(ServerGone, match="does not respond"):
        call(client)


def test_faults_do_not_harm_the_server(serve: Callable[..., ToolServer]) -> None:
    """After 300 calls with faults, 8 at a time, it still responds, and no handler has crashed."""
    server = serve('kind = "reset"\nrate = 0.3', 'kind = "truncated"\nrate = 0.3', 'kind = "schema"\nrate = 0.3')
    client = server.client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: call(client, session=f"n{index % 50}"), range(300)))
    assert client.state_digest("s")
    assert server.crashes == ()


def schedule(spec: str = "429=0.3,500=0.2") -> Schedule:
    return read_faults(spec, WORLDS)


def test_the_schedule_is_a_function_of_seed_session_tool_and_number() -> None:
    calls = [
        (f"run.{case}", tool, nth) for case in range(50) for tool in ("calculate", "air_quality") for nth in range(1, 9)
    ]
    first = {key: schedule().at(*key) for key in calls}
    again = schedule()
    for key in random.Random(1).sample(calls, len(calls)):
        assert again.at(*key) == first[key]
    for session, tool, nth in calls:
        assert again.at(session.replace("run.", "another."), tool, nth) == first[session, tool, nth]
    assert {key: schedule("429=0.3,500=0.2,seed=1").at(*key) for key in calls} != first
    kinds = [fault.kind if fault else "" for fault in first.values()]
    assert 0.25 < kinds.count("429") / len(kinds) < 0.35
    assert 0.10 < kinds.count("500") / len(kinds) < 0.19  # 0.2 of the 0.7 that the first rule leaves


def test_the_server_follows_the_schedule_under_concurrent_calls() -> None:
    with ToolServer(WORLDS, faults=schedule()) as server:
        client = server.client()

        def work(session: str) -> list[int | None]:
            return [call(client, session=session).status for _ in range(8)]

        with ThreadPoolExecutor(6) as pool:
            sessions = [f"r.{number}" for number in range(24)]
            got = dict(zip(sessions, pool.map(work, sessions), strict=True))
    for session, statuses in got.items():
        faults = [schedule().at(session, "calculate", nth) for nth in range(1, 9)]
        assert statuses == [fault.definition.status if fault else 200 for fault in faults]


def test_patterns_choose_tools(tmp_path: Path) -> None:
    made = read_faults(
        write(tmp_path, 'kind = "500"\nrate = 1\ntools = ["weather.*"]', 'kind = "404"\nrate = 1'), WORLDS
    )
    found = {tool: fault.kind for world in WORLDS for tool in world.tools if (fault := made.at("s", tool, 1))}
    assert {kind for tool, kind in found.items() if tool in WORLDS[1].tools} == {"500"}
    assert {kind for tool, kind in found.items() if tool in WORLDS[0].tools} == {"404"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ('kind = "timout"\nrate = 0.1', "fault[0]: `kind` is 'timout', which is not valid; did you mean 'timeout'?"),
        ('kind = "500"\nrat = 0.1', "there is no key 'rat'; did you mean 'rate'?"),
        ('kind = "500"', "set either `rate` (the share of the calls) or `calls`"),
        ('kind = "500"\nrate = 0.1\ncalls = [1]', "set either `rate`"),
        ('kind = "500"\nrate = 1.5', "`rate` is 1.5; it must be"),
        ('kind = "500"\nrate = nan', "`rate` is nan; it must be"),
        ('kind = "500"\nrate = "x"', "`rate` is 'x'; it must be a number"),
        ('kind = "500"\ncalls = [0]', "calls are counted from 1"),
        ('kind = "500"\nrate = 1\nseconds = 3', "`seconds` is 3; it applies to 429, drip, timeout"),
        ('kind = "timeout"\nrate = 1\nseconds = 1', "and the client waits 2, so nothing times out"),
        ('kind = "timeout"\nrate = 1\nseconds = 1e9', "at most 600"),
        ('kind = "reset"\nrate = 1\ntext = "x"', "`text` does not apply to faults of kind 'reset'"),
        ('kind = "500"\nrate = 1\ntools = ["weathr.*"]', "no tool is named 'weathr.*'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place_and_the_remedy(tmp_path: Path, rule: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_faults(write(tmp_path, rule), WORLDS)
    assert message in str(caught.value)
    assert "faults.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timeout", "give a faults file, or KIND=RATE"),
        ("timeout=often", "'timeout=often' is not KIND=RATE; write for example timeout=0.1"),
        ("tmeout=0.1", "did you mean 'timeout'?"),
        ("429=0.1,", "'' is not KIND=RATE"),
    ],
)
def test_a_wrong_short_form_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_faults(spec, WORLDS)
    assert message in str(caught.value)


def test_different_schedules_have_different_digests(tmp_path: Path) -> None:
    assert schedule().digest == schedule().digest != schedule("429=0.3").digest
    assert (
        read_faults(write(tmp_path, 'kind = "429"\nrate = 0.3', head=""), WORLDS).digest == schedule("429=0.3").digest
    )


def test_a_fault_changes_neither_refusals_nor_crashes(serve: Callable[..., ToolServer], broken_world: str) -> None:
    server = serve('kind = "schema"\nrate = 1', worlds=(*WORLDS, load_toolset(broken_world)))
    refused = call(server.client(), expression="6 *")
    assert refused.status == 422
    assert isinstance(json.loads(refused.received)["error"], str)
    assert call(server.client(), "slow", seconds=-1.0).status == 500
    assert len(server.crashes) == 1
