"""Session states without sockets: which sessions are stored, which are dropped, and in what order."""

from __future__ import annotations

import concurrent.futures
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentft.errors import ToolError
from agentft.toolserver import Limits, Sessions
from agentft.toolset import load_toolsets
from agentft.toolset.state import digest
from tests.toolserver.conftest import Gated
from tests.waiting import PATIENCE


def store(sessions: Sessions, session: str, value: int = 1) -> None:
    sessions.call("store_number", {"name": "a", "value": value}, session)


def test_reading_keeps_no_session_and_has_the_fresh_states() -> None:
    worlds = load_toolsets(["calculator", "weather"])
    sessions = Sessions(worlds, seed=3)
    fresh = digest({world.name: world.new_state(3) for world in worlds})
    sessions.call("calculate", {"expression": "1"}, "s")
    assert list(sessions.names) == []
    assert sessions.digest("s") == sessions.digest("t") == fresh
    store(sessions, "s")
    assert list(sessions.names) == ["s"]
    assert sessions.digest("s") != fresh == sessions.digest("t")
    assert Sessions(worlds, seed=4).digest("s") != fresh
    other = Sessions(worlds, seed=3)
    store(other, "u")
    assert other.digest("u") == sessions.digest("s")


def test_sessions_are_ordered_by_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("agentft.toolserver.sessions.time.monotonic", lambda: now)
    sessions = Sessions(load_toolsets(["calculator"]), limits=Limits(sessions=2, idle=10))
    store(sessions, "a")
    now += 1
    store(sessions, "b")
    assert list(sessions.names) == ["a", "b"]
    now += 1
    sessions.call("calculate", {"expression": "1"}, "a")  # reading a kept session counts as a use
    assert list(sessions.names) == ["b", "a"]
    with pytest.raises(ToolError, match="2 sessions are in use; one that was idle for 10 seconds makes room") as caught:
        store(sessions, "c")
    assert caught.value.status == 503
    now = 1011.0  # b was used exactly 10 seconds ago: not yet more than the limit
    with pytest.raises(ToolError):
        store(sessions, "c")
    now = 1011.5
    store(sessions, "c")
    assert list(sessions.names) == ["a", "c"]
    now = 1100.0
    store(sessions, "a")  # long idle, but not dropped: nobody needed its place
    assert list(sessions.names) == ["a"]


def test_an_unknown_tool_is_a_404_with_a_hint_and_a_short_name() -> None:
    sessions = Sessions(load_toolsets(["calculator"]))
    with pytest.raises(ToolError, match="no tool 'calculat'; did you mean 'calculate'") as caught:
        sessions.call("calculat", {}, "s")
    assert caught.value.status == 404
    with pytest.raises(ToolError, match=f"'{'x' * 60}'$"):
        sessions.call("x" * 100, {}, "s")


def test_more_than_64_waiting_writes_of_a_session_are_refused(gated: Gated) -> None:
    sessions = Sessions([gated.world])
    with ThreadPoolExecutor(70) as pool:
        calls = [pool.submit(sessions.call, "wait", {}, "s") for _ in range(65)]
        concurrent.futures.wait(calls, timeout=PATIENCE, return_when=concurrent.futures.FIRST_COMPLETED)
        gated.gate.set()
        found = [call.exception() for call in calls]
        assert [type(one) for one in found if one is not None] == [ToolError]
        assert str(next(filter(None, found))) == "64 calls of this session are still running; wait for them"
        assert next(one.status for one in found if isinstance(one, ToolError)) == 429
        assert {str(call.result()) for call in calls if call.exception() is None} == {str(n) for n in range(1, 65)}
    assert sessions.call("wait", {}, "s") == 65
