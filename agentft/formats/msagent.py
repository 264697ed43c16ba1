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

from agentft.formats.msagent_grammar import parse_parts
from agentft.formats.pieces import Piece, dump_json, has_call, text_kind, verbatim
from agentft.types import Json, Part, Text, ToolCall, ToolDefinition, ToolResult

__all__ = ["INSTRUCTION", "MSAGENT", "MsAgentFormat"]

CALL_OPEN, CALL_CLOSE = "<|startofthink|>", "<|endofthink|>"
RESULT_OPEN, RESULT_CLOSE = "<|startofexec|>", "<|endofexec|>"

INSTRUCTION = (
    'To use a tool write <|startofthink|>```JSON\n{"api_name": NAME, "url": URL, "parameters": {...}}\n```'
    "<|endofthink|> and wait for its result. The tools are:"
)
"""Stands between the persona and the tools, so that a model which was never tuned has a fair chance too."""


UNSAID = frozenset({"description", "title", "default"})
"""Keys of a parameter's schema that are written elsewhere or not at all."""


class MsAgentFormat:
    """See the module. Stateless; use the constant `MSAGENT`."""

    name = "msagent"
    stop = (CALL_CLOSE,)
    inline_results = True

    def write_system(self, persona: str, tools: Sequence[ToolDefinition]) -> str:
        """Persona, instruction, and a numbered list of plugins: the tools of one address, each with its path."""
        if not tools:
            return persona
        routes = [(*_split(url), tool) for tool in tools for url in (tool.endpoints or ("",))]
        plugins = [
            _declare(base, [(path, tool) for _, path, tool in group])
            for base, group in groupby(routes, key=lambda route: route[0])
        ]
        head = f"{persona}\n\n{INSTRUCTION}" if persona else INSTRUCTION
        return head + "".join(f"\n\n{number}. {plugin}" for number, plugin in enumerate(plugins, 1))

    def write_run(self, parts: Sequence[Part]) -> list[Piece]:
        """Text and calls of one run; neighbouring calls share one block."""
        calls = has_call(parts)
        pieces: list[Piece] = []
        waiting: list[ToolCall] = []
        for part in [*parts, None]:
            if isinstance(part, ToolCall):
                waiting.append(part)
            elif part is None or not (isinstance(part, Text) and waiting and not part.text.strip()):
                pieces += _block(waiting)
                waiting = []
                if isinstance(part, Text) and part.text:
                    pieces.append(Piece(part.text, text_kind(part, calls)))
        return pieces

    def read_run(self, parts: Sequence[Part], raw: str) -> list[Piece]:
        """The run as it stands in `raw`, except that neighbouring call blocks become one (see the module)."""
        shut = [i for i, p in enumerate(parts) if isinstance(p, ToolCall) and _closes(p, raw)]
        later = [i for i, p in enumerate(parts) if isinstance(p, ToolCall)]
        readable = all(p.parse_error is None for p in parts if isinstance(p, ToolCall))
        if readable and shut and later and shut[0] < later[-1]:
            return self.write_run(parts)
        return verbatim(parts, raw, CALL_CLOSE)

    def write_parts(self, parts: Sequence[Part]) -> str:
        """A whole assistant value: runs and results in order."""
        text, run = "", list[Part]()
        for part in parts:
            if isinstance(part, ToolResult):
                text += "".join(piece.text for piece in self.write_run(run)) + self.write_results([part])
                run = []
            else:
                run.append(part)
        return text + "".join(piece.text for piece in self.write_run(run))

    def write_results(self, results: Sequence[ToolResult]) -> str:
        """Each result in a block of its own, set off as the data set does."""
        return "".join(f"\n\n{RESULT_OPEN}```JSON\n{r.content}\n```{RESULT_CLOSE}\n" for r in results)

    def parse(self, text: str) -> tuple[Part, ...]:
        """See `agentft.formats.msagent_grammar`."""
        return parse_parts(text)


def _closes(call: ToolCall, raw: str) -> bool:
    return raw[call.span.start : call.span.end].endswith(CALL_CLOSE)


def _block(calls: Sequence[ToolCall]) -> list[Piece]:
    if not calls:
        return []
    bodies = [dump_json(_call_object(call)) for call in calls]
    body = bodies[0] if len(bodies) == 1 else "[" + ", ".join(bodies) + "]"
    return [Piece(f"{CALL_OPEN}```JSON\n{body}\n```", "call"), Piece(CALL_CLOSE, "terminator")]


def _call_object(call: ToolCall) -> dict[str, Json]:
    url: dict[str, Json] = {"url": call.endpoint} if call.endpoint is not None else {}
    return {"api_name": call.name, **url, "parameters": dict(call.arguments)}


def _split(url: str) -> tuple[str, str]:
    """An address as the plugin's part and the path's; both empty for a tool without one."""
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.netloc}" if url else ""
    return base, url[len(base) :]


def _declare(base: str, routes: Sequence[tuple[str, ToolDefinition]]) -> str:
    """The tools at one address, in the shape that the data set's plugins have."""
    paths: list[Json] = []
    for route, tool in routes:
        path: dict[str, Json] = {"name": tool.name}
        if base:
            path["model_id"] = route
        path |= {"description": tool.description, "parameters": _declare_parameters(tool.parameters)}
        paths.append(path)
    name = (urlsplit(base).hostname or "tools").split(".")[0]
    address: dict[str, Json] = {"url": base} if base else {}
    return dump_json({"name": name, **address, "paths": paths})


def _declare_parameters(schema: Mapping[str, Any]) -> Json:
    """A row for each parameter, as the data set writes them.

    There `required` says whether the parameter itself is needed. If one is an object that says which of its own
    properties are, or is `true` or `false`, rows cannot hold that, and the whole schema stands in their place.
    """
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    if any(not isinstance(spec, Mapping) or isinstance(spec.get("required"), list) for spec in properties.values()):
        return dict(schema)
    rows: list[Json] = []
    for name, spec in properties.items():
        row: dict[str, Json] = {"name": name, "description": spec.get("description", "")}
        # Parameters without a type are strings in this format, so that needs no words.
        row |= {key: value for key, value in spec.items() if key not in UNSAID and (key, value) != ("type", "string")}
        rows.append({**row, "required": str(name in required)})
    return rows


MSAGENT = MsAgentFormat()
