"""The own paths and methods of an imported API: which tool a request means, and its arguments from all their places."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from starlette.requests import Request
from starlette.types import Scope

from agentft.errors import ToolError
from agentft.toolserver.body import parse_json, read_body
from agentft.toolserver.limits import Limits
from agentft.toolset import Tool, Toolset
from agentft.types import Json

__all__ = ["PARAMETER", "Found", "PathBook", "own_path", "read_own_arguments"]

_OURS = re.compile(r"/(tools(/.*)?|openapi\.json|state|health|mcp)?")
PARAMETER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at a path: the tools by method, each with the values of its path's parameters."""

    tools: Mapping[str, tuple[Tool, Mapping[str, str]]]


def own_path(toolset: Toolset, tool: Tool) -> str | None:
    """The path of a tool of an imported API on this server; None if it has none, or a face of ours stands there."""
    if tool.route is None:
        return None
    path = urlsplit(toolset.base_url).path.rstrip("/") + tool.route.path
    return None if _OURS.fullmatch(path) or not path.startswith("/") else path


class PathBook:
    """The paths of all tools that have one. They are found under the API's own Host, and under the server's."""

    def __init__(self, toolsets: Iterable[Toolset]) -> None:
        self._entries: dict[int, list[tuple[re.Pattern[str], list[str], str, Tool]]] = {}  # by the number of slashes
        for toolset in toolsets:
            for tool in toolset.tools.values():
                if tool.route is not None and (path := own_path(toolset, tool)):
                    entry = (_pattern(path), PARAMETER.findall(path), urlsplit(toolset.base_url).netloc.lower(), tool)
                    self._entries.setdefault(path.count("/"), []).append(entry)
        for entries in self._entries.values():
            entries.sort(key=lambda entry: len(entry[1]))  # `/pets/mine` before `/pets/{id}`
        self._hosts = {entry[2] for entries in self._entries.values() for entry in entries}

    def find(self, scope: Scope) -> Found | None:
        """What stands at a request's host and path, if anything."""
        path: str = scope.get("raw_path", b"").decode("latin-1") or scope["path"]
        tools: dict[str, tuple[Tool, Mapping[str, str]]] = {}
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        for pattern, names, owner, tool in self._entries.get(path.count("/"), []):
            if host in self._hosts and owner != host:
                continue
            if tool.route is not None and (match := pattern.fullmatch(path)):
                values = dict(zip(names, map(unquote, match.groups()), strict=True))
                tools.setdefault(tool.route.method.upper(), (tool, values))
        return Found(tools) if tools else None


def _pattern(path: str) -> re.Pattern[str]:
    pieces = PARAMETER.split(path)
    return re.compile("".join(re.escape(piece) if index % 2 == 0 else "([^/]+)" for index, piece in enumerate(pieces)))


async def read_own_arguments(request: Request, tool: Tool, path: Mapping[str, str], limits: Limits) -> dict[str, Json]:
    """The arguments of a tool from a request at its own path: text becomes what the tool's schema asks for.

    Raises:
        ToolError: 400 for a body or a query that cannot be read, 413 for too large a body, 415 for another media type.
    """
    places = tool.route.places if tool.route else {}
    wires = {place: {wire for kind, wire in places.values() if kind == place} for place in ("query", "body", "form")}
    form: list[tuple[str, str]] = []
    document: Json = None
    body = await read_body(request, limits)
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if body and wires["form"] and media != "application/json":
        if media != "application/x-www-form-urlencoded":
            raise ToolError(f"the media type {media[:60]!r} is not read here; send a form or JSON", status=415)
        form = _pairs(body)
    elif body:
        document = parse_json(body, limits)
    query = _pairs(request.scope["query_string"])
    if strangers := {name for name, _ in query} - wires["query"]:
        raise ToolError(f"unknown query parameter {min(strangers)[:60]!r}", argument=min(strangers)[:60])
    texts = {
        "path": list(path.items()),
        "query": query,
        "header": request.headers.items(),
        "cookie": _cookies(request),
        "form": form,
    }
    arguments = _from_body(document, places)
    properties: Any = tool.definition.parameters.get("properties", {})
    for name, (kind, wire) in places.items():
        wanted = wire.lower() if kind == "header" else wire
        values = [value for key, value in texts.get(kind, []) if key == wanted]
        if values:
            arguments[name] = _typed(values, _resolved(properties.get(name), tool.definition.parameters))
    return arguments


def _pairs(text: bytes) -> list[tuple[str, str]]:
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError as error:
        raise ToolError(f"the query or the form cannot be read: {error}") from None
    return pairs


def _cookies(request: Request) -> list[tuple[str, str]]:
    try:
        return [(name, morsel.value) for name, morsel in SimpleCookie(request.headers.get("cookie", "")).items()]
    except CookieError:
        return []


def _from_body(document: Json, places: Mapping[str, tuple[str, str]]) -> dict[str, Json]:
    """The arguments that stand in a JSON body; names that no argument has stay, for the check to refuse."""
    whole = next((name for name, place in places.items() if place == ("body", "")), None)
    if document is None or whole is not None:
        return {} if document is None else {str(whole): document}
    if not isinstance(document, dict):
        raise ToolError("the body must be a JSON object")
    names = {wire: name for name, (kind, wire) in places.items() if kind in {"body", "form"}}
    return {names.get(key, key): value for key, value in document.items()}


def _resolved(schema: Any, root: Mapping[str, Json]) -> dict[str, Any]:
    found = schema
    for _ in range(8):
        if not isinstance(found, dict) or not str(found.get("$ref", "")).startswith("#/"):
            break
        target: Any = root
        for part in found["$ref"][2:].split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, dict) else {}
        found = target
    return found if isinstance(found, dict) else {}


def _typed(values: Sequence[str], schema: Mapping[str, Any]) -> Json:
    """Text as its schema wants it; where it does not fit it stays text, and the check says what is wrong."""
    kinds = {schema.get("type")} if isinstance(schema.get("type"), str) else set(schema.get("type") or ())
    if "array" in kinds:
        items = values if len(values) > 1 else values[0].split(",")
        inner = schema.get("items")
        return [_typed([item], inner if isinstance(inner, dict) else {}) for item in items]
    text = values[-1]
    for known in schema.get("enum") or ():
        if known == text or (not isinstance(known, str) and json.dumps(known) == text):
            return known  # type: ignore[no-any-return]
    if "integer" in kinds and re.fullmatch(r"-?\d{1,30}", text):
        return int(text)
    if "number" in kinds and re.fullmatch(r"-?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,2})?", text):
        return float(text)
    if "boolean" in kinds and text in {"true", "false"}:
        return text == "true"
    if "object" in kinds and text.startswith("{"):
        return parse_json(text.encode(), Limits())
    return None if "null" in kinds and text in {"", "null"} else text
