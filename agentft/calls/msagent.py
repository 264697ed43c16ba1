"""The MS-Agent call format: `<|startofthink|>` calls and `<|startofexec|>` results inside the assistant's own message.

Serving stops at the end of a call block, so one block is one step. Calls that are made at once therefore share a block,
as a JSON list; calls that follow one another are blocks of their own with their results between them, which is how the
data set itself writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

from agentft.calls.base import CallFormat, dump_json, said
from agentft.calls.msagent_grammar import CALL_END, CALL_START, RESULT_END, RESULT_START, parse_parts
from agentft.types import Json, Part, Segment, Text, ToolCall, ToolDefinition, ToolResult

__all__ = ["INSTRUCTION", "MSAGENT"]

INSTRUCTION = (
    'To use a tool write <|startofthink|>```JSON\n{"api_name": NAME, "url": URL, "parameters": {...}}\n```'
    "<|endofthink|> and wait for its result. The tools are:"
)
"""Stands between the persona and the tools, so that a model which was never tuned has a fair chance too."""

UNSAID = frozenset({"description", "title", "default"})
"""Keys of a parameter's schema that are written elsewhere or not at all."""


def _write_system(persona: str, tools: Sequence[ToolDefinition]) -> str:
    """Persona, instruction, and a numbered list of plugins: the tools of one address, each with its path."""
    if not tools:
        return persona
    routes = [(_base(url), url, tool) for tool in tools for url in (tool.endpoints or ("",))]
    plugins = [_declare(base, list(group)) for base, group in groupby(routes, key=lambda route: route[0])]
    head = f"{persona}\n\n{INSTRUCTION}" if persona else INSTRUCTION
    return head + "".join(f"\n\n{number}. {plugin}" for number, plugin in enumerate(plugins, 1))


def _write_run(parts: Sequence[Part]) -> list[Segment]:
    """Text and calls of one run; neighbouring calls share one block."""
    segments: list[Segment] = []
    waiting: list[ToolCall] = []
    for part in parts:
        if isinstance(part, ToolCall):
            waiting.append(part)
        elif isinstance(part, Text) and (part.text.strip() or not waiting):
            segments += [*_block(waiting), *said(part)]
            waiting = []
    return segments + _block(waiting)


def _write_results(results: Sequence[ToolResult]) -> str:
    """Each result in a block of its own, set off as the data set does."""
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
    """An address up to its path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if url else ""


def _declare(base: str, routes: Sequence[tuple[str, str, ToolDefinition]]) -> str:
    """The tools at one address, in the shape that the data set's plugins have."""
    paths: list[Json] = []
    for _, url, tool in routes:
        route: dict[str, Json] = {"model_id": url.removeprefix(base)} if base else {}
        parameters = _declare_parameters(tool.parameters)
        paths.append({"name": tool.name, **route, "description": tool.description, "parameters": parameters})
    name = (urlsplit(base).hostname or "tools").split(".")[0]
    address: dict[str, Json] = {"url": base} if base else {}
    return dump_json({"name": name, **address, "paths": paths})


def _declare_parameters(schema: Mapping[str, Any]) -> Json:
    """A row for each parameter, as the data set writes them.

    There `required` says whether the parameter itself is needed. If one is an object that says which of its own
    properties are, or is `true` or `false`, rows cannot hold that, and the whole schema stands in their place.
    """
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    legal = isinstance(properties, Mapping) and isinstance(required, list)
    specs = properties.values() if legal else [None]
    if any(not isinstance(spec, Mapping) or isinstance(spec.get("required"), list) for spec in specs):
        return dict(schema)
    rows: list[Json] = []
    for name, spec in properties.items():
        row: dict[str, Json] = {"name": name, "description": spec.get("description", "")}
        # Parameters without a type are strings in this format, so that needs no words.
        row |= {key: value for key, value in spec.items() if key not in UNSAID and (key, value) != ("type", "string")}
        rows.append({**row, "required": str(name in required)})
    return rows


MSAGENT = CallFormat("msagent", (CALL_END,), True, _write_system, _write_run, _write_results, parse_parts)
