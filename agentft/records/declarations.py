"""Tools as an MS-Agent system value declares them: JSON blocks of three shapes, after a persona.

A   1. {"plugin_name", "plugin_owner", "plugin_type", "plugin_schema_for_model": {"name", "url", "paths": [...]}}
B   {"name", "description", "url", "paths": [{"name", "model_id", "method", "description", "parameters": [...]}]}
C   {"name", "description", "parameters": [...]}, sometimes with unbalanced brackets
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from agentft.calls.msagent import INSTRUCTION
from agentft.calls.reading import read_literal_call
from agentft.errors import RowError
from agentft.json_text import UnreadableError, read_json, read_value, repeated_keys
from agentft.records.keys import as_text
from agentft.records.tools import make_tool
from agentft.types import Declarations, Json, Part, Span, Text, ToolDefinition

__all__ = ["around", "parse_system"]

_MAX_CACHED_LENGTH = 20_000  # characters; longer system values are not cached, so that the cache stays small
_PREFIX = re.compile(r"(?:\[\s*)?(?:\d+\s*[.、)]\s*)?\Z")
_SURPLUS = re.compile(r"[\s\]}]*[\]}]")
_DECLARES = re.compile(
    r"\{\s*[\"'](?:plugin_name[\"']|name[\"']\s*:\s*[\"'][^\"'\n]*[\"']\s*,"
    r"\s*[\"'](?:description|url|paths|parameters|method)[\"'])"
)
_OBJECT = re.compile(r"\{(?=\s*[\"'}])")
# A string (to the end of the text if it is not closed) or a bracket.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_MAX_REPAIRS = 7
_CLOSERS = {"{": "}", "[": "]"}


def parse_system(text: str) -> tuple[tuple[Part, ...], tuple[ToolDefinition, ...]]:
    """The parts of a system value, whose spans tile it, and the tools that it declares.

    The declarations span everything from the first block (including its number and our `INSTRUCTION`, if they precede
    it) to the end of the last block.

    Raises:
        RowError: `unreadable-tools`, with the offset of the block.
    """
    return _parse(text) if len(text) <= _MAX_CACHED_LENGTH else _parse.__wrapped__(text)


@lru_cache(maxsize=256)
@repeated_keys()  # which are not counted, since equal texts are read once
def _parse(text: str) -> tuple[tuple[Part, ...], tuple[ToolDefinition, ...]]:
    blocks = list(_find_blocks(text))
    if not blocks:
        return around(text, 0, 0), ()
    start, end = _declarations_start(text, blocks[0][1]), blocks[-1][2]
    found: list[ToolDefinition] = []
    for block, offset, _ in blocks:
        try:
            found += _read_block(block)
        except RowError as error:
            error.offset = offset
            raise
    return around(text, start, end), _merge(found)


def around(text: str, start: int, end: int) -> tuple[Part, ...]:
    """The declarations from `start` to `end` (none: 0, 0), and the texts before and after them."""
    found = Text(text[:start], Span(0, start)), Declarations(text[start:end], Span(start, end))
    return tuple(part for part in (*found, Text(text[end:], Span(end, len(text)))) if part.text)


def _declarations_start(text: str, block: int) -> int:
    prefix = _PREFIX.search(text, max(0, block - 16), block)
    start = prefix.start() if prefix else block
    before = text[:start].rstrip()
    return len(before) - len(INSTRUCTION) if before.endswith(INSTRUCTION) else start


def _find_blocks(text: str) -> Iterator[tuple[dict[str, Json], int, int]]:
    end = 0
    incomplete: set[int] = set()  # objects inside one that cannot be read, and still open where its text is not JSON
    while found := _OBJECT.search(text, end):
        position = found.start()
        if position in incomplete and not _DECLARES.match(text, position):
            end = position + 1
            continue
        try:
            value, end = read_json(text, position)
        except UnreadableError as error:
            if not _DECLARES.match(text, position):
                if error.reason == "too-deep":
                    raise RowError(error.reason, f"the system text is {error}", offset=position) from None
                incomplete.update(_open_objects(text, position, error.position or 0))
                end = position + 1
                continue
            value, end = _read_malformed(text, position, error)
        if isinstance(value, dict) and _is_tool(value):
            surplus = _SURPLUS.match(text, end)
            end = surplus.end() if surplus else end
            yield value, position, end


def _open_objects(text: str, start: int, stop: int) -> list[int]:
    """Where the objects begin that are not complete between `start` and `stop`."""
    opened: list[int] = []
    for match in _TOKEN.finditer(text, start, max(start, stop)):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            opened.pop()
    return opened


def _is_tool(value: Mapping[str, Json]) -> bool:
    if "plugin_name" in value or "plugin_schema_for_model" in value:
        return True
    return "name" in value and any(key in value for key in ("description", "url", "paths", "parameters"))


def _read_malformed(text: str, start: int, problem: UnreadableError) -> tuple[Json, int]:
    """Read a block that has unbalanced brackets or is a Python literal. It ends at the next blank line."""
    blank = re.compile(r"\n\s*\n|\Z").search(text, start)
    end = blank.start() if blank else len(text)
    body = text[start:end]
    if literal := read_literal_call(text, start, [end]):
        return literal
    place = min((problem.position or start) - start, len(body))
    for _ in range(_MAX_REPAIRS):
        before, body = body, _repair(body, place)
        try:
            return read_json(body)[0], end
        except UnreadableError as error:
            reached = error.position or 0
        if body == before or (reached == place and before[place : place + 1] not in ("]", "}")):
            break  # nothing was added, or what was added is inside an open string
        place = reached
    raise RowError("unreadable-tools", f"a tool's declaration: {problem}", offset=start) from None


def _repair(body: str, place: int) -> str:
    """Remove the bracket at `place`, or if there is none, add the closing brackets that are missing at the end."""
    if place < len(body) and body[place] in "]}":
        return body[:place] + body[place + 1 :]
    closers: list[str] = []
    for match in _TOKEN.finditer(body):
        if match[0] in _CLOSERS:
            closers.append(_CLOSERS[match[0]])
        elif match[0] in "]}" and closers:
            closers.pop()
    return body.rstrip().rstrip(",") + "".join(reversed(closers))


def _read_block(block: Mapping[str, Json]) -> Iterator[ToolDefinition]:
    schema = block.get("plugin_schema_for_model", block)
    if isinstance(schema, str):
        try:
            schema = read_value(schema)
        except UnreadableError as error:
            raise RowError("unreadable-tools", f"plugin_schema_for_model: {error}") from None
    if not isinstance(schema, dict):
        raise RowError("unreadable-tools", "plugin_schema_for_model is not an object")
    name = as_text(schema.get("name")) or as_text(block.get("plugin_name"))
    url, paths = as_text(schema.get("url")), schema.get("paths")
    for path in paths if isinstance(paths, list) and paths else [schema]:
        if not isinstance(path, dict):
            raise RowError("unreadable-tools", f"a path of the tool {name!r} is not an object")
        tool, route = as_text(path.get("name")) or name, as_text(path.get("model_id"))
        if not tool:
            raise RowError("unreadable-tools", "a tool has no name")
        address = f"{url.rstrip('/')}/{route.lstrip('/')}" if url and route else url
        summary = as_text(path.get("description")) or schema.get("description")
        yield make_tool(tool, summary, path.get("parameters"), address)


def _merge(found: list[ToolDefinition]) -> tuple[ToolDefinition, ...]:
    """Merge declarations with the same name and parameters into one tool that has all their endpoints."""
    tools: dict[tuple[str, str], ToolDefinition] = {}
    for tool in found:
        key = tool.name, json.dumps(tool.parameters, sort_keys=True)
        known = tools.setdefault(key, tool)
        if known is not tool:
            tools[key] = replace(known, endpoints=tuple(dict.fromkeys(known.endpoints + tool.endpoints)))
    return tuple(tools.values())
