"""Slow faults on a virtual clock: when each message is sent, to the instant, however busy the machine is."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from agentft.toolserver import read_faults
from agentft.toolserver.body import json_response
from agentft.toolserver.faults import FAULT_KINDS
from agentft.toolserver.wire import Wire
from agentft.toolset import load_toolsets

WORLDS = load_toolsets(["calculator"])
RESULT = {"result": 42, "text": "x" * 200}


class Selector(selectors.DefaultSelector):
    """Moves the clock forward instead of waiting for a timer."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0 if timeout else timeout)
        self.now += 0 if events else timeout or 0
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


class Exchange:
    """One call through a `Wire`: the times at which it was executed and its messages were sent."""

    def __init__(self, tmp_path: Any, rule: str, leaves: float | None = None) -> None:
        path = tmp_path / "faults.toml"
        path.write_text(f"client_seconds = 2\n[[fault]]\ncalls = [1]\n{rule}\n", encoding="utf-8")
        self.wire = Wire(read_faults(str(path), WORLDS))
        self.leaves = leaves
        self.executed: list[float] = []
        self.sent: list[tuple[float, Message]] = []
        self.body_is_read = False
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(self.run())

    async def run(self) -> None:
        scope = {"type": "http", "method": "POST", "path": "/tools/calculate", "headers": [(b"x-session", b"s")]}
        app = await self.wire.respond(Request(scope, self.receive), "calculate", self.execute)
        await app(scope, self.receive, self.send)

    async def execute(self, _: Request) -> Response:
        self.executed.append(self.now())
        return json_response(200, RESULT)

    async def receive(self) -> Message:
        if not self.body_is_read:
            self.body_is_read = True
            return {"type": "http.request", "body": b"{}", "more_body": False}
        await asyncio.sleep(1e6 if self.leaves is None else self.leaves - self.now())
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append((self.now(), message))

    @staticmethod
    def now() -> float:
        return asyncio.get_running_loop().time()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for _, message in self.sent)


@pytest.mark.parametrize("after", [False, True])
def test_a_timeout_responds_exactly_after_its_delay(tmp_path: Any, after: bool) -> None:
    exchange = Exchange(tmp_path, f'kind = "timeout"\nseconds = 2.1\nafter = {str(after).lower()}')
    assert [time for time, _ in exchange.sent] == pytest.approx([2.1] * len(exchange.sent))
    real = json_response(200, RESULT) if after else json_response(504, {"error": FAULT_KINDS["504"].text})
    assert (exchange.sent[0][1]["status"], exchange.body) == (real.status_code, real.body)
    assert exchange.executed == ([0.0] if after else [])


def test_the_default_delay_of_a_timeout(tmp_path: Any) -> None:
    assert Exchange(tmp_path, 'kind = "timeout"').sent[0][0] == pytest.approx(30)


@pytest.mark.parametrize("kind", ["timeout", "drip"])
def test_a_client_that_leaves_gets_nothing_more(tmp_path: Any, kind: str) -> None:
    exchange = Exchange(tmp_path, f'kind = "{kind}"\nseconds = 5', leaves=2)
    assert all(time <= 2 for time, _ in exchange.sent)
    assert (exchange.sent == []) == (kind == "timeout")
    assert exchange.body != json_response(200, RESULT).body


def test_a_drip_spreads_the_whole_body_over_its_seconds(tmp_path: Any) -> None:
    exchange = Exchange(tmp_path, 'kind = "drip"\nseconds = 2')
    assert exchange.body == json_response(200, RESULT).body
    pieces = [time for time, message in exchange.sent if message.get("body")]
    assert pieces == [pytest.approx(0.1 * number) for number in range(1, len(pieces) + 1)]
    assert 15 <= len(pieces) <= 20
