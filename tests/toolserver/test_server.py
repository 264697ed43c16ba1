"""The server starts fast, stops without leaving anything behind, and serves many sessions at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from agentft.errors import InputError, MissingError
from agentft.toolserver import Sessions, ToolClient, ToolServer
from agentft.toolset import load_toolset, load_toolsets
from agentft.types import Span, ToolCall
from tests.waiting import wait_until


def store(client: ToolClient, session: str, name: str, value: int) -> None:
    exchange = client.call(ToolCall("c", "store_number", {"name": name, "value": value}, Span(0, 0)), session)
    assert exchange.status == 200


def test_it_starts_fast_on_a_free_port_of_loopback_only() -> None:
    toolsets = load_toolsets(["weather", "search", "calculator"])
    started = time.process_time()
    with ToolServer(toolsets) as server:
        assert time.process_time() - started < 0.5
        assert server.address.startswith("http://127.0.0.1:")
        with ToolServer(toolsets) as other:
            assert other.address != server.address


def test_nothing_is_left_when_it_stops() -> None:
    threads, files = set(threading.enumerate()), len(os.listdir("/dev/fd"))
    for _ in range(3):
        with ToolServer([load_toolset("calculator")]) as server:
            store(server.client(), "s", "a", 1)
            store(server.client(), "s", "b", 2)
    assert len(os.listdir("/dev/fd")) <= files
    wait_until(lambda: set(threading.enumerate()) <= threads)  # idle threads of the pool end a moment after the loop


def test_closing_twice_is_fine_and_the_port_is_free_again() -> None:
    server = ToolServer([load_toolset("calculator")])
    with server:
        port = urlsplit(server.address).port or 0
    server.close()
    with ToolServer([load_toolset("calculator")], port=port) as again:
        assert again.address.endswith(f":{port}")


def test_closing_before_entering_is_fine() -> None:
    ToolServer([load_toolset("calculator")]).close()


def test_a_taken_port_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MissingError, match=f"port {port} on 127.0.0.1 cannot be used: .*pass port 0") as caught:
            ToolServer([load_toolset("calculator")], port=port).__enter__()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("port", [-1, 65536])
def test_an_invalid_port_is_refused(port: int) -> None:
    with pytest.raises(InputError, match="is not a port"):
        ToolServer([load_toolset("calculator")], port=port).__enter__()


def test_the_sessions_of_fifty_threads_do_not_mix() -> None:
    with ToolServer([load_toolset("calculator")]) as server:
        client = server.client()

        def work(index: int) -> str:
            for step in range(5):
                store(client, f"session-{index}", "n", index * 100 + step)
            answer = client.call(ToolCall("c", "recall_number", {"name": "n"}, Span(0, 0)), f"session-{index}")
            assert answer.received == f'{{"name": "n", "value": {index * 100 + 4}}}'
            return client.state_digest(f"session-{index}")

        with ThreadPoolExecutor(50) as pool:
            assert len(set(pool.map(work, range(50)))) == 50


def test_writes_of_one_session_are_not_lost(guest_world: str) -> None:
    sessions = Sessions([load_toolset(guest_world)])
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda index: sessions.call("sign_book", {"name": str(index)}, "one"), range(200)))
    assert sessions.call("sign_book", {"name": "last"}, "one") == {"name": "last", "guests": 201}


def test_the_seed_of_the_run_replaces_that_of_the_worlds() -> None:
    toolset = load_toolset("weather", seed=1)
    results = [Sessions([toolset], seed).call("current_weather", {"city": "Rome"}, "s") for seed in (None, 1, 2)]
    assert results[0] == results[1] != results[2]


def test_a_program_with_a_server_ends_by_itself_and_prints_nothing() -> None:
    script = (
        "from agentft.toolset import load_toolset\n"
        "from agentft.toolserver import ToolServer\n"
        "from agentft.types import Span, ToolCall\n"
        "with ToolServer([load_toolset('calculator')]) as server:\n"
        "    call = ToolCall('c', 'calculate', {'expression': '1 + 1'}, Span(0, 0))\n"
        "    assert server.client().call(call, 's').status == 200\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
