"""Imports the tools of an MCP server from its list of tools, without calling any."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.util import find_spec
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, cast

from agentft.errors import MCP_REMEDY, InputError, MissingError
from agentft.imports.documents import TIMEOUT, is_url
from agentft.imports.world import ImportedWorld, ImportNote, default_base_url
from agentft.redaction import is_secret_argument, redacted, redacted_command
from agentft.toolset.arguments import INERT, ArgumentCheck
from agentft.toolset.sampling import draw
from agentft.toolset.schemas import expand, plain_line
from agentft.types import Json, ToolDefinition

if TYPE_CHECKING:
    from mcp import Client
    from mcp.client import Transport

__all__ = ["connect", "import_mcp", "list_tools", "reason_of", "without_credentials"]

_PAGE_LIMIT = 100
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_ANSWER_LIMIT = 16 << 20  # bytes of one answer over HTTP
_LOG_LIMIT = 1 << 16  # bytes of a server's log that are kept
_ERROR = re.compile(r"err(or|!)(:| code )", re.IGNORECASE)  # "ValueError: no key", "npm error code E404"


def import_mcp(server: str, world: str, environment: Sequence[str] = ()) -> ImportedWorld:
    """Import every tool that an MCP server lists; tools that cannot be used are refused with the reason.

    Args:
        server: the command that starts the server, or its http(s) URL. The command runs without a shell.
        world: the world's name, for its base URL.
        environment: `NAME` or `NAME=VALUE` of each environment variable that the command gets.

    Raises:
        InputError: the server lists no tool that can be imported, or `environment` is given with a URL.
        MissingError: the MCP SDK is not installed.
    """
    imported = ImportedWorld(default_base_url(world))
    names: set[str] = set()
    listed, complete = asyncio.run(list_tools(server, environment))
    if not complete:
        why = f"more than {_PAGE_LIMIT} pages of tools; the rest is left out"
        imported.adapted.append(ImportNote("tools/list", why))
    for index, tool in enumerate(cast(list[Json], without_credentials(listed, server, environment))):
        name = tool.get("name") if isinstance(tool, dict) else None
        known = isinstance(name, str) and bool(name)
        try:
            if not isinstance(tool, dict) or not known or name in names:
                raise InputError("a tool must be an object with a `name` that no other tool has")
            names.add(str(name))
            _add(imported, str(name), tool)
        except InputError as error:
            imported.refused.append(ImportNote(str(name) if known else f"tools/{index}", str(error)))
    return imported.require_tools(redacted_command(server))


def _add(imported: ImportedWorld, name: str, tool: dict[str, Any]) -> None:
    schema, returns, hints = tool.get("inputSchema"), tool.get("outputSchema") or {}, tool.get("annotations")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise InputError('its inputSchema must be a JSON Schema whose `type` is "object"')
    if not isinstance(returns, dict):
        raise InputError("its outputSchema must be a JSON Schema")
    changed: set[str] = set()
    schema, returns = _modernised(schema, changed), _modernised(returns, changed)
    if changed:
        imported.adapted.append(ImportNote(name, f"now as in JSON Schema 2020-12: {', '.join(sorted(changed))}"))
    hints = hints if isinstance(hints, dict) else {}
    changes = "destructive" if hints.get("destructiveHint") is True else "write"
    for part in (schema, returns):
        ArgumentCheck(ToolDefinition(name, "", part))
        expand(part)
    texts = [text for text in (tool.get("description"), tool.get("title")) if isinstance(text, str) and text.strip()]
    entry: dict[str, Json] = {
        "description": texts[0] if texts else name,
        "access": "read" if hints.get("readOnlyHint") is True else changes,
        "parameters": schema,
        "returns": returns,
        "operation": name,
    }
    example = draw(expand(schema), name, whole=schema, sparse=True, formats=True)
    imported.add(name, name, entry, example=example)


def _modernised(schema: Any, changed: set[str]) -> Any:
    """A schema of draft 3, 4, 6 or 7 in keywords of 2020-12, without nulls; what was replaced is added to `changed`.

    These are `exclusiveMinimum: true` and `exclusiveMaximum: true`, `items` as a list with `additionalItems`,
    `dependencies`, an `$id` that is an anchor, and `required: true` in a property. A schema without them stays equal.
    """
    if isinstance(schema, list):
        return [_modernised(item, changed) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key in INERT or not _is_empty(key, value)}
    changed |= schema.keys() - kept.keys()
    made: dict[str, Any] = {}
    for key, value in kept.items():
        if key in _NAMED and isinstance(value, dict):
            made[key] = {name: _modernised(inner, changed) for name, inner in value.items()}
        else:
            made[key] = value if key in INERT else _modernised(value, changed)
    _rename(made, changed)
    named = kept["properties"].items() if isinstance(kept.get("properties"), dict) else ()
    needed = [name for name, inner in named if isinstance(inner, dict) and inner.get("required") is True]
    if needed and isinstance(made.setdefault("required", []), list):
        made["required"] += [name for name in needed if name not in made["required"]]
    return made


def _is_empty(key: str, value: Json) -> bool:
    """Whether a keyword says nothing: null, PHP's empty `properties`, or draft 3's `required`, said by the parent."""
    return value is None or (key in _NAMED and value == []) or (key == "required" and isinstance(value, bool))


def _rename(made: dict[str, Any], changed: set[str]) -> None:
    """Replace the keywords of older drafts in one schema."""
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if isinstance(made.get(exclusive), bool):
            changed.add(exclusive)
            if made.pop(exclusive) and bound in made:
                made[exclusive] = made.pop(bound)
    if str(made.get("$id"))[:1] == "#" and len(made["$id"]) > 1:
        changed.add("$id")
        made["$anchor"] = made.pop("$id")[1:]
    if isinstance(made.get("$ref"), str):  # zod-to-json-schema refers to the items of other tuples
        made["$ref"] = re.sub(r"/items(?=/\d+(/|$))", "/prefixItems", made["$ref"])
    if isinstance(made.get("items"), list):
        changed.add("items")
        made["prefixItems"] = made.pop("items")
        if "additionalItems" in made:
            made["items"] = made.pop("additionalItems")
    if isinstance(needed := made.get("dependencies"), dict):
        changed.add("dependencies")
        for key, kind in (("dependentRequired", list), ("dependentSchemas", dict | bool)):
            found = {name: value for name, value in needed.items() if isinstance(value, kind)}
            made |= {key: made.get(key, {}) | found} if found else {}
        del made["dependencies"]


async def list_tools(server: str, environment: Sequence[str] = ()) -> tuple[list[Json], bool]:
    """The tools that an MCP server lists, as `connect` yields them."""
    async with connect(server, environment) as (_, tools, complete):
        return tools, complete


@asynccontextmanager
async def connect(
    server: str, environment: Sequence[str] = (), expired: Event | None = None
) -> AsyncIterator[tuple[Client, list[Json], bool]]:
    """A client of an MCP server; the tools that it lists, up to 100 pages, as it wrote them; whether these are all.

    `expired` is set when a server at a URL refuses a message because it has ended the session.

    Raises:
        InputError: there is no list within 30 seconds, `server` is not a command, or `environment` is given with a URL.
        MissingError: the MCP SDK is not installed.
    """
    if find_spec("mcp") is None:
        raise MissingError(MCP_REMEDY)
    import anyio
    from mcp import Client, MCPError

    # Else the SDK would write on the terminal, such as a traceback for a line of the server that is not JSON.
    for name in ("mcp", "client"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    tools: list[Json] = []
    cursor: str | None = None
    log = _Log()
    with log.stream:
        try:
            with anyio.fail_after(TIMEOUT) as scope:
                streams = _keeping_tools(_transport(server, environment, log, expired or Event()), tools)
                async with Client(streams, mode="legacy") as client:
                    page: list[Json] | None = None
                    for _ in range(_PAGE_LIMIT):
                        known = len(tools)
                        cursor = (await client.list_tools(cursor=cursor)).next_cursor
                        if tools[known:] == page:  # some servers repeat their last page without an end
                            del tools[known:]
                            cursor = None
                        if cursor is None:
                            break
                        page = tools[known:]
                    scope.deadline = math.inf
                    yield client, tools, cursor is None
        # The SDK's dependencies raise other exceptions in groups; a ValueError is pydantic's.
        except (OSError, MCPError, ValueError, ExceptionGroup) as error:
            first: Exception = error
            while isinstance(first, ExceptionGroup):
                first = first.exceptions[0]
            why = f"no answer within {TIMEOUT} seconds" if isinstance(first, TimeoutError) else reason_of(first)
            texts = (without_credentials(text, server, environment, strict=True) for text in (why, log.end()))
            why, said = (plain_line(redacted(text)) for text in texts)  # redacted first: half a credential is not known
            why += f" (it wrote: {said})" if said else ""
            remedy = "" if is_url(server) else "; if it needs environment variables, pass each with --env NAME"
            raise InputError(f"{redacted_command(server)}: no tool list: {why}{remedy}") from None


def reason_of(error: Exception) -> str:
    """Why a server gave no answer; not what pydantic says of its messages."""
    if isinstance(error, ValueError) or str(error).startswith("Failed to parse "):
        return "its answers do not follow the protocol"
    return str(error) or type(error).__name__


def without_credentials(value: Json, server: str, environment: Sequence[str], *, strict: bool = False) -> Json:
    """What a server wrote, without the credentials in its command and in variables; `strict`: in any of these."""
    shown, text = redacted_command(server), json.dumps(value)
    parts = [part for part in re.split(r"[\s=\"',:]+", server) if part not in shown]
    parts += [value for name, value in _variables(environment).items() if strict or is_secret_argument(name)]
    for part in parts:
        text = text.replace(json.dumps(part)[1:-1], "[redacted]") if len(part) > 3 else text
    return cast(Json, json.loads(text))


class _Log:
    """The end of what a server logs in `stream`: any text, at any time, which must reach neither terminal nor disk."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self.stream = os.fdopen(writing, "w")
        self._said = b""
        self._thread = Thread(target=self._keep, args=(reading,), daemon=True)
        self._thread.start()

    def _keep(self, reading: int) -> None:
        while chunk := os.read(reading, _LOG_LIMIT):
            self._said = (self._said + chunk)[-_LOG_LIMIT:]
        os.close(reading)

    def end(self) -> str:
        """The log from its last error on, else its last line."""
        self.stream.close()
        self._thread.join(1)  # a process that outlives the server may hold the other end
        lines = self._said.decode(errors="replace").strip().split("\n")
        return "\n".join(lines[max((at for at, line in enumerate(lines) if _ERROR.search(line)), default=-1) :])


@asynccontextmanager
async def _keeping_tools(transport: AbstractAsyncContextManager[Any], tools: list[Json]) -> AsyncIterator[Any]:
    """The transport, with the tools moved from each tool list to `tools`.

    The SDK would refuse a whole list for one tool that is not valid.
    """
    import anyio

    async def forward(incoming: Any, send: Any) -> None:
        with suppress(anyio.BrokenResourceError):
            async with send:
                async for message in incoming:
                    result = getattr(getattr(message, "message", None), "result", None)
                    if isinstance(result, dict) and "tools" in result:
                        listed, result["tools"] = result["tools"], []
                        tools.extend(listed if isinstance(listed, list) else [listed])
                    await send.send(message)

    async with transport as (incoming, outgoing), anyio.create_task_group() as group:
        send, receive = anyio.create_memory_object_stream[Any](0)
        group.start_soon(forward, incoming, send)
        async with receive:
            yield receive, outgoing
        group.cancel_scope.cancel()


def _transport(server: str, environment: Sequence[str], log: _Log, expired: Event) -> Transport:
    from mcp import StdioServerParameters, stdio_client

    if is_url(server):
        if environment:
            raise InputError(f"{redacted_command(server)}: --env sets variables of a command, not of a URL; omit --env")
        return _over_http(server, expired)
    try:
        command, *rest = shlex.split(server) or [""]
    except ValueError as error:
        raise InputError(f"{redacted_command(server)}: cannot be parsed as a command: {error}") from None
    if not command:
        raise InputError("the command is empty; give the command that starts the MCP server, or its URL")
    parameters = StdioServerParameters(command=command, args=rest, env=_variables(environment))
    return stdio_client(parameters, errlog=log.stream)


@asynccontextmanager
async def _over_http(url: str, expired: Event) -> AsyncIterator[Any]:
    """The SDK's transport, but compressed answers, which could become of any size, and large ones are refused."""
    import httpx2  # the SDK's
    from mcp.client.streamable_http import streamable_http_client

    class Bounded(httpx2.AsyncByteStream):
        def __init__(self, stream: httpx2.AsyncByteStream) -> None:
            self._stream, self.aclose = stream, stream.aclose  # type: ignore[method-assign]

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self._stream:
                if (size := size + len(chunk)) > _ANSWER_LIMIT:
                    raise httpx2.ReadError(f"the server's answer is larger than {_ANSWER_LIMIT >> 20} MiB")
                yield chunk

    async def look(response: Any) -> None:
        if response.status_code == 401:
            remedy = "give a command that signs in instead of the URL"
            raise httpx2.DecodingError(f"the server answers 401: it wants a login, and agentft has none; {remedy}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.DecodingError("the server compresses its answers, though none may be compressed")
        response.stream = Bounded(response.stream)
        # The specification's status is 404; many servers send a 400 that speaks of the session.
        if response.request.method == "POST" and "mcp-session-id" in response.request.headers:
            named = response.status_code == 400 and b"session" in (await response.aread()).lower()
            expired.set() if named or response.status_code == 404 else None

    plain, patience = {"Accept-Encoding": "identity"}, httpx2.Timeout(TIMEOUT, read=300)
    http = httpx2.AsyncClient(headers=plain, timeout=patience, event_hooks={"response": [look]})
    async with http, streamable_http_client(url, http_client=http) as streams:
        yield streams


def _variables(environment: Sequence[str]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for item in environment:
        name, given, value = item.partition("=")
        if not name or (not given and name not in os.environ):
            raise InputError(f"--env {name}: the variable is not set; set it, or write --env NAME=VALUE")
        variables[name] = value if given else os.environ[name]
    return variables
