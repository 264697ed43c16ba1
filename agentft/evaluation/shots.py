"""Examples from training data for the prompt of a model that was not trained (few-shot)."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path

from agentft.errors import InputError
from agentft.models.retelling import retell
from agentft.rows.ledger import Ledger
from agentft.rows.reading import read_conversations
from agentft.types import Conversation, Text, ToolCall, ToolDefinition, ToolResult, Turn

__all__ = ["Shots", "read_shots"]

KEPT = 256
"""Examples among which those of a case are chosen."""


@dataclass(frozen=True, slots=True)
class Shots:
    """The first round of some rows, in an order that depends on the seed. `count`: how many are put into a prompt."""

    count: int
    seed: int
    rounds: tuple[tuple[Turn, ...], ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the examples."""
        texts = (turn.raw for turns in self.rounds for turn in turns)
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    @property
    def condition(self) -> str:
        """What must be equal in two runs that are compared."""
        return f"{self.count} of the examples {self.digest[:12]}, seed {self.seed}"

    def history(self, tools: Sequence[ToolDefinition], source: str) -> tuple[Turn, ...]:
        """The turns to put before a case: one with a call, then those of tools that the case offers."""
        endpoints = {tool.name: tool.endpoints[0] for tool in tools if tool.endpoints}
        offered = {tool.name for tool in tools}
        chosen = sorted(self.rounds, key=lambda turns: not {call.name for call in _calls(turns)} <= offered)
        shown = next(filter(_calls, chosen), None)  # so that the format is seen at least once
        chosen.sort(key=lambda turns: turns is not shown)
        told = (retell(turns, source, endpoints, f"shot{at}_") for at, turns in enumerate(chosen[: self.count]))
        return tuple(turn for turns in told for turn in turns)


def read_shots(paths: Sequence[Path], count: int, seed: int) -> Shots:
    """Choose examples from data files.

    Raises:
        InputError: a file cannot be read, or too few of its rows begin with a round that can be an example.
    """
    found: list[tuple[str, tuple[Turn, ...]]] = []
    for number, path in enumerate(paths):
        rows = read_conversations(path, Ledger())
        ordered = ((hashlib.sha256(f"{seed} {number} {line}".encode()).hexdigest(), row) for line, row in rows)
        rounds = ((key, turns) for key, row in ordered if (turns := _first_round(row)))
        found = heapq.nsmallest(KEPT, chain(found, rounds), key=lambda item: item[0])
    if len(found) < count:
        raise InputError(f"--shots {count}: only {len(found)} rows begin with a question that is answered; use fewer")
    return Shots(count, seed, tuple(turns for _, turns in found))


def _first_round(row: Conversation) -> tuple[Turn, ...]:
    """The turns up to the second question; empty if they are no complete example."""
    first, *rest = [turn for turn in row.turns if turn.role != "system"]
    turns = (first, *takewhile(lambda turn: turn.role != "user", rest))
    calls, last = _calls(turns), turns[-1].parts[-1:]
    results = {part.call_id for turn in turns for part in turn.parts if isinstance(part, ToolResult)}
    answered = isinstance(last[0], Text) and bool(last[0].text.strip()) if last else False
    readable = all(call.parse_error is None and call.id in results for call in calls)
    return turns if first.role == "user" and answered and readable else ()


def _calls(turns: Sequence[Turn]) -> list[ToolCall]:
    return [part for turn in turns for part in turn.parts if isinstance(part, ToolCall)]
