"""The ledger of a data file: how many rows were kept, and why the others were rejected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from agentft.strict import counted, own_table
from agentft.types import Conversation, Json, ToolCall

__all__ = ["REMEDIES", "Ledger", "Rejection", "rows_have"]

REMEDIES = own_table(__file__, str)
"""What to do about a rejected row, by reason."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that cannot be used, and the reason.

    `line`: its line, or its number in an array or a parquet file. `turn`: index of the turn. `offset`: character in the
    turn's text, or in the row's text if `turn` is None (byte for `invalid-utf8`). `raw`: the row, as bytes if it is not
    text. `extent`: (start, length) in bytes of a row that is too long to read.
    """

    line: int
    reason: str
    detail: str
    turn: int | None
    offset: int | None
    raw: str | bytes
    extent: tuple[int, int] | None = None

    def place(self, path: Path) -> str:
        """`file:line: turn, character`, omitting unknown parts."""
        where = [f"turn {self.turn}"] if self.turn is not None else []
        if self.offset is not None:
            where.append(f"{'byte' if self.reason == 'invalid-utf8' else 'character'} {self.offset}")
        return f"{path}:{self.line}" + (f": {', '.join(where)}" if where else "")


@dataclass(slots=True)
class Ledger:
    """Counts over the rows of one or more files. Always `rows == kept + rejected`.

    `reasons`: the number of rejected rows by reason. `first`: the first rejection for each reason, with its file.
    `unread`: the number of kept rows by key that holds something and is not read. `unreadable`: kept rows with a call
    that cannot be read, and the place of the first. `unsupervised`: kept rows of which the learn rule supervises no
    token, so that they are not trained on, and the place of the first.
    """

    rows: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[Path, Rejection]] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    first_unreadable: str = ""
    unsupervised: int = 0
    first_unsupervised: str = ""

    @property
    def rejected(self) -> int:
        """The number of rejected rows."""
        return self.reasons.total()

    def keep(self, path: Path, line: int, conversation: Conversation) -> None:
        """Count a kept row."""
        self.kept += 1
        self.unread.update(conversation.unread)
        for index, turn in enumerate(conversation.turns, start=-conversation.inserted):
            for part in turn.parts:
                if isinstance(part, ToolCall) and part.parse_error is not None:
                    self.unreadable += 1
                    if not self.first_unreadable:
                        self.first_unreadable = f"{path}:{line}: turn {index}: {part.parse_error}"
                    return

    def count_unsupervised(self, place: str) -> None:
        """Count a row, which is kept, as one without supervised tokens."""
        self.unsupervised += 1
        self.first_unsupervised = self.first_unsupervised or place

    def merge(self, later: Ledger) -> None:
        """Add the counts of rows that follow."""
        for name in ("rows", "kept", "unreadable", "unsupervised"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.reasons.update(later.reasons)
        self.unread.update(later.unread)
        for reason, place in later.first.items():
            self.first.setdefault(reason, place)
        self.first_unreadable = self.first_unreadable or later.first_unreadable
        self.first_unsupervised = self.first_unsupervised or later.first_unsupervised

    def notes(self) -> list[str]:
        """Remarks about kept rows of which something is not used."""
        notes = [
            f"{rows_have(count)} `{key}`, which is not read: use a key of docs/formats.md, or remove it"
            for key, count in self.unread.most_common()
        ]
        if self.unreadable:
            notes.append(f"{rows_have(self.unreadable)} an unreadable call, unused; the first: {self.first_unreadable}")
        if self.unsupervised:
            notes.append(
                f"{rows_have(self.unsupervised)} no supervised token, so training leaves "
                f"{'them' if self.unsupervised > 1 else 'it'} out; the first: {self.first_unsupervised}"
            )
        return notes

    def document(self) -> dict[str, Json]:
        """What is not used of kept rows, as JSON; a key is left out if there is nothing to count."""
        counts: dict[str, Json] = {"unread_keys": dict(self.unread), "rows_with_unreadable_calls": self.unreadable}
        counts["rows_without_supervised_tokens"] = self.unsupervised
        return {key: count for key, count in counts.items() if count}

    def reject(self, path: Path, rejection: Rejection) -> None:
        """Count a rejected row."""
        self.reasons[rejection.reason] += 1
        self.first.setdefault(rejection.reason, (path, rejection))

    def first_places(self) -> dict[str, str]:
        """`file:line: turn, character: detail` of the first rejection, by reason."""
        return {reason: f"{one.place(path)}: {one.detail}" for reason, (path, one) in self.first.items()}


def rows_have(count: int) -> str:
    """The subject and verb of a remark: `1 row has`, `12 rows have`."""
    return f"{counted(count, 'row')} ha{'s' if count == 1 else 've'}"
