"""Recorded traffic (JSONL of exchanges, or a HAR file) as a declared world that answers what was recorded."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from agentft.errors import InputError
from agentft.strict import read_json_line
from agentft.toolset.documents import pointer
from agentft.toolset.openapi import ACCESS, Arguments, Importing, Refusal, mock_address, unique_name
from agentft.toolset.schemas import Schema, fits
from agentft.toolset.state import digest
from agentft.types import Json

__all__ = ["import_traffic", "infer"]

_SECRET = re.compile(r"(?i)(^|[_-])(api_?key|key|token|secret|password|passwd|auth\w*|session|signature)($|[_-])")
_VARIABLE = re.compile(r"\d+|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-f]{16,}")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})")
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


@dataclass
class _Tool:
    """What was seen of one tool; `method` is "" where calls name a tool and no address."""

    method: str
    path: str
    access: str
    arguments: Arguments = field(default_factory=Arguments)
    calls: dict[str, tuple[dict[str, Json], int, Json]] = field(default_factory=dict)


def import_traffic(content: bytes, place: str, world: str) -> Importing:
    """A tool for each that was called: its schema is inferred from the arguments seen, its answers are those recorded.

    A line is `{"tool", "arguments", "status", "body"}`, or `{"method", "url", "request", "status", "response"}`.
    Arguments whose names speak of secrets are left out, and so are all headers.

    Raises:
        InputError: nothing in it is an exchange.
    """
    exchanges = list(_exchanges(content, place))
    urls = (row.get("url") for _, row in exchanges if isinstance(row, dict))
    origins = Counter(filter(None, (_origin(url) for url in urls if isinstance(url, str))))
    base_url = origins.most_common(1)[0][0] if origins else mock_address(world)
    done = Importing(base_url)
    tools: dict[str, _Tool] = {}
    for at, row in exchanges:
        try:
            if isinstance(row, str):
                raise InputError(row)
            repeated = _read_exchange(row, base_url, tools)
            if repeated:
                done.adapted.append(Refusal(at, "the same call was answered before; that answer stands"))
        except (InputError, ValueError) as error:
            done.refused.append(Refusal(at, str(error)))
    taken: set[str] = set()
    done.tools = [_declare(name, tool, taken) for name, tool in tools.items()]
    if not done.tools:
        why = f"; {done.refused[0].place}: {done.refused[0].reason}" if done.refused else ""
        raise InputError(f"{place}: no exchange in it can be read{why}")
    return done


def _exchanges(content: bytes, place: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Each exchange with its place; for one that cannot be read the reason instead."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) and isinstance(whole.get("log"), dict):
        entries = whole["log"].get("entries")
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            try:
                yield pointer("log", "entries", index), _har(entry)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                yield pointer("log", "entries", index), f"it is no HAR entry: {error!r:.100}"
        return
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                yield f"{place}:{number}", read_json_line(line, "the line")
            except InputError as error:
                yield f"{place}:{number}", str(error)


def _har(entry: Mapping[str, Any]) -> dict[str, Any]:
    request, response = entry["request"], entry["response"]
    post, content = request.get("postData") or {}, response.get("content") or {}
    sent = {pair["name"]: pair.get("value", "") for pair in post.get("params") or []} or _body(post.get("text"))
    text = content.get("text")
    if content.get("encoding") == "base64":
        text = base64.b64decode(text or "").decode()
    row = {"method": request["method"], "url": request["url"], "request": sent}
    return row | {"status": response["status"], "response": _body(text)}


def _body(text: str | None) -> Json:
    """What a body's text holds: JSON if it is that."""
    try:
        read: Json = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return text
    return read


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return ""
    return f"{parts.scheme}://{host}" if parts.scheme in {"http", "https"} and host else ""


def _read_exchange(row: Mapping[str, Any], base_url: str, tools: dict[str, _Tool]) -> bool:
    """Add an exchange to its tool; whether that call was there already."""
    status, given = row.get("status"), row.get("arguments", row.get("request"))
    if not fits(status, "integer") or not 100 <= int(row["status"]) <= 599:
        raise InputError(f"`status` must be an HTTP status, not {status!r:.40}")
    plain = given is None or isinstance(given, dict)
    sent = [("body", name, value) for name, value in (given or {}).items()] if plain else [("body", "", given)]
    if _is_text(row.get("tool")):
        key, made = row["tool"], _Tool("", "", row.get("access", "write"))
        if not plain or made.access not in {"read", "write", "destructive"}:
            raise InputError("`arguments` must be an object, and `access` read, write or destructive")
    elif _is_text(row.get("url")) and _is_text(row.get("method")) and _origin(row["url"]) == base_url:
        path, addressed = _address(row["url"])
        method, sent = row["method"].lower(), [*addressed, *sent]
        key, made = f"{method} {path}", _Tool(method, path, ACCESS.get(method, "write"))
    else:
        raise InputError(f"it must have `tool`, or `method` and an `url` at {base_url}")
    tool = tools.setdefault(key, made)
    arguments: dict[str, Json] = {}
    for where, wire, value in sent:
        if not _SECRET.search(wire):
            tool.arguments.add({}, where, wire, required=False)
            arguments[tool.arguments.name(where, wire)] = value
    call = (arguments, int(row["status"]), row.get("body", row.get("response")))
    return tool.calls.setdefault(digest(arguments), call) is not call


def _address(url: str) -> tuple[str, list[tuple[str, str, Json]]]:
    """An address's path as a template, numbers and ids being its variables, with their values and the query's."""
    parts = urlsplit(url)
    sent: list[tuple[str, str, Json]] = []
    segments = parts.path.split("/")
    for index, segment in enumerate(segments):
        if _VARIABLE.fullmatch(segment):
            name = f"id_{len(sent) + 1}" if sent else "id"
            sent.append(("path", name, _typed(unquote(segment))))
            segments[index] = f"{{{name}}}"
    sent += [("query", name, _typed(value)) for name, value in parse_qsl(parts.query, keep_blank_values=True)]
    return "/".join(segments) or "/", sent


def _typed(text: str) -> Json:
    if text in {"true", "false"}:
        return text == "true"
    return int(text) if _NUMBER.fullmatch(text) else text


def _declare(key: str, tool: _Tool, taken: set[str]) -> dict[str, Json]:
    calls = list(tool.calls.values())
    seen = [arguments for arguments, _, _ in calls]
    for name in tool.arguments.properties:
        tool.arguments.properties[name] = infer([arguments[name] for arguments in seen if name in arguments])
        if all(name in arguments for arguments in seen):
            tool.arguments.required.append(name)
    good = [(arguments, body) for arguments, status, body in calls if status < 400]
    answers: list[Json] = [
        {"when": arguments, "status": status, "body": body, "template": False, "exact": True}
        for arguments, status, body in calls
    ]
    route: Json = {"method": tool.method.upper(), "path": tool.path, "places": tool.arguments.places}
    return ({"route": route} if tool.method else {}) | {
        "name": unique_name(key, key, taken),
        "description": f"Recorded: {tool.method.upper()} {tool.path}" if tool.method else f"Recorded: {key}",
        "parameters": tool.arguments.schema(),
        "access": tool.access,
        "example": (good or calls)[0][0],
        "returns": infer([body for _, body in good]) if good else {},
        "answers": answers,
    }


def infer(values: Sequence[Json]) -> Schema:
    """A JSON Schema that all of some values satisfy; a few of the texts and numbers seen are its examples."""
    kinds = [kind for kind in _TYPES if any(fits(value, kind) for value in values)]
    if "number" in kinds and "integer" in kinds:
        kinds.remove("integer" if any(isinstance(value, float) for value in values) else "number")
    made: Schema = {"type": kinds[0] if len(kinds) == 1 else kinds} if kinds else {}
    objects = [value for value in values if isinstance(value, dict)]
    if objects:
        names = list(dict.fromkeys(name for value in objects for name in value))
        made["properties"] = {name: infer([value[name] for value in objects if name in value]) for name in names}
        made["required"] = [name for name in names if all(name in value for value in objects)]
    if items := [item for value in values if isinstance(value, list) for item in value]:
        made["items"] = infer(items)
    scalars = [value for value in values if isinstance(value, str | int | float) and not isinstance(value, bool)]
    return made | ({"examples": list(dict.fromkeys(scalars))[:5]} if scalars else {})
