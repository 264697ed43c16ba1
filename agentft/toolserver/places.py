"""The arguments of imported tools in HTTP requests: read from a request to the API's own path, or written into one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import httpx
from starlette.requests import Request
from starlette.types import Scope

from agentft.errors import ToolError
from agentft.toolserver.body import JSON_MEDIA, json_or_text, parse_body, read_body
from agentft.toolserver.limits import Limits
from agentft.toolserver.styles import join_text, plain_text, split_text, write_pairs
from agentft.toolset import Route, Tool, Toolset
from agentft.toolset.arguments import validator_of
from agentft.toolset.routes import CLIENT_HEADERS, has_dot_segment
from agentft.types import Json

__all__ = ["FORM", "PARAMETER", "PathBook", "fill_request", "own_path", "read_route_arguments"]

FORM = "application/x-www-form-urlencoded"
PARAMETER = re.compile(r"\{([^{}]+)\}")
_OUR_PATHS = re.compile(r"/(tools(/.*)?|openapi\.json|state|health|mcp)?")
_DEPTH = 20  # of an object in a query
# In these styles an object is written as a name, its value, the next name and so on; with `*`, as name=value.
_FLAT = frozenset({"form", "spaceDelimited", "pipeDelimited", "tabDelimited", "simple", "label", "matrix"})
_FLAT |= {"simple*", "label*", "matrix*"}


def own_path(toolset: Toolset, tool: Tool) -> str | None:
    """A tool's path in the imported API, or None if it has none or the server uses that path itself."""
    if tool.route is None:
        return None
    path = urlsplit(toolset.base_url).path.rstrip("/") + tool.route.path
    return None if _OUR_PATHS.fullmatch(path) or not path.startswith("/") else path


class PathBook:
    """The paths of all tools that have one, for requests with the API's own Host and with the server's."""

    def __init__(self, toolsets: Iterable[Toolset]) -> None:
        self._entries: defaultdict[int, list[tuple[list[str], list[str], str, Tool]]] = defaultdict(list)
        for toolset in toolsets:
            for tool in toolset.tools.values():
                if path := own_path(toolset, tool):
                    pieces, host = PARAMETER.split(path), urlsplit(toolset.base_url).netloc.lower()
                    entry = [*map(_escaped, pieces[::2])], pieces[1::2], host, tool
                    self._entries[path.count("/")].append(entry)
        for entries in self._entries.values():
            entries.sort(key=lambda entry: len(entry[1]))  # `/pets/mine` before `/pets/{id}`
        self._hosts = {entry[2] for entries in self._entries.values() for entry in entries}

    def find(self, scope: Scope) -> dict[str, tuple[Tool, dict[str, str]]]:
        """By method: the tool at a request's host and path, with the values of the path's parameters."""
        path = _escaped(scope.get("raw_path") or scope["path"])
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        tools: dict[str, tuple[Tool, dict[str, str]]] = {}
        for texts, names, owner, tool in self._entries.get(path.count("/"), []):
            if host in self._hosts and owner != host:
                continue
            if tool.route is not None and (found := _values(texts, path)) is not None:
                values = dict(zip(names, map(unquote, found), strict=True))
                tools.setdefault(tool.route.method.upper(), (tool, values))
        return tools


def _escaped(path: str | bytes) -> str:
    """A path, or a piece of one, percent-encoded in one spelling; what is encoded already stays so."""
    text = quote(path, safe="/%:@!$&'()*+,;=")
    return re.sub("%[0-9a-fA-F]{2}", lambda found: found[0].upper(), re.sub("%(?![0-9a-fA-F]{2})", "%25", text))


def _values(texts: Sequence[str], path: str) -> list[str] | None:
    """The values of a path's parameters, given the texts around them; None if the path does not match.

    The texts are searched from the end, so that one pass suffices whatever the template is (a regular expression
    would backtrack), and the first parameter gets as much as it can: `{name}.{ext}` reads `a.tar.gz` as a.tar and gz.
    """
    first, *between = texts
    if not between:
        return [] if path == first else None
    end = len(path) - len(between[-1])
    if not path.endswith(between[-1]):
        return None
    found: list[str] = []
    for text in reversed(between[:-1]):
        start = path.rfind(text, 0, max(end - 1, 0))
        if start < 0:
            return None
        found.append(path[start + len(text) : end])
        end = start
    found.append(path[len(first) : end])
    return found[::-1] if path.startswith(first) and all(found) else None


async def read_route_arguments(
    tool: Tool, path: Mapping[str, str], request: Request, limits: Limits
) -> dict[str, Json]:
    """The arguments of a tool from a request at its own path, converted from text to the types of its schema.

    Raises:
        ToolError: 400 if the body or the query cannot be read, 413 if the body is too large, 415 for other media types.
    """
    places = tool.route.places if tool.route else {}
    texts = {
        "path": [*path.items()],
        "query": _pairs(request.scope["query_string"]),
        "header": request.headers.items(),
        "cookie": _cookies(request.headers.getlist("cookie")),
    }
    arguments: dict[str, Json] = {}
    properties: Any = tool.definition.parameters.get("properties", {})
    whole = next((name for name, place in places.items() if place == ("body", "")), "")
    body = await read_body(request, limits)
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if body and media != "application/json" and any(kind == "form" for kind, _ in places.values()):
        if media != FORM:
            raise ToolError(f"the media type {media[:60]!r} is not read here; send a form or JSON", status=415)
        texts["form"] = _pairs(body)
    elif body and not media.endswith("json") and properties.get(whole, {}).get("type") == "string":
        arguments = {whole: body.decode(errors="replace")}
    elif body:
        arguments = _from_body(parse_body(body, limits), places)
    validator = validator_of(tool.definition.parameters)
    read: set[str] = set()
    for name, (kind, wire) in places.items():
        schema, style = properties.get(name, True), tool.route.style(name) if tool.route else ""
        wanted = wire.lower() if kind == "header" else wire
        own = validator.evolve(schema=schema)
        if members := _members(texts.get(kind, []), wanted, style, schema):
            arguments[name] = _object([(keys, text) for _, keys, text in members], own, style)
            read |= {key for key, _, _ in members} if kind == "query" else set()
        elif found := [value for key, value in texts.get(kind, []) if key == wanted]:
            arguments[name] = _typed(found, own, wire, style)
            read |= {wire} if kind == "query" else set()
    if unknown := {name for name, _ in texts["query"]} - read:
        raise ToolError(f"unknown query parameter {min(unknown)[:60]!r}", argument=min(unknown)[:60])
    return arguments


def _members(texts: Iterable[tuple[str, str]], wire: str, style: str, schema: Any) -> list[tuple[str, list[str], str]]:
    """The parameters over which an object is spread: each with its name, the keys in the object, and its text."""
    if style == "deepObject":
        deep = re.compile(rf"{re.escape(wire)}((?:\[[^\[\]]*\]){{1,{_DEPTH}}})")
        found = [(key, deep.fullmatch(key), text) for key, text in texts]
        return [(key, match[1][1:-1].split("]["), text) for key, match, text in found if match]
    if style == "form*" and isinstance(schema, dict) and schema.get("type") == "object":
        pairs, properties = list(texts), schema.get("properties", {})
        if wire in properties or all(key != wire for key, _ in pairs):
            return [(key, [key], text) for key, text in pairs if key in properties]
    return []


def _object(members: Iterable[tuple[Sequence[str], str]], validator: Any, style: str) -> dict[str, Json]:
    """An object from the keys and the text of each member; repeated keys are a list."""
    style = style if style == "deepObject" else "member"
    groups: dict[str, list[tuple[Sequence[str], str]]] = {}
    for (name, *rest), text in members:
        groups.setdefault(name, []).append((rest, text))
    made: dict[str, Json] = {}
    properties = validator.schema.get("properties", {}) if isinstance(validator.schema, dict) else {}
    for name, group in groups.items():
        own = validator.evolve(schema=properties.get(name, True))
        nested = [bool(rest) for rest, _ in group]
        if any(nested) and not all(nested):
            raise ToolError(f"{name[:60]!r} is given both as a value and as an object")
        made[name] = _object(group, own, style) if all(nested) else _typed([text for _, text in group], own, "", style)
    return made


def _pairs(text: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError as error:
        raise ToolError(f"the query or the form cannot be read: {error}") from None


def _cookies(headers: Iterable[str]) -> list[tuple[str, str]]:
    pairs = [pair.strip().partition("=") for header in headers for pair in header.split(";")]
    return [(unquote(name), unquote(value.strip('"'))) for name, _, value in pairs]


def _from_body(document: Json, places: Mapping[str, tuple[str, str]]) -> dict[str, Json]:
    """The arguments in a JSON body. Unknown names are kept, so that the argument check refuses them."""
    names = {wire: name for name, (kind, wire) in places.items() if kind in {"body", "form"}}
    if document is None or "" in names:
        return {} if document is None else {names[""]: document}
    if not isinstance(document, dict):
        raise ToolError("the body must be a JSON object")
    return {names.get(key, key): value for key, value in document.items()}


def _typed(values: Sequence[str], validator: Any, wire: str, style: str) -> Json:
    """The first reading that the schema accepts; otherwise the text, which the argument check then refuses."""
    readings = _readings(values, wire, style)
    schema, items = validator.schema, split_text(values[-1], wire, style)
    if style in _FLAT and isinstance(schema, dict) and schema.get("type") == "object":
        items = [part for item in items for part in item.partition("=")[::2]] if style.endswith("*") else items
        members = [([name], text) for name, text in zip(items[::2], items[1::2], strict=False)]
        readings += [_object(members, validator, style)] if len(items) % 2 == 0 else []
    for reading in readings:
        try:
            if validator.is_valid(reading):
                return reading
        except RecursionError:
            break
    return [*map(_parsed, values)] if len(values) > 1 else values[-1]


def _readings(values: Sequence[str], wire: str, style: str) -> list[Json]:
    """What the values of one parameter can mean, the likeliest first."""
    text, whole = values[-1], _parsed(values[-1])
    if len(values) > 1:
        return [[*values], [*map(_parsed, values)], text, whole]
    items = split_text(text, wire, style)
    single: list[Json] = [[text], [whole]]  # one item, which may contain a comma
    lists: list[Json] = [[*items], [*map(_parsed, items)]]
    match style:
        case "json":
            return [whole, text, *lists]
        case "member":  # of an object whose members are scalars, or JSON
            return [text, whole, *lists]
        case "form*" | "deepObject":
            return [text, single[0], whole, single[1], *lists]
    return [text, lists[0], whole, lists[1]]


def _parsed(text: str) -> Json:
    return json_or_text(text.encode(errors="replace")) if text else None


def fill_request(base: str, route: Route, arguments: Mapping[str, Json]) -> dict[str, Any]:
    """The httpx request to the service at `base`, with each argument in its place (by default the body) and its style.

    Raises:
        ToolError: 422 if a path parameter is missing or would leave the route, or if the URL would not be below `base`.
    """
    sent: defaultdict[str, dict[str, tuple[Json, str]]] = defaultdict(dict)
    for argument, value in arguments.items():
        place, name = route.places.get(argument, ("body", argument))
        sent[place][name] = value, route.style(argument)
    texts = PARAMETER.split(route.path)
    for index, name in enumerate(texts[1::2]):
        value, style = sent["path"].get(name, ("", "simple"))
        text = texts[2 * index + 1] = join_text(name, value, style, escaped=True)
        if not text.strip(".") or has_dot_segment("".join(texts[: 2 * index + 3])):
            why = "it is empty, or a server that decodes it may find `.` or `..` there and leave the path"
            raise ToolError(f"argument {name!r} cannot stand in a path: {why}", status=422, argument=name)
    texts[::2] = map(_escaped, texts[::2])
    headers = {
        name: join_text(name, value, style, escaped=False)
        for name, (value, style) in sent["header"].items()
        if name.lower() not in CLIENT_HEADERS
    }
    if sent["cookie"]:
        headers["Cookie"] = "; ".join(f"{name}={text}" for name, text in _written(sent["cookie"]))
    query = "&".join(f"{name}={text}" for name, text in _written(sent["query"]))
    url = _below(base, "".join(texts), query)
    return {"url": url, **_content(route, sent["form"], sent["body"], headers)}


def _content(
    route: Route, form: Mapping[str, tuple[Json, str]], sent: Mapping[str, tuple[Json, str]], headers: Mapping[str, str]
) -> dict[str, Any]:
    """The body of a request in its media type, and the headers."""
    if "" in form and isinstance(whole := form[""][0], dict):
        form = {name: (value, "form*") for name, value in whole.items()}
    if form and route.media.startswith("multipart/"):
        return {
            "files": [part for name, (value, style) in form.items() for part in _parts(name, value, style)],
            "headers": headers,
        }
    if form:
        content = "&".join(f"{name}={text}" for name, text in _written(form)).encode()
        return {"content": content, "headers": {**headers, "Content-Type": FORM}}
    body = sent[""][0] if "" in sent else {name: value for name, (value, _) in sent.items()}
    takes = any(kind == "body" and name for kind, name in route.places.values()) or (route.media and not route.places)
    if body == {} and not sent and not (takes and route.method in {"POST", "PUT", "PATCH"}):
        return {"headers": headers}
    media = route.media or JSON_MEDIA
    if isinstance(body, str) and not media.endswith(("/json", "+json")):
        return {"content": body.encode(), "headers": {**headers, "Content-Type": media}}
    return {"json": body, "headers": {**headers, "Content-Type": media}}


def _written(sent: Mapping[str, tuple[Json, str]]) -> list[tuple[str, str]]:
    return [pair for name, (value, style) in sent.items() for pair in write_pairs(name, value, style)]


def _parts(name: str, value: Json, style: str) -> list[tuple[str, tuple[Any, ...]]]:
    """The parts of one field of a multipart form: a file, JSON for an object, one part for each item of a list."""
    items = value if isinstance(value, list) and style != "json" else [value]
    if style == "binary":
        return [(name, (name, plain_text(item).encode(), "application/octet-stream")) for item in items]
    return [
        (name, (None, plain_text(item), JSON_MEDIA) if isinstance(item, dict | list) else (None, plain_text(item)))
        for item in items
    ]


def _below(base: str, path: str, query: str) -> httpx.URL:
    """The URL of `path` below `base`; the scheme, the host and the port are those of `base`, whatever the path says."""
    root = httpx.URL(base)
    prefix = root.raw_path.rstrip(b"/")
    url = root.copy_with(raw_path=prefix + path.encode() + (f"?{query}".encode() if query else b""))
    origins = [(each.scheme, each.raw_host, each.port, each.userinfo) for each in (root, url)]
    stays = origins[0] == origins[1] and url.raw_path.startswith(prefix + b"/")
    if not stays or url.query != query.encode() or url.fragment:
        raise ToolError(f"the path {path!r:.100} does not stay below {base}; nothing was sent", status=422)
    return url
