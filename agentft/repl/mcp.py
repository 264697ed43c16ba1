"""Sends the calls of a chat to the MCP server that its tools were imported from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from threading import Event, Lock
from typing import Any, cast

from agentft.errors import InputError
from agentft.imports.mcp import connect, reason_of, without_credentials
from agentft.redaction import redacted_command
from agentft.toolserver.recording import Recorded
from agentft.toolset import Toolset
from agentft.types import Json

__all__ = ["MCP_SECONDS", "McpService"]

MCP_SECONDS = 28.0
"""How long the server may take for a call."""


class McpService:
    """A source of responses (`agentft.toolserver.Source`): the tools that the server lists; others are mock tools.

    A session that the server has ended is replaced by a new one. If the connection is lost, or the command has ended,
    that call has no result, and the next one connects or starts it again.

    Args:
        server: the command that starts the server, or its URL.
        toolsets: the worlds whose calls it gets.
        environment: as for `agentft.imports.mcp.import_mcp`.

    Raises:
        InputError: the server does not list its tools, or none of theirs.
        MissingError: the MCP SDK is not installed.
    """

    def __init__(self, server: str, toolsets: Sequence[Toolset], environment: Sequence[str] = ()) -> None:
        from anyio.from_thread import start_blocking_portal

        self.digest = redacted_command(server)
        self._server = server, environment
        self._client: Any = None
        self._expired, self._lock, self._open = Event(), Lock(), ExitStack()
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            stack.callback(self._leave)
            names = {tool.get("name") for tool in self._connect() if isinstance(tool, dict)}
            tools = (item for toolset in toolsets for item in toolset.tools.items())
            self._tools = {name: tool for name, tool in tools if tool.operation in names}
            if not self._tools:
                raise InputError(f"{self.digest} lists none of these tools; run `agentft tools import mcp` again")
            self.close = stack.pop_all().close
            """Stop the server, or leave it."""

    def __call__(self, tool: str, arguments: Mapping[str, Json], session: str) -> Recorded | None:  # noqa: ARG002
        """The server's result, or why there is none.

        Raises:
            ToolError: an argument is refused; nothing is sent.
        """
        from anyio import ClosedResourceError
        from mcp import MCPError

        if (known := self._tools.get(tool)) is None:
            return None
        checked: dict[str, Any] = dict(known.check(arguments))
        try:
            with self._lock:
                made = self._ask(known.operation, checked)
        except (InputError, MCPError, CancelledError, ClosedResourceError, OSError, RuntimeError, ValueError) as error:
            why = f"the MCP server gives no result: {reason_of(error)}"
            why += "; the next call connects to it again, or starts its command again" * (self._client is None)
            return Recorded(tool, checked, 502, {"error": why})
        result: Json = ["\n".join(map(_text, made.content)), made.structured_content]
        text, structured = cast(list[Any], without_credentials(result, *self._server))
        body = {"error": text or structured} if made.is_error else structured
        kind = ("text/plain", text) if body is None else ("application/json", body)
        return Recorded(tool, checked, 422 if made.is_error else 200, kind[1], kind[0])

    def _ask(self, operation: str, arguments: dict[str, Any], *, again: bool = True) -> Any:
        from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult

        if self._client is None:
            self._connect()
        request = CallToolRequest(params=CallToolRequestParams(name=operation, arguments=arguments))
        try:
            # Not `call_tool`, which would list the tools again, and refuse the result if that fails.
            return self._portal.call(self._client.session.send_request, request, CallToolResult, MCP_SECONDS)
        except Exception as error:
            if self._expired.is_set() or str(error) in {"", "Connection closed"}:
                self._leave()
            if not (self._expired.is_set() and again):
                raise
        return self._ask(operation, arguments, again=False)

    def _connect(self) -> list[Json]:
        """Connect, and return the tools that the server lists."""
        self._expired.clear()
        opened = self._portal.wrap_async_context_manager(connect(*self._server, self._expired))
        self._client, listed, _ = self._open.enter_context(opened)
        return listed

    def _leave(self) -> None:
        """Leave the server; one that is gone is left without an error."""
        self._client = None
        with suppress(CancelledError, InputError):
            self._open.close()


def _text(part: Any) -> str:
    """What a part of a result says: its text or its resource's, or the address of that; else its type."""
    found = getattr(part, "resource", part)
    return str(getattr(found, "text", None) or getattr(found, "uri", None) or f"[{part.type}]")
