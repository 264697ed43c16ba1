"""Every row that ships: fixtures of the parsers, public look-alikes, and the built training data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from agentft.errors import RowError
from agentft.records import ROW_FORMATS, parse_row
from agentft.synthesis.build import build
from agentft.toolserver import ToolServer
from agentft.types import Conversation, Part, Span, Text, ToolCall, ToolResult, Turn
from tests.records.rows import HERE, PUBLIC, load

__all__ = ["built", "conversations", "served"]

ROOT = Path(__file__).parents[2]


@cache
def built(name: str, folder: Path) -> Path:
    """The training data of a shipped recipe, built in `folder`."""
    build(ROOT / "datasets" / f"{name}.toml", folder / f"{name}.jsonl", ToolServer)
    return folder / f"{name}.jsonl"


def conversations(folder: Path) -> Iterator[Conversation]:
    """All of them; rows that a parser must reject are left to its own tests."""
    fixtures = sorted(HERE.glob("*.jsonl"))
    assert {path.stem for path in fixtures} == set(ROW_FORMATS)
    for path in (*fixtures, PUBLIC, built("quickstart", folder), built("worlds", folder)):
        for number, row in enumerate(load(path), 1):
            with contextlib.suppress(RowError):
                yield parse_row(row, f"{path.name}:{number}")


def served(conversation: Conversation) -> Iterator[tuple[tuple[Turn, ...], str]]:
    """(the turns so far, what the assistant says next), for each step in which serving would let the model speak.

    A turn that holds results is cut before each run of the model's own. Steps after a call that has no result are left
    out: serving would have put one there. Assistant turns that follow one another are one run.
    """
    for index, turn in enumerate(conversation.turns):
        if turn.role != "assistant" or index == 0:
            continue
        before = conversation.turns[index - 1]
        goes_on = before.role == "assistant" and not isinstance(before.parts[-1], ToolResult)
        run: list[Part] = [Text("", Span(0, 0))] if goes_on else []
        for at, part in enumerate(turn.parts):
            if isinstance(part, ToolResult):
                run = []
                continue
            if not run:
                yield (*conversation.turns[:index], *_cut(turn, at)), "".join(_texts(turn, at))
            run.append(part)


def _cut(turn: Turn, at: int) -> tuple[Turn, ...]:
    if at == 0:
        return ()
    return (Turn(turn.role, turn.parts[:at], turn.raw[: turn.parts[at].span.start]),)


def _texts(turn: Turn, at: int) -> Iterator[str]:
    for part in turn.parts[at:]:
        if isinstance(part, ToolResult):
            return
        if isinstance(part, Text | ToolCall):
            yield turn.raw[part.span.start : part.span.end]
