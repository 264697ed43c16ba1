"""Tools as an MS-Agent system value declares them: three shapes of JSON blocks behind a persona.

A   1. {"plugin_name", "plugin_owner", "plugin_type", "plugin_schema_for_model": {"name", "url", "paths": [...]}}
B   {"name", "description", "url", "paths": [{"name", "model_id", "method", "description", "parameters": [...]}]}
C   {"name", "description", "parameters": [...]}, sometimes with brackets too many or too few
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from agentft.errors import RowError
from agentft.formats.msagent import INSTRUCTION
from agentft.formats.values import UnreadableError, read_json, read_value
from agentft.parsers.parameters import read_parameters
from agentft.types import Declarations, Json, Part, Span, Text, ToolDefinition

__all__ = ["parse_system"]

_CACHED_LENGTH = 20_000  # characters; longer system texts are not kept, so that the cache stays small
_PREFIX = re.compile(r"(?:\[\s*)?(?:\d+\s*[.、)]\s*)?\Z")
_SURPLUS = re.compile(r"[\s\]}]*[\]}]")
_DECLARES = re.compile(
    r"\{\s*[\"'](?:plugin_name[\"']|name[\"']\s*:\s*[\"'][^\"'\n]*[\"']\s*,"
    r"\s*[\"'](?:description|url|paths|parameters|method)[\"'])"
)
_MAX_REPAIRS = 8
_CLOSERS = {"{": "}", "[": "]"}


def parse_system(text: str) -> tuple[tuple[Part, ...], tuple[ToolDefinition, ...]]:
    """The parts of a system value (they tile it) and the tools that it declares.

    The declarations reach from the first block (with its number, and with the sentence that our own rendering puts
    before it) to the end of the last one.

    Raises:
        RowError: `unreadable-tools`, with the character where the block begins.
    """
    return _cached(text) if len(text) <= _CACHED_LENGTH else _parse(text)


def _parse(text: str) -> tuple[tuple[Part, ...], tuple[ToolDefinition, ...]]:
    blocks = list(_find_blocks(text))
    if not blocks:
        return ((Text(text, Span(0, len(text))),) if text else ()), ()
    start, end = _first_character(text, blocks[0][1]), blocks[-1][2]
    parts: list[Part] = [Declarations(text[start:end], Span(start, end))]
    if start:
        parts.insert(0, Text(text[:start], Span(0, start)))
    if end < len(text):
        parts.append(Text(text[end:], Span(end, len(text))))
    found = [tool for block, place, _ in blocks for tool in _read_block(block, place)]
    return tuple(parts), _merge(found)


_cached = lru_cache(maxsize=256)(_parse)


def _first_character(text: str, block: int) -> int:
    prefix = _PREFIX.search(text, max(0, block - 16), block)
    start = prefix.start() if prefix else block
    before = text[:start].rstrip()
    return len(before) - len(INSTRUCTION) if before.endswith(INSTRUCTION) else start


def _find_blocks(text: str) -> Iterator[tuple[dict[str, Json], int, int]]:
    position = text.find("{")
    while position >= 0:
        try:
            value, end = read_json(text, position)
        except UnreadableError as error:
            if not _DECLARES.match(text, position):
                position = text.find("{", position + 1)
                continue
            value, end = _read_malformed(text, position, error)
        if isinstance(value, dict) and _is_tool(value):
            surplus = _SURPLUS.match(text, end)
            end = surplus.end() if surplus else end
            yield value, position, end
        position = text.find("{", end)


def _is_tool(value: Mapping[str, Json]) -> bool:
    if "plugin_name" in value or "plugin_schema_for_model" in value:
        return True
    return "name" in value and any(key in value for key in ("description", "url", "paths", "parameters"))


def _read_malformed(text: str, start: int, problem: UnreadableError) -> tuple[Json, int]:
    """A block with brackets too many or too few, or a Python literal; up to the blank line behind it."""
    blank = re.compile(r"\n\s*\n|\Z").search(text, start)
    end = blank.start() if blank else len(text)
    try:
        return read_value(text[start:end]), end
    except UnreadableError:
        body = text[start:end]
    error = problem
    for _ in range(_MAX_REPAIRS):
        try:
            return read_json(body)[0], end
        except UnreadableError as found:
            error = found
        body = _repair(body, error)
    raise RowError("unreadable-tools", f"a tool's declaration: {problem}", offset=start) from None


def _repair(body: str, error: UnreadableError) -> str:
    """One bracket less where one is in the way; the closing brackets that are missing at the end."""
    place = error.position or 0
    if place < len(body) and body[place] in "]}":
        return body[:place] + body[place + 1 :]
    return body.rstrip().rstrip(",") + "".join(_CLOSERS[bracket] for bracket in reversed(_open_brackets(body)))


def _open_brackets(body: str) -> list[str]:
    opened: list[str] = []
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', body):
        if match[0] in _CLOSERS:
            opened.append(match[0])
        elif match[0] in "]}" and opened:
            opened.pop()
    return opened


def _read_block(block: Mapping[str, Json], place: int) -> Iterator[ToolDefinition]:
    schema = block.get("plugin_schema_for_model", block)
    if isinstance(schema, str):
        try:
            schema = read_value(schema)
        except UnreadableError as error:
            raise RowError("unreadable-tools", f"plugin_schema_for_model: {error}", offset=place) from None
    if not isinstance(schema, dict):
        raise RowError("unreadable-tools", "plugin_schema_for_model is not an object", offset=place)
    name = _text(schema.get("name")) or _text(block.get("plugin_name"))
    description, url = _text(schema.get("description")), _text(schema.get("url"))
    paths = schema.get("paths")
    for path in paths if isinstance(paths, list) and paths else [schema]:
        if not isinstance(path, dict):
            raise RowError("unreadable-tools", f"a path of the tool {name!r} is not an object", offset=place)
        tool = _text(path.get("name")) or name
        if not tool:
            raise RowError("unreadable-tools", "a tool has no name", offset=place)
        address = _join(url, _text(path.get("model_id")))
        try:
            parameters = read_parameters(path.get("parameters"))
        except UnreadableError as error:
            raise RowError("unreadable-tools", f"the parameters of {tool!r}: {error}", offset=place) from None
        summary = _text(path.get("description")) or description
        yield ToolDefinition(tool, summary, parameters, (address,) if address else ())


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _join(url: str, path: str) -> str:
    return f"{url.rstrip('/')}/{path.lstrip('/')}" if url and path else url


def _merge(found: list[ToolDefinition]) -> tuple[ToolDefinition, ...]:
    """One definition for each tool with all its addresses; a namesake with other parameters stays apart."""
    tools: list[ToolDefinition] = []
    places: dict[str, list[int]] = {}
    for tool in found:
        for index in places.setdefault(tool.name, []):
            known = tools[index]
            if known.parameters == tool.parameters:
                fresh = tuple(url for url in tool.endpoints if url not in known.endpoints)
                tools[index] = replace(known, endpoints=known.endpoints + fresh)
                break
        else:
            places[tool.name].append(len(tools))
            tools.append(tool)
    return tuple(tools)
