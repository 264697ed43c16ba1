"""The interface of a call format, and what all formats share.

A *run* is what the model generates between two injected texts. It is split into segments wherever the loss weight may
change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from agentft.calls.thoughts import THINK, write_thought
from agentft.types import Json, Part, Segment, Text, ToolCall, ToolDefinition, ToolResult

__all__ = ["CallFormat", "declare_tool", "dump_json", "once_per_tool", "text_segments"]

_KEPT_TOOLS = 4096


@dataclass(frozen=True)
class CallFormat:
    """How one call format writes and parses text.

    Attributes:
        name: the name in recipes and options; stored with an adapter.
        stop: strings at which serving stops sampling inside a turn, besides the frame's stop token.
        inline_results: whether results are part of the assistant's message instead of separate messages.
        write_system: (persona, tools) -> the system message that declares the tools.
        write_run: text and calls of one run -> segments in canonical form.
        write_results: results of a run's calls -> the text that is injected after the run.
        parse: model output -> parts whose spans tile it. Never raises: a bad call has a `parse_error`.
        call_markers: what begins and ends a call. A text that has one was meant as a call.
        other_markers: what begins and ends the tools and results. Tokenizers may have all markers as single tokens.
        server_parser: what vLLM and Ollama call the parser that reads such calls; None if they have none.
    """

    name: str
    stop: tuple[str, ...]
    inline_results: bool
    write_system: Callable[[str, Sequence[ToolDefinition]], str]
    write_run: Callable[[Sequence[Part]], list[Segment]]
    write_results: Callable[[Sequence[ToolResult]], str]
    parse: Callable[[str], tuple[Part, ...]]
    call_markers: tuple[str, ...]
    other_markers: tuple[str, ...] = ()
    server_parser: str | None = None

    def write_parts(self, parts: Sequence[Part]) -> str:
        """Text, calls and (with `inline_results`) results as one text in canonical form."""
        text = ""
        for injected, group in groupby(parts, lambda part: self.inline_results and isinstance(part, ToolResult)):
            if injected:
                text += self.write_results([part for part in group if isinstance(part, ToolResult)])
            else:
                text += "".join(segment.text for segment in self.write_run(list(group)))
        return text

    def read_run(self, parts: Sequence[Part], raw: str) -> list[Segment]:
        """Split a run that is already in this format into segments, verbatim; each call's `stop` is its own segment.

        Exception: if several calls of the run end with a `stop`, they are rewritten as one block, since serving would
        stop after the first.
        """
        calls = [part for part in parts if isinstance(part, ToolCall)]
        terminated = [raw[call.span.start : call.span.end].endswith(self.stop) for call in calls]
        if any(terminated[:-1]) and all(call.parse_error is None for call in calls):
            return self.write_run(parts)
        segments: list[Segment] = []
        for part in parts:
            text = raw[part.span.start : part.span.end]
            if isinstance(part, Text):
                verbatim = part.thought and text.lstrip().startswith(THINK)
                segments += [Segment(text, True, "thought")] if verbatim else text_segments(part)
            elif isinstance(part, ToolCall) and part.parse_error is not None:
                segments.append(Segment(text, True, "unreadable"))
            else:
                end = next((stop for stop in self.stop if text.endswith(stop)), "")
                segments += [Segment(text.removesuffix(end), True, "call"), Segment(end, True, "terminator")]
        return [segment for segment in segments if segment.text]


def declare_tool(tool: ToolDefinition) -> Json:
    """The tool as the chat API declares it."""
    function: dict[str, Json] = {"name": tool.name, "description": tool.description}
    return {"type": "function", "function": {**function, "parameters": dict(tool.parameters)}}


def dump_json(value: Json | Mapping[str, Json]) -> str:
    """JSON as models see it everywhere: on one line, keys in order, without \\u escapes."""
    return json.dumps(value, ensure_ascii=False)


def text_segments(text: Text) -> list[Segment]:
    """One segment, or none if the text is empty. `answer` becomes `preamble` later if the run turns out to call."""
    if text.text and text.thought:
        return [Segment(write_thought(text.text), True, "thought")]
    return [Segment(text.text, True, "answer")] if text.text else []


def once_per_tool(write: Callable[[ToolDefinition], str]) -> Callable[[ToolDefinition], str]:
    """A function that writes a tool only once. Tools are told apart by identity; many rows share theirs."""
    kept: dict[int, tuple[ToolDefinition, str]] = {}  # the tool is kept, too, so that no other gets its identity

    def written(tool: ToolDefinition) -> str:
        found = kept.get(id(tool))
        if found is None:
            if len(kept) >= _KEPT_TOOLS:
                kept.clear()
            found = kept[id(tool)] = tool, write(tool)
        return found[1]

    return written
