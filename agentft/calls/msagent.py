"""The MS-Agent call format: `<|startofthink|>` calls and `<|startofexec|>` results inside the assistant's own message.

Serving stops at the end of a call block, so one block is one step. Parallel calls therefore share a block, as a JSON
list. Sequential calls have a block each, with the results in between, as in the MS-Agent data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

from agentft.calls.format import CallFormat, dump_json, once_per_tool, text_segments
from agentft.calls.msagent_grammar import CALL_END, CALL_START, RESULT_END, RESULT_START, parse_parts
from agentft.calls.thoughts import with_thoughts
from agentft.types import Json, Part, Segment, Text, ToolCall, ToolDefinition, ToolResult

__all__ = ["INSTRUCTION", "MSAGENT", "ROOT_KEYS"]

INSTRUCTION = (
    'To use a tool write <|startofthink|>```JSON\n{"api_name": NAME, "url": URL, "parameters": {...}}\n```'
    "<|endofthink|> and wait for its result. The tools are:"
)
"""Placed between the persona and the tools, so that an untuned model can learn the format from the prompt."""

_OMITTED_KEYS = frozenset({"description", "title", "default"})
"""Keys of a parameter's schema that are written separately or not at all."""

ROOT_KEYS = frozenset({"$defs", "definitions", "$ref", "allOf", "anyOf", "oneOf", "not", "if", "patternProperties"})
ROOT_KEYS |= {"dependentRequired", "dependentSchemas", "propertyNames", "minProperties", "maxProperties"}
"""Keys beside `properties` without which the parameters would be declared incompletely."""


def _write_system(persona: str, tools: Sequence[ToolDefinition]) -> str:
    """Persona, instruction and a numbered list of plugins. A plugin groups the tools of one host, with their paths."""
    if not tools:
        return persona
    routes = [(_base(url), url, tool) for tool in tools for url in (tool.endpoints or ("",))]
    plugins = [_declare(base, list(group)) for base, group in groupby(routes, key=lambda route: route[0])]
    head = f"{persona}\n\n{INSTRUCTION}" if persona else INSTRUCTION
    return head + "".join(f"\n\n{number}. {plugin}" for number, plugin in enumerate(plugins, 1))


def _write_run(parts: Sequence[Part]) -> list[Segment]:
    """Text and calls of one run; adjacent calls share a block."""
    segments: list[Segment] = []
    pending: list[ToolCall] = []
    for part in parts:
        if isinstance(part, ToolCall):
            pending.append(part)
        elif isinstance(part, Text) and (part.text.strip() or not pending):
            segments += [*_block(pending), *text_segments(part)]
            pending = []
    return segments + _block(pending)


def _write_results(results: Sequence[ToolResult]) -> str:
    """Each result in its own block, with the line breaks of the MS-Agent data set."""
    return "".join(f"\n\n{RESULT_START}```JSON\n{r.content}\n```{RESULT_END}\n" for r in results)


def _block(calls: Sequence[ToolCall]) -> list[Segment]:
    if not calls:
        return []
    bodies = [dump_json(_call_object(call)) for call in calls]
    body = bodies[0] if len(bodies) == 1 else "[" + ", ".join(bodies) + "]"
    block = f"{CALL_START}```JSON\n{body}\n```"
    return [Segment(block, True, "call"), Segment(CALL_END, True, "terminator")]


def _call_object(call: ToolCall) -> dict[str, Json]:
    url: dict[str, Json] = {"url": call.endpoint} if call.endpoint is not None else {}
    return {"api_name": call.name, **url, "parameters": dict(call.arguments)}


def _base(url: str) -> str:
    """A URL without its path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if url else ""


def _declare(base: str, routes: Sequence[tuple[str, str, ToolDefinition]]) -> str:
    """The tools of one host as a plugin of the MS-Agent data set."""
    paths: list[str] = []
    for _, url, tool in routes:
        route: dict[str, Json] = {"model_id": url.removeprefix(base)} if base else {}
        paths.append(f"{dump_json({'name': tool.name, **route})[:-1]}, {_describe(tool)}")
    name = (urlsplit(base).hostname or "tools").split(".")[0]
    address: dict[str, Json] = {"url": base} if base else {}
    return f'{dump_json({"name": name, **address})[:-1]}, "paths": [{", ".join(paths)}]}}'


@once_per_tool
def _describe(tool: ToolDefinition) -> str:
    """The rest of a path's JSON object."""
    return dump_json({"description": tool.description, "parameters": _declare_parameters(tool.parameters)})[1:]


def _declare_parameters(schema: Mapping[str, Any]) -> Json:
    """One entry for each parameter, as in the MS-Agent data set.

    An entry's `required` says whether the parameter itself is required. So a parameter whose schema lists required
    properties of its own, or is `true` or `false`, cannot be an entry; then the whole JSON Schema is written instead.
    The same applies to a schema with keywords beside `properties`, such as `$defs`.
    """
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    legal = isinstance(properties, Mapping) and isinstance(required, list)
    specs = properties.values() if legal else [None]
    more = schema.keys() & ROOT_KEYS or isinstance(schema.get("additionalProperties"), Mapping)
    if more or any(not isinstance(spec, Mapping) or isinstance(spec.get("required"), list) for spec in specs):
        return dict(schema)
    rows: list[Json] = []
    for name, spec in properties.items():
        row: dict[str, Json] = {"name": name, "description": spec.get("description", "")}
        omitted = _OMITTED_KEYS | ({"type"} if spec.get("type") == "string" else set())  # the format's default type
        row |= {key: value for key, value in spec.items() if key not in omitted}
        rows.append({**row, "required": str(name in required)})
    return rows


MSAGENT = CallFormat(
    "msagent",
    (CALL_END,),
    True,
    _write_system,
    _write_run,
    _write_results,
    with_thoughts(parse_parts),
    call_markers=(CALL_START, CALL_END),
    other_markers=(RESULT_START, RESULT_END),
)
