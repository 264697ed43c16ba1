"""Sends the calls of a chat to the MCP server that its tools were imported from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from typing import Any

from agentft.errors import InputError
from agentft.imports.mcp import connect
from agentft.redaction import redacted_command
from agentft.toolserver.recording import Recorded
from agentft.toolset import Toolset
from agentft.types import Json

__all__ = ["MCP_SECONDS", "McpService"]

MCP_SECONDS = 28.0
"""How long the server may take for a call."""


class McpService:
    """A source of responses (`agentft.toolserver.Source`): the tools that the server lists; others are mock tools.

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
        tools = {name: tool for toolset in toolsets for name, tool in toolset.tools.items()}
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            opened = self._portal.wrap_async_context_manager(connect(server, environment))
            self._client, listed, _ = stack.enter_context(opened)
            names = {tool.get("name") for tool in listed if isinstance(tool, dict)}
            self._tools = {name: tool for name, tool in tools.items() if tool.operation in names}
            if not self._tools:
                raise InputError(f"{self.digest} lists none of these tools; run `agentft tools import mcp` again")
            self._open = stack.pop_all()

    def __call__(self, tool: str, arguments: Mapping[str, Json], session: str) -> Recorded | None:  # noqa: ARG002
        """The server's result, or why there is none.

        Raises:
            ToolError: an argument is refused; nothing is sent.
        """
        from anyio import ClosedResourceError
        from mcp import MCPError

        if (known := self._tools.get(tool)) is None:
            return None
        checked = dict(known.check(arguments))
        try:
            made = self._portal.call(self._client.call_tool, known.operation, checked, MCP_SECONDS)
        except (MCPError, ClosedResourceError, OSError, RuntimeError, ValueError) as error:
            why = f"the MCP server gives no result: {error or type(error).__name__}"
            why += "; if it was restarted, start the chat again with --resume" * ("close" in why or "termin" in why)
            return Recorded(tool, checked, 502, {"error": why})
        text = "\n".join(map(_text, made.content))
        body = {"error": text or made.structured_content} if made.is_error else made.structured_content
        kind = ("text/plain", text) if body is None else ("application/json", body)
        return Recorded(tool, checked, 422 if made.is_error else 200, kind[1], kind[0])

    def close(self) -> None:
        """Stop the server, or leave it. One that is gone is left without an error."""
        with suppress(CancelledError, InputError):
            self._open.close()


def _text(part: Any) -> str:
    """What a part of a result says: its text or its resource's, or the address of that; else its type."""
    found = getattr(part, "resource", part)
    return str(getattr(found, "text", None) or getattr(found, "uri", None) or f"[{part.type}]")
