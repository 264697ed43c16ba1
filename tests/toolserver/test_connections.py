"""Limits before the token: large and slow heads, bodies that do not come, and too many connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from agentft.toolserver import ToolServer, protocol, read_faults
from agentft.toolset import load_toolset
from tests.waiting import PATIENCE, wait_until


@pytest.fixture(params=["httptools", "h11"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToolServer]:
    monkeypatch.setattr(protocol, "_SECONDS", PATIENCE)
    monkeypatch.setattr(protocol, "CONNECTIONS", 20)
    world = load_toolset("calculator")
    faults = read_faults("503=0.000001", [world]) if request.param == "h11" else None
    with ToolServer([world], faults=faults) as running:
        yield running


def connect(server: ToolServer) -> socket.socket:
    host, port = server.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def received(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = b""
    try:
        while piece := connection.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return found


def is_alive(server: ToolServer) -> bool:
    headers = {"Authorization": f"Bearer {server.token}"}
    call = {"expression": "6 * 7"}
    found = httpx.post(f"{server.address}/tools/calculate", headers=headers, json=call, trust_env=False, timeout=60)
    return found.status_code == 200 and found.json()["result"] == 42


@pytest.mark.parametrize("line", [b"X: " + b"a" * 70_000, b"X: a\r\n" * 12_000])
@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_large_head_is_a_431(server: ToolServer, line: bytes, end: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + line + end)
        assert received(connection).startswith(b"HTTP/1.1 431 ")
    assert is_alive(server)


def test_a_head_of_60_kb_is_read() -> None:
    with ToolServer([load_toolset("calculator")]) as server:
        assert (
            httpx.get(f"{server.address}/health", headers={"X": "a" * 60_000}, trust_env=False, timeout=60).status_code
            == 200
        )


def test_a_server_keeps_connections_longer_than_its_clients() -> None:
    """A client that sends on a connection just as the server closes it loses the call."""
    server = ToolServer([load_toolset("calculator")])
    assert vars(server)["_server"].config.timeout_keep_alive > 2 * (httpx.Limits().keepalive_expiry or 0)
    server.close()


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET /hea",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /tools/calculate HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 9\r\n\r\n{",
    ],
)
def test_a_head_or_body_that_does_not_come_is_closed(
    server: ToolServer, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_SECONDS", 0.3)
    with connect(server) as connection:
        connection.sendall(start.replace(b"%s", server.token.encode()))
        received(connection)  # the time-out of the socket is an error
    monkeypatch.setattr(protocol, "_SECONDS", PATIENCE)
    assert is_alive(server)


def test_there_is_a_most_number_of_connections(server: ToolServer) -> None:
    held = [connect(server) for _ in range(20)]
    with connect(server) as connection:
        assert received(connection).startswith(b"HTTP/1.1 503 ")
    for connection in held:
        connection.close()
    wait_until(lambda: is_alive(server))


@pytest.mark.parametrize(("token", "size", "status"), [(False, 300_000, b"401"), (True, 24 << 20, b"413")])
def test_the_rest_of_a_body_that_was_answered_is_no_request(
    server: ToolServer, token: bool, size: int, status: bytes
) -> None:
    """It was answered with a 431, which the client read as the answer to its next request."""
    sent = f"Authorization: Bearer {server.token if token else 'x'}\r\nContent-Length: {size}\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(f"POST /tools/calculate HTTP/1.1\r\nHost: {server.address[7:]}\r\n{sent}".encode())
        found = b"" if token else connection.recv(1 << 16)
        with suppress(ConnectionError):
            connection.sendall(b" " * size)
        found += received(connection)
    assert found.count(b"HTTP/1.1 ") == 1
    assert found.startswith(b"HTTP/1.1 " + status)
    assert is_alive(server)
