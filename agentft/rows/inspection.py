"""What a data file holds: counts over its conversations, gathered as they stream by."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path

from agentft.rows.reading import Accounting, read_conversations
from agentft.types import Conversation, Json, ToolCall, ToolResult

__all__ = ["Inspection", "inspect_file"]


@dataclass(slots=True)
class Inspection:
    """Counts over parsed rows. `calls` includes the unreadable ones; `learnt_rows` have a readable call at least.

    `characters` and `row_turns` hold one number a row: four bytes each, so a million rows take 8 MB.
    """

    accounting: Accounting = field(default_factory=Accounting)
    turns: int = 0
    calls: int = 0
    unreadable_calls: int = 0
    results: int = 0
    learnt_rows: int = 0
    tools: set[str] = field(default_factory=set)
    characters: array[int] = field(default_factory=lambda: array("I"))
    row_turns: array[int] = field(default_factory=lambda: array("I"))

    def add(self, conversation: Conversation) -> None:
        """Count one conversation."""
        parts = [part for turn in conversation.turns for part in turn.parts]
        readable = [part.parse_error is None for part in parts if isinstance(part, ToolCall)]
        self.calls += len(readable)
        self.unreadable_calls += readable.count(False)
        self.results += sum(isinstance(part, ToolResult) for part in parts)
        self.learnt_rows += any(readable)
        self.turns += len(conversation.turns)
        self.tools.update(tool.name for tool in conversation.tools)
        self.characters.append(sum(len(turn.raw) for turn in conversation.turns))
        self.row_turns.append(len(conversation.turns))

    def document(self) -> dict[str, Json]:
        """What `data inspect --json` prints."""
        rows = self.accounting
        return {
            "rows": rows.rows,
            "parsed": rows.parsed,
            "rejected": rows.rejected,
            "reasons": dict(rows.reasons.most_common()),
            "turns": self.turns,
            "calls": self.calls,
            "unreadable_calls": self.unreadable_calls,
            "results": self.results,
            "tools": len(self.tools),
            "learnt_rows": self.learnt_rows,
        }


def inspect_file(path: Path, quarantine: Path | None = None) -> Inspection:
    """Read the whole file and count. Raises InputError as `read_conversations` does."""
    inspection = Inspection()
    for _, conversation in read_conversations(path, inspection.accounting, quarantine):
        inspection.add(conversation)
    return inspection
