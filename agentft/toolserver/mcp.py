"""Serves the worlds over MCP with the official SDK: streamable HTTP at `/mcp`, and stdio.

Every MCP session has its own state. The SDK is an optional dependency, imported at the first request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.types import Receive, Scope, Send

from agentft import __version__
from agentft.errors import MCP_REMEDY, MissingError
from agentft.toolserver.body import json_response
from agentft.toolset import Tool, Toolset
from agentft.types import Json

if TYPE_CHECKING:
    from mcp import types
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

__all__ = ["McpEndpoint", "RunTool", "serve_stdio"]

RunTool: TypeAlias = Callable[[str, Mapping[str, Json], str, Scope], Awaitable[tuple[int, Json]]]
"""Runs a tool: (name, arguments, session, scope of the HTTP request) -> (status, result)."""


class McpEndpoint:
    """The ASGI application at `/mcp`."""

    def __init__(self, toolsets: Sequence[Toolset], run: RunTool) -> None:
        self._toolsets, self._run = toolsets, run
        self._starting: asyncio.Task[StreamableHTTPSessionManager] | None = None
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of an MCP client."""
        if find_spec("mcp") is None:
            await json_response(501, {"error": MCP_REMEDY})(scope, receive, send)
            return
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        manager = await self._starting
        from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS

        headers: dict[bytes, bytes] = dict(scope["headers"])
        version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
        if version and version not in HANDSHAKE_PROTOCOL_VERSIONS and b"x-session" not in headers:
            # Protocol versions without a handshake have no sessions; a client that supports both falls back to it.
            error = {"error": "this protocol version has no sessions; send X-Session, or open one with `initialize`"}
            await json_response(400, error)(scope, receive, send)
            return
        await manager.handle_request(scope, receive, send)

    async def _start(self) -> StreamableHTTPSessionManager:
        server = await asyncio.to_thread(_server, self._toolsets, self._run)  # the import takes a second
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        manager = StreamableHTTPSessionManager(server, json_response=True, max_request_body_size=1 << 20)
        started = asyncio.Event()
        self._running = asyncio.create_task(_keep_running(manager, started))
        await started.wait()
        return manager


async def _keep_running(manager: StreamableHTTPSessionManager, started: asyncio.Event) -> None:
    async with manager.run():
        started.set()
        await asyncio.Event().wait()  # until the server stops, which cancels all tasks


async def serve_stdio(toolsets: Sequence[Toolset], run: RunTool) -> None:
    """Serve one client over standard input and output until it closes them.

    Raises:
        MissingError: the SDK is not installed.
    """
    if find_spec("mcp") is None:
        raise MissingError(MCP_REMEDY)
    from mcp.server.stdio import stdio_server

    server = _server(toolsets, run)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def _server(toolsets: Sequence[Toolset], run: RunTool) -> Server[Any]:
    from mcp import types
    from mcp.server.lowlevel import Server

    tools = [_tool(tool) for toolset in toolsets for tool in toolset.tools.values()]

    async def list_tools(
        _: ServerRequestContext[Any], __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def call_tool(
        context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        headers = context.request.headers if context.request is not None else {}
        session = headers.get("x-session") or f"mcp-{headers.get('mcp-session-id', 'stdio')}"
        scope = context.request.scope if context.request is not None else {}
        status, result = await run(params.name, params.arguments or {}, session[:256], scope)
        text = types.TextContent(type="text", text=json.dumps(result, ensure_ascii=False))
        structured = result if isinstance(result, dict) else None
        return types.CallToolResult(content=[text], structured_content=structured, is_error=status >= 400)

    return Server("agentft", version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


def _tool(tool: Tool) -> types.Tool:
    from mcp import types

    hints = types.ToolAnnotations(
        read_only_hint=tool.access == "read", destructive_hint=tool.access == "destructive", open_world_hint=False
    )
    is_object = tool.returns.get("type") == "object"
    return types.Tool(
        name=tool.definition.name,
        description=tool.definition.description,
        input_schema=dict(tool.definition.parameters),
        output_schema=dict(tool.returns) if is_object else None,
        annotations=hints,
    )
