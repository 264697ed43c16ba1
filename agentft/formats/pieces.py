"""The pieces of one run: what the model says without interruption, cut where the loss weight may change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agentft.types import Json, Part, SegmentKind, Text, ToolCall

__all__ = ["Piece", "dump_json", "has_call", "text_kind", "verbatim"]


class Piece(NamedTuple):
    """A text of a run and what it is."""

    text: str
    kind: SegmentKind


def dump_json(value: Json | Mapping[str, Json]) -> str:
    """JSON as models see it everywhere: one line, order kept, nothing escaped to \\u."""
    return json.dumps(value, ensure_ascii=False)


def has_call(parts: Sequence[Part]) -> bool:
    """Whether a run calls (readably or not)."""
    return any(isinstance(part, ToolCall) for part in parts)


def text_kind(text: Text, calls: bool) -> SegmentKind:
    """What a text of a run is; `calls`: whether the run has a call."""
    if text.thought:
        return "thought"
    return "preamble" if calls else "answer"


def verbatim(parts: Sequence[Part], raw: str, terminator: str) -> list[Piece]:
    """The run exactly as it stands in `raw`; each call's closing `terminator` is a piece of its own."""
    calls = has_call(parts)
    pieces: list[Piece] = []
    for part in parts:
        text = raw[part.span.start : part.span.end]
        if isinstance(part, Text):
            pieces.append(Piece(text, text_kind(part, calls)))
        elif isinstance(part, ToolCall) and part.parse_error is not None:
            pieces.append(Piece(text, "unreadable"))
        elif terminator and text.endswith(terminator):
            pieces += [Piece(text[: -len(terminator)], "call"), Piece(terminator, "terminator")]
        else:
            pieces.append(Piece(text, "call"))
    return [piece for piece in pieces if piece.text]
