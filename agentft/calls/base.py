"""What every call format is made of: its grammar as a record of functions, and a run as segments cut where the loss
weight may change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from agentft.types import Json, Part, Segment, Text, ToolCall, ToolDefinition, ToolResult

__all__ = ["CallFormat", "dump_json", "said"]


@dataclass(frozen=True)
class CallFormat:
    """The grammar of one call format.

    `name`: what users give, and what is stored with an adapter. `stop`: strings at which serving stops sampling inside
    a turn (empty: only the frame's stop token). `inline_results`: results stand inside the assistant's message, not in
    a message of their own. `write_system`: (persona, tools) -> the system message that declares them. `write_run`: text
    and calls of one run in their canonical form. `write_results`: the injected text that gives results back after a run
    that called. `parse`: what the model said, as parts whose spans tile it; never raises: bad calls have `parse_error`.
    """

    name: str
    stop: tuple[str, ...]
    inline_results: bool
    write_system: Callable[[str, Sequence[ToolDefinition]], str]
    write_run: Callable[[Sequence[Part]], list[Segment]]
    write_results: Callable[[Sequence[ToolResult]], str]
    parse: Callable[[str], tuple[Part, ...]]

    def write_parts(self, parts: Sequence[Part]) -> str:
        """Text and calls (and, with `inline_results`, results) in their canonical form, as one text."""
        text = ""
        for injected, group in groupby(parts, lambda part: self.inline_results and isinstance(part, ToolResult)):
            if injected:
                text += self.write_results([part for part in group if isinstance(part, ToolResult)])
            else:
                text += "".join(segment.text for segment in self.write_run(list(group)))
        return text

    def read_run(self, parts: Sequence[Part], raw: str) -> list[Segment]:
        """The run exactly as it stands in `raw`, which is in this format; each call's closing `stop` is apart.

        But calls of one run that each close with a `stop` are written anew, as one block: serving would stop at each.
        """
        calls = [part for part in parts if isinstance(part, ToolCall)]
        shut = [raw[call.span.start : call.span.end].endswith(self.stop) for call in calls]
        if any(shut[:-1]) and all(call.parse_error is None for call in calls):
            return self.write_run(parts)
        segments: list[Segment] = []
        for part in parts:
            text = raw[part.span.start : part.span.end]
            if isinstance(part, Text):
                segments += said(part)
            elif isinstance(part, ToolCall) and part.parse_error is not None:
                segments.append(Segment(text, True, "unreadable"))
            else:
                end = next((stop for stop in self.stop if text.endswith(stop)), "")
                segments += [Segment(text.removesuffix(end), True, "call"), Segment(end, True, "terminator")]
        return [segment for segment in segments if segment.text]


def dump_json(value: Json | Mapping[str, Json]) -> str:
    """JSON as models see it everywhere: one line, order kept, nothing escaped to \\u."""
    return json.dumps(value, ensure_ascii=False)


def said(text: Text) -> list[Segment]:
    """A text of a run, unless it is empty. It is an answer until rendering knows that the run calls."""
    return [Segment(text.text, True, "thought" if text.thought else "answer")] if text.text else []
