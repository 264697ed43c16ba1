"""Imports recorded traffic (JSONL of exchanges, or a HAR file); recorded calls get their recorded answers."""

from __future__ import annotations

import base64
import binascii
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus, urlencode, urlsplit

from agentft.errors import InputError
from agentft.imports.world import ACCESS, ArgumentTable, ImportedWorld, ImportNote, default_base_url
from agentft.json_text import json_pointer, parse_json
from agentft.redaction import is_secret_argument, redacted, redacted_path
from agentft.strict import read_json_line
from agentft.toolset.arguments import TYPES
from agentft.toolset.routes import check_route
from agentft.toolset.schemas import Schema
from agentft.toolset.state import digest
from agentft.types import Json

__all__ = ["import_traffic", "infer"]

_FORM = "application/x-www-form-urlencoded"
_BINARY = re.compile(r"[\0-\x08\x0e-\x1a\udc80-\udcff]")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})", re.ASCII)
_KNOWN_LENGTH = 8  # characters of a secret that is searched for in the rest of its exchange
_PATH_PARAMETER = re.compile(r"\d+|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-f]{16,}|[0-9A-F]{16,}")
_KINDS: dict[type, tuple[str, ...]] = {int: ("integer", "number"), float: ("integer", "number")}
_KINDS |= {str: ("string",), bool: ("boolean",), list: ("array",), dict: ("object",), type(None): ("null",)}


@dataclass
class _Tool:
    """One tool: its partial entry in `tools.json`, and its calls (arguments, status, answer) by arguments' digest.

    `lists`: the arguments that a call repeats, so that they are lists in every call.
    """

    entry: dict[str, Json]
    arguments: ArgumentTable = field(default_factory=ArgumentTable)
    calls: dict[str, tuple[dict[str, Json], int, Json]] = field(default_factory=dict)
    lists: set[str] = field(default_factory=set)


def import_traffic(content: bytes, place: str, world: str) -> ImportedWorld:
    """Import each tool or route that was called, with its recorded answers and a schema inferred from its calls.

    A line is `{"tool", "arguments", "status", "body"}`, or `{"method", "url", "request", "status", "response"}`.
    Headers and arguments whose names suggest a secret are dropped; other secrets, in paths too, are replaced by
    `[redacted]`.

    Raises:
        InputError: there is no exchange in it.
    """
    imported = ImportedWorld(default_base_url(world))
    rows: list[tuple[str, dict[str, Any]]] = []
    for at, raw in _exchanges(content, place):
        try:
            rows.append((at, read_json_line(raw, "the line") if isinstance(raw, bytes) else _har(raw)))
        except InputError as error:
            imported.refused.append(ImportNote(at, str(error)))
    if origins := Counter(filter(None, (_origin(row.get("url")) for _, row in rows))):
        imported.base_url = origins.most_common(1)[0][0]
    tools: dict[str, _Tool] = {}
    for at, row in rows:
        try:
            if _add_call(row, imported.base_url, tools):
                imported.adapted.append(ImportNote(at, "a repeated call; the first recorded answer is used"))
        except (InputError, ValueError) as error:
            imported.refused.append(ImportNote(at, str(error)))
    for name, tool in tools.items():
        _add_tool(imported, name, tool)
    return imported.require_tools(place)


def _exchanges(content: bytes, place: str) -> list[tuple[str, Any]]:
    """The HAR entries, or the lines as bytes, each with its place."""
    try:
        document: Any = parse_json(content.decode("utf-8-sig"))
        entries = document["log"]["entries"]
    except (ValueError, LookupError, TypeError):
        lines = content.removeprefix(BOM_UTF8).splitlines()
        return [(f"{place}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    listed = entries if isinstance(entries, list) else []
    return [(f"#{json_pointer('log', 'entries', index)}", entry) for index, entry in enumerate(listed)]


def _har(entry: Any) -> dict[str, Any]:
    try:
        request, response, status = entry["request"], entry["response"], entry["response"]["status"]
        if request["method"] == "OPTIONS" or status in {301, 302, 303, 307, 308}:
            raise InputError("a redirect, or a browser's own request (OPTIONS), is no answer to a call")
        post, content = request.get("postData") or {}, response.get("content") or {}
        media = str(post.get("mimeType") or "").partition(";")[0].strip().lower()
        fields = post.get("params") or []
        if any("fileName" in field for field in fields):
            raise InputError("its form uploads a file, which a recording does not hold; import the API's description")
        form = [(field["name"], field.get("value") or "") for field in fields]
        if not form and media.startswith("multipart/") and post.get("text"):
            raise InputError("its multipart form was saved as text; export the file with the parameters of forms")
        sent = _text(post, "request")
        if not form and media == _FORM:
            form = parse_qsl(sent or "", keep_blank_values=True)
        url = request["url"]
        known = {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
        query = [(pair["name"], pair["value"]) for pair in request.get("queryString") or []]
        if more := [
            pair for pair in query if unquote_plus(pair[0]) not in known
        ]:  # not in the URL of files by programs
            url += f"{'&' if known else '?'}{urlencode(more)}"
        row = {"method": request["method"], "url": url, "request": None if form else _body(sent)}
        row |= {"form": form, "media": media if media not in {_FORM, "application/json"} else ""}
        if not content.get("text") and (content.get("size", 0) > 0 or status == 304):
            raise InputError("the response's body was not saved; export the file with the content of responses")
        # With a 304, the browser got the answer from its cache.
        return row | {"status": 200 if status == 304 else status, "response": _body(_text(content, "response"))}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not a HAR entry: {error!r:.100}") from None


def _text(content: Mapping[str, Any], what: str) -> str | None:
    """The text of a body. Some programs save binary bodies as text, or text as it is in spite of `encoding`."""
    text = content.get("text")
    if content.get("encoding") == "base64":
        with suppress(binascii.Error):
            text = base64.b64decode(text or "", validate=True).decode(errors="surrogateescape")
    if text and _BINARY.search(text):
        raise InputError(f"its {what} is {str(content.get('mimeType'))[:60]}, which is not text")
    return text


def _body(text: str | None) -> Json:
    """A body's JSON value, or its text if it is not JSON."""
    try:
        read: Json = parse_json(text.removeprefix("\ufeff")) if text else None
    except ValueError:
        return text
    return read


def _origin(url: Any) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2].lower().removesuffix({"http": ":80", "https": ":443"}.get(parts.scheme, ":"))
    return f"{parts.scheme}://{host}" if parts.scheme in {"http", "https"} and host else ""


def _add_call(row: Mapping[str, Any], base_url: str, tools: dict[str, _Tool]) -> bool:
    """Add an exchange to its tool, and return whether it repeats an earlier call."""
    status, request = row.get("status"), row.get("arguments", row.get("request"))
    if not TYPES["integer"](status) or not 100 <= int(row["status"]) <= 599:
        raise InputError(f"`status` must be an HTTP status, not {status!r:.40}")
    plain = request is None or isinstance(request, dict)
    sent = [("body", name, value) for name, value in (request or {}).items()] if plain else [("body", "", request)]
    name, method = row.get("tool"), row.get("method")
    if isinstance(name, str):
        entry: dict[str, Json] = {"description": f"Recorded: {name}", "access": row.get("access", "write")}
        if not plain or entry["access"] not in {"read", "write", "destructive"}:
            raise InputError("`arguments` must be an object, and `access` read, write or destructive")
    elif isinstance(method, str) and _origin(row.get("url")) == base_url:
        path, addressed = _address(row["url"])
        check_route(method.upper(), path)
        form: Any = row.get("form") or ()
        name, sent = f"{method.lower()} {path}", [*addressed, *sent, *_grouped("form", form)]
        entry = {"description": f"Recorded: {method.upper()} {path}", "access": ACCESS.get(method.lower(), "write")}
        entry["route"] = {"method": method.upper(), "path": path, "media": str(row.get("media") or "")}
    else:
        raise InputError(f"an exchange must have `tool`, or `method` and a `url` at {base_url}")
    tool = tools.get(name) or _Tool(entry)
    tool.arguments.require_room((where, wire) for where, wire, _ in sent)
    tools[name] = tool
    arguments: dict[str, Json] = {}
    left_out = [value for _, wire, value in sent if is_secret_argument(wire)]
    known = [value for value in left_out if isinstance(value, str) and len(value) >= _KNOWN_LENGTH]
    for where, wire, value in sent:
        if not is_secret_argument(wire):
            tool.arguments.add({}, where, wire, required=False)
            argument = tool.arguments.name(where, wire)
            arguments[argument] = redacted(value, known)
            tool.lists |= {argument} if where in {"query", "form"} and isinstance(value, list) else set()
    call = (arguments, int(row["status"]), redacted(row.get("body", row.get("response")), known))
    return tool.calls.setdefault(digest(arguments), call) is not call


def _address(url: str) -> tuple[str, list[tuple[str, str, Json]]]:
    """A URL's path as a template, with numbers and ids as parameters, and the arguments in its path and query.

    A long hexadecimal number is an id (an ObjectId, a digest, a UUID without dashes), though it could be a key.
    """
    parts = urlsplit(url)
    sent: list[tuple[str, str, Json]] = []
    segments = parts.path.split("/")
    for index, segment in enumerate(segments):
        if _PATH_PARAMETER.fullmatch(segment):
            name = f"id_{len(sent) + 1}" if sent else "id"
            sent.append(("path", name, _number_or_text(unquote(segment))))
            segments[index] = f"{{{name}}}"
        else:
            segments[index] = redacted_path(segment)
    return "/".join(segments) or "/", [*sent, *_grouped("query", parse_qsl(parts.query, keep_blank_values=True))]


def _grouped(place: str, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str, Json]]:
    """The arguments of a query or a form; the values of a repeated name are a list."""
    values = _by_key((name, _number_or_text(value)) for name, value in pairs)
    return [(place, name, found if len(found) > 1 else found[0]) for name, found in values.items()]


def _number_or_text(text: str) -> Json:
    if text in {"true", "false"}:
        return text == "true"
    return int(text) if _NUMBER.fullmatch(text) else text


def _add_tool(imported: ImportedWorld, name: str, tool: _Tool) -> None:
    calls = list(tool.calls.values())
    for arguments, _, _ in calls:
        for argument in tool.lists & arguments.keys():
            value = arguments[argument]
            arguments[argument] = value if isinstance(value, list) else [value]
    seen = _by_key(pair for arguments, _, _ in calls for pair in arguments.items())
    for argument in tool.arguments.properties:
        values = seen.get(argument, [])
        tool.arguments.properties[argument] = infer(values)
        tool.arguments.required += [argument] if len(values) == len(calls) else []
    good = [call for call in calls if call[1] < 400]
    answers = [
        {"when": arguments, "status": status, "body": body, "template": False, "exact": True}
        for arguments, status, body in calls
    ]
    if isinstance(route := tool.entry.get("route"), dict):
        route["places"] = tool.arguments.places
    more = {"parameters": tool.arguments.schema(), "returns": infer([call[2] for call in good]), "answers": answers}
    imported.add(name, name, {**tool.entry, **more}, example=(good or calls)[0][0])


def infer(values: Sequence[Json]) -> Schema:
    """A JSON Schema that all `values` satisfy, with up to five of the strings and numbers as examples."""
    distinct = {(type(value), value if isinstance(value, int | float) else None): value for value in values}.values()
    found = {kind for value in distinct for kind in _KINDS[type(value)] if TYPES[kind](value)}
    kinds = [kind for kind in TYPES if kind in found]
    if "number" in kinds and "integer" in kinds:
        kinds.remove("integer" if any(isinstance(value, float) for value in values) else "number")
    made: Schema = {"type": kinds[0] if len(kinds) == 1 else kinds} if kinds else {}
    objects = [value for value in values if isinstance(value, dict)]
    if objects:
        named = _by_key(pair for one in objects for pair in one.items())
        made["properties"] = {name: infer(inner) for name, inner in named.items()}
        made["required"] = [name for name, inner in named.items() if len(inner) == len(objects)]
    if items := [item for value in values if isinstance(value, list) for item in value]:
        made["items"] = infer(items)
    scalars = [value for value in values if isinstance(value, str | int | float) and not isinstance(value, bool)]
    return made | ({"examples": list(dict.fromkeys(scalars))[:5]} if scalars else {})


def _by_key(pairs: Iterable[tuple[str, Json]]) -> dict[str, list[Json]]:
    """Key -> its values, in order."""
    values: dict[str, list[Json]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    return values
