"""The ledger of a data file: how many rows were kept, and why the others were rejected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["REMEDIES", "Ledger", "Rejection"]

REMEDIES: dict[str, str] = {
    "call-not-object": "make each call {function: {name, arguments}}",
    "invalid-json": "write one JSON value per line, with json.dumps and allow_nan=False",
    "invalid-utf8": "convert the file to UTF-8",
    "line-too-long": "split the row; at most 16 MiB are read",
    "lone-surrogate": "replace the broken \\ud800-\\udfff escape",
    "no-assistant": "add the assistant's turn, or remove the row",
    "no-turns": "fill `conversations` or `messages` with a list of turns",
    "not-an-object": "make each row an object with `conversations` or `messages`",
    "null-arguments": "store arguments as JSON text in parquet",
    "react-dialogue": "convert Action / Action Input to call markers",
    "swallowed-dialogue": "split the system value at <|user|>: into turns",
    "too-deep": "nest at most 100 levels",
    "turn-not-object": "make each turn an object with a role and a text",
    "turn-order": "put the system turn first and alternate user and assistant",
    "unknown-format": "name the list of turns `conversations` (MS-Agent) or `messages` (OpenAI)",
    "unknown-role": "rename the role to system, user, assistant or (OpenAI) tool",
    "unreadable-tools": "repair the JSON of the tool's declaration",
    "value-not-text": "make the turn's value text",
}
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
    """

    rows: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[Path, Rejection]] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """The number of rejected rows."""
        return self.reasons.total()

    def reject(self, path: Path, rejection: Rejection) -> None:
        """Count a rejected row."""
        self.reasons[rejection.reason] += 1
        self.first.setdefault(rejection.reason, (path, rejection))

    def first_places(self) -> dict[str, str]:
        """`file:line: turn, character: detail` of the first rejection, by reason."""
        return {reason: f"{one.place(path)}: {one.detail}" for reason, (path, one) in self.first.items()}
