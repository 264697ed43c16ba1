"""The agent in an editor: chats over the Agent Client Protocol, on stdin and stdout, through the protocol's SDK."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from agentft import __version__
from agentft.agent import INFRASTRUCTURE
from agentft.display.safe import safe_line
from agentft.errors import AgentftError
from agentft.models import Delta, OnDelta, TextDelta
from agentft.repl.gate import Decision
from agentft.repl.session import Session
from agentft.types import Exchange, Step, ToolCall

acp: Any = import_module("acp") if find_spec("acp") else None  # an optional extra

__all__ = ["AcpAgent", "serve_editor"]

_OPTIONS = {"allow_once": "Allow", "allow_always": "Always allow", "reject_once": "Reject"}
_LIMIT = 1 << 24  # bytes of a message
_FIELDS: dict[str, Any] = {"id": str | float | int | None, "method": str | None, "error": dict | None}
_SECONDS = 60.0  # that the editor may take to receive an update


class _Chat:
    """One session of the editor: what happens in it is sent as updates."""

    def __init__(self, session: Session, editor: Any) -> None:
        self.session, self._editor = session, editor
        self._loop = asyncio.get_running_loop()
        self._calls, self._is_open = 0, False
        gate = session.gate
        gate.ask, gate.on_start, gate.on_done = self._ask, self._begin, self._end

    def answer(self, text: str) -> str:
        """Answer a prompt, in a thread; returns why the answer ended."""
        session = self.session
        try:
            steps = [*session.ask(text, self._listening)]
        except (AgentftError, *INFRASTRUCTURE) as error:
            session.remove_question()
            raise acp.RequestError.internal_error({"details": str(error)}) from None
        return "cancelled" if session.gate.cancelled.is_set() else _reason(steps[-1])

    @contextmanager
    def _listening(self) -> Iterator[OnDelta]:
        def show(_: int, delta: Delta) -> None:
            if isinstance(delta, TextDelta) and delta.text:
                said = acp.update_agent_thought_text if delta.thought else acp.update_agent_message_text
                self._send(said(delta.text))

        yield show

    def _begin(self, call: ToolCall) -> None:
        if not self._is_open:
            self._is_open = True
            self._calls += 1
            self._send(acp.start_tool_call(self._id, call.name, status="pending", raw_input=dict(call.arguments)))

    def _end(self, exchange: Exchange, _: float) -> None:
        self._begin(exchange.call)
        self._is_open = False
        status = "failed" if exchange.is_error else "completed"
        shown = [acp.tool_content(acp.text_block(exchange.received))]
        self._send(acp.update_tool_call(self._id, status=status, content=shown, raw_output=exchange.received))

    def _ask(self, call: ToolCall, _: str) -> Decision:
        self._begin(call)
        made = acp.schema.ToolCallUpdate(tool_call_id=self._id, title=call.name, raw_input=dict(call.arguments))
        options = [acp.schema.PermissionOption(option_id=kind, name=name, kind=kind) for kind, name in _OPTIONS.items()]
        asked = self._editor.request_permission(self.session.conversation.id, made, options)
        answer = asyncio.run_coroutine_threadsafe(asked, self._loop)
        while not answer.done() and not self.session.gate.cancelled.wait(0.1):
            pass  # an editor that cancels need not answer
        chosen = "" if answer.cancel() else getattr(answer.result().outcome, "option_id", "")
        if not chosen:
            self.session.gate.cancelled.set()
        return Decision(chosen.startswith("allow"), always=chosen == "allow_always")

    @property
    def _id(self) -> str:
        return f"call_{self._calls}"

    def _send(self, update: Any) -> None:
        sent = self._editor.session_update(self.session.conversation.id, update)
        asyncio.run_coroutine_threadsafe(sent, self._loop).result(_SECONDS)


class AcpAgent:
    """The SDK's `Agent`; all sessions share one model, which answers one prompt at a time.

    Args:
        opened: opens a session.
    """

    def __init__(self, opened: Callable[[], Session]) -> None:
        self._opened = opened
        self._chats: dict[str, _Chat] = {}
        self._turn = asyncio.Lock()

    def on_connect(self, conn: Any) -> None:
        """Called by the SDK with the editor."""
        self._editor = conn

    async def initialize(self, protocol_version: int, **_: Any) -> Any:  # noqa: ARG002
        """Tell the editor who we are."""
        about = acp.schema.Implementation(name="agentft", version=__version__)
        return acp.InitializeResponse(protocol_version=acp.PROTOCOL_VERSION, agent_info=about)

    async def new_session(self, cwd: str, **_: Any) -> Any:  # noqa: ARG002
        """Start a chat."""
        async with self._turn:
            session = await asyncio.to_thread(self._opened)
        self._chats[session.conversation.id] = _Chat(session, self._editor)
        return acp.NewSessionResponse(session_id=session.conversation.id)

    async def prompt(self, session_id: str, prompt: list[Any], **_: Any) -> Any:
        """Answer a prompt; of a link to a file, the model gets the address."""
        if session_id not in self._chats:
            raise acp.RequestError.resource_not_found(session_id)
        text = "\n".join(getattr(block, "text", "") or getattr(block, "uri", "") or "" for block in prompt)
        if not text.strip():
            raise acp.RequestError.invalid_params({"details": "the prompt has no text"})
        async with self._turn:
            reason = await asyncio.to_thread(self._chats[session_id].answer, text)
        return acp.PromptResponse(stop_reason=reason)

    async def cancel(self, session_id: str, **_: Any) -> None:
        """Stop the answer in progress."""
        if session_id in self._chats:
            self._chats[session_id].session.cancel()

    def stop(self) -> None:
        """Stop every answer."""
        for chat in self._chats.values():
            chat.session.cancel()


def _reason(last: Step) -> str:
    ends = {"length": "max_tokens", "filtered": "refusal"}
    return "max_turn_requests" if last.exchanges else ends.get(last.finish, "end_turn")


class _OneLine(logging.Formatter):
    """What the SDK logs, without its tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        why = f": {record.exc_info[1]!r}" if record.exc_info else ""
        return safe_line(f"{record.getMessage()}{why}")


class _Messages:
    """A transport of the SDK: messages, one a line. What is none is refused here, since the SDK would end for it."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, message: Any) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")
        await self._writer.drain()

    async def receive(self) -> Any:
        """The next message; None at the end."""
        while not self._reader.at_eof():
            refusal = acp.RequestError.invalid_request()
            try:
                line = await self._reader.readline()
                if not line.strip():
                    continue
                message = json.loads(line)
            except (ValueError, RecursionError) as error:
                message, refusal = None, acp.RequestError.parse_error({"details": str(error)})
            if isinstance(message, dict) and all(isinstance(message.get(key), kinds) for key, kinds in _FIELDS.items()):
                return message
            await self.send({"jsonrpc": "2.0", "id": None, "error": refusal.to_error_obj()})
        return None

    async def close(self) -> None:
        """Nothing: stdout stays open until the process ends."""


def serve_editor(opened: Callable[[], Session]) -> None:
    """Serve the editor that started this process until it closes stdin. What libraries print goes to stderr."""
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logged = logging.StreamHandler()
    logged.setFormatter(_OneLine())
    logging.basicConfig(handlers=[logged])
    asyncio.run(_serve(AcpAgent(opened)))


async def _serve(agent: AcpAgent) -> None:
    reader, writer = await acp.stdio.stdio_streams(_LIMIT)
    sys.stdout = sys.stderr
    try:
        await acp.run_agent(agent, _Messages(reader, writer))
    finally:
        agent.stop()
