"""Statistics of a data file, collected in one pass."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path

from agentft.rows.ledger import Ledger, rows_have
from agentft.rows.preparation import DataReport, Encoder, Prepared
from agentft.rows.reading import read_conversations
from agentft.types import Conversation, Json, ToolCall, ToolResult

__all__ = ["Inspection", "inspect_file"]


_PREPARED = ("samples", "tokens", "supervised", "trimmed", "left_out")


@dataclass(slots=True)
class Inspection:
    """Counts over the kept rows. `calls` includes unreadable ones; `rows_with_calls` have at least one readable call.

    `characters` and `row_turns` hold one 4-byte number for each row: 8 MB for a million rows. `repeated_ids`: rows
    with the id of an earlier row. `report`: samples and tokens, if the file was inspected as for training.
    """

    ledger: Ledger = field(default_factory=Ledger)
    calls: int = 0
    unreadable_calls: int = 0
    results: int = 0
    rows_with_calls: int = 0
    tools: set[str] = field(default_factory=set)
    characters: array[int] = field(default_factory=lambda: array("I"))
    row_turns: array[int] = field(default_factory=lambda: array("I"))
    repeated_ids: int = 0
    report: DataReport | None = None
    _ids: set[int] = field(default_factory=set)  # hashes: about 60 bytes a row, however long the ids are

    def add(self, conversation: Conversation, identity: str | None) -> None:
        """Count one conversation. `identity`: the row's own id."""
        if identity is not None:
            self.repeated_ids += hash(identity) in self._ids
            self._ids.add(hash(identity))
        parts = [part for turn in conversation.turns for part in turn.parts]
        readable = [part.parse_error is None for part in parts if isinstance(part, ToolCall)]
        self.calls += len(readable)
        self.unreadable_calls += readable.count(False)
        self.results += sum(isinstance(part, ToolResult) for part in parts)
        self.rows_with_calls += any(readable)
        self.tools.update(tool.name for tool in conversation.tools)
        self.characters.append(sum(len(turn.raw) for turn in conversation.turns))
        self.row_turns.append(len(conversation.turns))

    @property
    def notes(self) -> list[str]:
        """Remarks about the file that are no reason to reject rows."""
        notes = self.ledger.notes()
        if self.repeated_ids:
            notes.append(f"{rows_have(self.repeated_ids)} the id of an earlier row; rows with repeated ids are kept")
        return notes

    def document(self) -> dict[str, Json]:
        """The output of `data inspect --json`."""
        ledger = self.ledger
        return {
            "rows": ledger.rows,
            "parsed": ledger.kept,
            "rejected": ledger.rejected,
            "reasons": dict(ledger.reasons.most_common()),
            "turns": sum(self.row_turns),
            "calls": self.calls,
            "unreadable_calls": self.unreadable_calls,
            "results": self.results,
            "tools": len(self.tools),
            "learnt_rows": self.rows_with_calls,
            **ledger.document(),
            **({key: self.report.document()[key] for key in _PREPARED} if self.report else {}),
        }


def inspect_file(path: Path, quarantine: Path | None = None, encoder: Encoder | None = None) -> Inspection:
    """Inspect the whole file. With an encoder, rows are kept or rejected as for training.

    Raises:
        InputError: see `read_conversations`.
    """
    prepared = Prepared(encoder) if encoder else None
    inspection = Inspection(report=prepared.report, ledger=prepared.report.ledger) if prepared else Inspection()

    def add(line: int, conversation: Conversation) -> None:
        default = f"{path.name}:{line}"  # which is unique
        inspection.add(conversation, None if conversation.id == default else conversation.id)

    if prepared:
        prepared.add(path, quarantine, add)
        prepared.complete()
    else:
        for line, conversation in read_conversations(path, inspection.ledger, quarantine):
            add(line, conversation)
    return inspection
