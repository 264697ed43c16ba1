"""Fixture rows, and a check of invariant 1."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentft.types import Conversation, ToolCall, ToolResult, Turn

HERE = Path(__file__).parent
PUBLIC = HERE.parent / "rows" / "public_rows.jsonl"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "train.jsonl.gz"


def load(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file, gzipped or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def fixture(name: str) -> dict[str, dict[str, Any]]:
    """The rows of `<name>.jsonl` by id."""
    return {row.get("id", "unnamed"): row for row in load(HERE / f"{name}.jsonl")}


def check_spans(turn: Turn) -> None:
    """Invariant 1: the parts' spans tile the turn."""
    place = 0
    for part in turn.parts:
        assert part.span.start == place
        place = part.span.end
    assert place == len(turn.raw)


def calls(conversation: Conversation) -> list[ToolCall]:
    """All calls, in order."""
    return [part for turn in conversation.turns for part in turn.parts if isinstance(part, ToolCall)]


def results(conversation: Conversation) -> list[ToolResult]:
    """All results, in order."""
    return [part for turn in conversation.turns for part in turn.parts if isinstance(part, ToolResult)]
