"""Limits end hanging handlers, floods, foreign sites and oversized requests, and other callers are still served."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from agentft.errors import InputError, ToolError
from agentft.toolserver import Limits, Sessions, ToolServer, app
from agentft.toolserver.source import RealService
from agentft.toolserver.workers import Workers
from agentft.toolset import load_toolset, load_toolsets
from tests.toolserver.conftest import Gated
from tests.waiting import wait_until

# One for all tests: making one takes longer than most calls.
CLIENT = httpx.Client(trust_env=False, timeout=120, limits=httpx.Limits(max_connections=100))


@pytest.fixture(scope="module")
def server() -> Iterator[ToolServer]:
    limits = Limits(seconds=60, rate=500, sessions=3)
    with ToolServer([load_toolset("calculator")], limits=limits) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def connections() -> Iterator[None]:
    with CLIENT:
        yield


def headers(server: ToolServer, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token}", **more}


def call(server: ToolServer, tool: str, body: object, **more: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{server.address}/tools/{tool}"
    return CLIENT.post(url, content=content, headers=headers(server, **more))


def hang(pool: ThreadPoolExecutor, server: ToolServer) -> list[Future[httpx.Response]]:
    """Thirty calls of `wait`, each in a session of its own."""
    return [pool.submit(call, server, "wait", {}, **{"X-Session": f"h{n}"}) for n in range(30)]


def test_a_handler_that_hangs_delays_no_other_call(gated: Gated) -> None:
    worlds = [gated.world, load_toolset("calculator")]
    with ToolServer(worlds, limits=Limits(seconds=60)) as running, ThreadPoolExecutor(40) as pool:
        hanging = hang(pool, running)
        wait_until(lambda: len(gated.inside) == 30)
        for _ in range(5):
            assert call(running, "calculate", {"expression": "1 + 1"}).json()["result"] == 2
        assert not any(future.done() for future in hanging)
        gated.gate.set()
        assert [future.result().status_code for future in hanging] == [200] * 30


def test_a_handler_that_hangs_is_a_504(gated: Gated) -> None:
    with ToolServer([gated.world], limits=Limits(seconds=0.5)) as running, ThreadPoolExecutor(40) as pool:
        first = call(running, "wait", {})
        assert (first.status_code, first.json()) == (504, {"error": "wait gave no answer within 0.5 seconds"})
        assert {future.result().status_code for future in hang(pool, running)} == {504}


def test_a_504_names_the_time_that_a_real_service_has(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()

    class Slow(RealService):
        def __call__(self, *_: Any, **__: Any) -> Any:
            held.wait()

    monkeypatch.setattr(app, "REAL_SECONDS", 0.05)
    worlds = [load_toolset("calculator")]
    with ToolServer(worlds, source=Slow("http://127.0.0.1:9", worlds), limits=Limits(seconds=9)) as running:
        answer = call(running, "calculate", {"expression": "1"})
        assert (answer.status_code, answer.json()) == (504, {"error": "calculate gave no answer within 0.2 seconds"})
        monkeypatch.setattr(Sessions, "digest", lambda *_: held.wait())
        state = CLIENT.get(f"{running.address}/state", headers=headers(running))
        assert (state.status_code, state.json()) == (504, {"error": "no answer within 0.2 seconds"})
        held.set()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, ValueError])
def test_an_exception_in_a_thread_is_raised_in_the_caller(kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("x")

    async def use() -> None:
        workers = Workers(1)
        with pytest.raises((RuntimeError, ValueError), match="x"):
            await workers.run("fail", fail)
        assert await workers.run("int", int, "7") == 7
        workers.close()

    asyncio.run(use())


def test_a_tool_that_hangs_leaves_threads_for_other_tools() -> None:
    ended = threading.Event()

    async def use() -> None:
        workers, refused = Workers(0.3), 0
        while refused < 50:
            vars(workers)["_seconds"] = 60 if refused else 0.3  # the last are refused at once, not after a time-out
            calls = [workers.run("hangs", ended.wait) for _ in range(10)]
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(one, TimeoutError | ToolError) for one in found)
            busy = all(str(one) == "hangs is busy: earlier calls have not returned" for one in found)
            assert busy or not refused
            refused += busy
            vars(workers)["_seconds"] = 60
            assert await workers.run("int", int, "7") == 7
        assert sum(thread.name == "agentft-handler" for thread in threading.enumerate()) <= 60
        ended.set()
        workers.close()

    asyncio.run(use())


@pytest.mark.parametrize(("levels", "status"), [(63, 400), (64, 400), (65, 400), (5000, 400), (100_000, 400)])
def test_the_depth_of_a_body_is_limited(server: ToolServer, levels: int, status: int) -> None:
    inner = levels - 1
    answer = call(server, "calculate", b'{"expression": ' + b"[" * inner + b"]" * inner + b"}")
    assert answer.status_code == status
    assert ("nested more than 64 levels deep" in answer.json()["error"]) == (levels > 64)


def test_many_lists_side_by_side_are_not_deep(server: ToolServer) -> None:
    assert "must be a string" in call(server, "calculate", {"expression": [[]] * 500}).json()["error"]


def test_the_number_of_sessions_that_write_is_limited(server: ToolServer) -> None:
    for n in range(20):
        assert call(server, "calculate", {"expression": "1"}, **{"X-Session": f"r{n}"}).status_code == 200
    body = {"name": "a", "value": 1}
    answers = [call(server, "store_number", body, **{"X-Session": f"s{n}"}) for n in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 503]
    assert answers[3].json()["error"].startswith("3 sessions are in use")


def test_an_idle_session_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("agentft.toolserver.sessions.time", SimpleNamespace(monotonic=lambda: now))
    sessions = Sessions(load_toolsets(["calculator"]), limits=Limits(sessions=1, idle=0.5))
    sessions.call("store_number", {"name": "a", "value": 1}, "one")
    with pytest.raises(ToolError, match="1 sessions are in use") as caught:
        sessions.call("store_number", {"name": "a", "value": 1}, "two")
    assert caught.value.status == 503
    now += 0.6
    sessions.call("store_number", {"name": "a", "value": 1}, "two")
    assert sessions.names == ("two",)


def test_the_rate_is_limited_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("agentft.toolserver.guard.time", SimpleNamespace(monotonic=lambda: now))
    with (
        ToolServer([load_toolset("calculator")], limits=Limits(rate=20)) as slow,
        httpx.Client(headers=headers(slow), trust_env=False, timeout=60) as http,
    ):
        statuses = [http.get(f"{slow.address}/tools").status_code for _ in range(60)]
        assert statuses == [200] * 20 + [429] * 40
        assert http.get(f"{slow.address}/health").status_code == 200
        now += 0.3
        assert http.get(f"{slow.address}/tools").status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1", ""])
def test_requests_from_other_sites_are_refused(server: ToolServer, origin: str) -> None:
    answer = call(server, "calculate", {"expression": "1"}, Origin=origin)
    assert (answer.status_code, answer.json()["error"][:13]) == (403, "requests from")


def test_requests_from_the_servers_own_page_are_served(server: ToolServer) -> None:
    assert call(server, "calculate", {"expression": "1"}, Origin=server.address).status_code == 200


def test_a_browsers_cookie_is_read_only(server: ToolServer) -> None:
    call(server, "calculate", {"expression": "<script>alert(1)</script>"})
    with httpx.Client(base_url=server.address, trust_env=False, timeout=60) as browser:
        assert browser.get("/").status_code == 401
        assert browser.get("/?token=wrong").status_code == 401
        assert browser.get(f"/tools?token={server.token}").status_code == 401
        welcome = browser.get("/", params={"token": server.token})
        assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
        cookie = welcome.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        page = browser.get("/")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "&lt;script&gt;" in page.text
        assert "<script" not in page.text
        assert browser.post("/tools/calculate", content=b'{"expression": "1"}').status_code == 401


def test_listening_on_another_host_needs_a_token() -> None:
    worlds = [load_toolset("calculator")]
    with pytest.raises(InputError, match="pass a token with --token"):
        ToolServer(worlds, host="0.0.0.0")  # noqa: S104
    for token in ("short", "with space", "ünicode-token"):
        with pytest.raises(InputError, match="a token must have"):
            ToolServer(worlds, token=token)
    with ToolServer(worlds, host="0.0.0.0", token="a-long-token") as open_server:  # noqa: S104
        url = f"http://127.0.0.1:{open_server.address.rpartition(':')[2]}/tools"
        for host, status in (("10.1.2.3:80", 200), ("evil.example", 403)):
            sent = {"Authorization": "Bearer a-long-token", "Host": host}
            assert httpx.get(url, headers=sent, trust_env=False, timeout=60).status_code == status


def test_a_thousand_sessions_cost_little_memory() -> None:
    sessions = Sessions(load_toolsets(["weather"]))
    before = _resident()
    for n in range(1000):
        sessions.call("set_weather_alert", {"city": "Paris", "condition": "rain"}, f"s{n}")
    assert _resident() - before < 20 << 20
    assert len({sessions.digest(f"s{n}") for n in range(0, 1000, 250)}) == 1


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
