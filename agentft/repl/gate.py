"""What stands between the model's calls and the tools: approval, tools that are off, faults on demand, a way out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Literal, TypeAlias

from agentft.agent import ToolRunner
from agentft.types import Exchange, Json, ToolCall

__all__ = ["APPROVALS", "Approval", "CallGate", "Decision", "fault_kinds"]

Approval = Literal["never", "writes", "always"]
APPROVALS: tuple[Approval, ...] = ("never", "writes", "always")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the person said to a call. `arguments`: to send instead of the model's. `reason`: told to the model."""

    allowed: bool
    arguments: Mapping[str, Json] | None = None
    always: bool = False
    reason: str = ""


Ask: TypeAlias = Callable[[ToolCall, str], Decision]


@dataclass
class CallGate:
    """A tool runner around another one.

    Args:
        inner: sends the calls.
        access: what each tool does: `read`, `write` or `destructive`; others count as `write`.
        approve: the calls that a person must allow: none, those that are not reads, or all.
        ask: asks the person.
        on_start: called before a call is sent.
        on_done: called with what came back, and the seconds that it took.
        seconds: how long all calls took, with the person's decisions.
        interruptible: whether `cancelled` or Ctrl-C ends a call; else Ctrl-C ends the chat.
    """

    inner: ToolRunner
    access: Mapping[str, str] = field(default_factory=dict)
    approve: Approval = "never"
    ask: Ask = lambda call, access: Decision(True)  # noqa: ARG005
    on_start: Callable[[ToolCall], None] = lambda call: None  # noqa: ARG005
    on_done: Callable[[Exchange, float], None] = lambda exchange, seconds: None  # noqa: ARG005
    interruptible: bool = True
    cancelled: Event = field(default_factory=Event)
    off: set[str] = field(default_factory=set)
    always: set[str] = field(default_factory=set)
    fault: str = ""
    seconds: float = 0.0

    def call(self, call: ToolCall, session: str) -> Exchange:
        """Send a call, if it is allowed."""
        begun = asked = time.monotonic()
        if self.cancelled.is_set():
            exchange = _unsent(call, "stopped by the user")
        elif call.name in self.off:
            exchange = _unsent(call, f"there is no tool {call.name[:60]}")
        else:
            exchange, begun = self._approved(call, session)
        ended = time.monotonic()
        self.seconds += ended - asked
        self.on_done(exchange, ended - begun)
        return exchange

    def state_digest(self, session: str) -> str:
        """See `ToolRunner.state_digest`."""
        return self.inner.state_digest(session)

    def _approved(self, call: ToolCall, session: str) -> tuple[Exchange, float]:
        """The exchange, and when the call was sent."""
        access = self.access.get(call.name, "write")
        asks = self.approve == "always" or (self.approve == "writes" and access != "read")
        if asks and call.parse_error is None and call.name not in self.always:
            said = self.ask(call, access)
            if not said.allowed:
                why = f"the user did not allow this call{': ' * bool(said.reason)}{said.reason}"
                return _unsent(call, why), time.monotonic()
            if said.always:
                self.always.add(call.name)
            if said.arguments is not None:
                call = replace(call, arguments=said.arguments)
        self.on_start(call)
        begun = time.monotonic()
        if self.fault:
            return self._failed(call), begun
        try:
            return self._send(call, session), begun
        except KeyboardInterrupt:
            if not self.interruptible:
                raise
            self.cancelled.set()
            return _left(call), begun

    def _failed(self, call: ToolCall) -> Exchange:
        from agentft.toolserver.faults import FAULT_KINDS  # the server's libraries take time

        kind, self.fault = self.fault, ""
        fault = FAULT_KINDS[kind]
        text = fault.text.replace("{seconds}", f"{fault.seconds:g}")
        received = text if kind == "html" else json.dumps({"error": text})
        return Exchange(call, "POST", call.endpoint, dict(call.arguments), fault.status, received, True, fault=kind)

    def _send(self, call: ToolCall, session: str) -> Exchange:
        """Send the call from another thread, so that a slow tool can be left."""
        pool = ThreadPoolExecutor(1, "agentft-call")
        try:
            sent = pool.submit(self.inner.call, call, session)
            while not wait([sent], timeout=0.05).done:
                if self.cancelled.is_set():
                    return _left(call)
            return sent.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def fault_kinds() -> list[str]:
    """The faults that `/fault` injects: those that replace the response by an error."""
    from agentft.toolserver.faults import FAULT_KINDS

    return [name for name, kind in FAULT_KINDS.items() if kind.text and not kind.effect]


def _unsent(call: ToolCall, why: str) -> Exchange:
    return Exchange(call, "POST", call.endpoint, None, None, json.dumps({"error": why}), is_error=True)


def _left(call: ToolCall) -> Exchange:
    """A call that was sent, and may take effect, but whose result the person did not wait for."""
    return replace(_unsent(call, "stopped by the user before the tool answered"), sent=dict(call.arguments))
