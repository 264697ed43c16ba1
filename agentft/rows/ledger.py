"""The ledger of a data file: how many rows were kept, and why the others were rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path

from agentft.strict import counted, own_table
from agentft.types import Conversation, Json, Part, Text, ToolCall, ToolResult

__all__ = ["REMEDIES", "UNASKED", "UNSUPERVISED", "Ledger", "Rejection", "rows_have"]

REMEDIES = own_table(__file__, str)
"""What to do about a rejected row, by reason."""

_UNREADABLE, _UNDECLARED = "rows_with_unreadable_calls", "rows_with_undeclared_calls"
_UNFITTING, _EMPTY = "rows_with_unfitting_arguments", "rows_with_empty_replies"
_SHARED, UNASKED = "rows_with_shared_results", "rows_with_unasked_replies"
_UNFOUNDED, UNSUPERVISED = "rows_with_unfounded_answers", "rows_without_supervised_tokens"
_REMARKS = {
    _UNREADABLE: "an unreadable call, which is never supervised",
    _UNDECLARED: "a call of a tool that the row does not declare",
    _UNFITTING: "a call that does not fit its tool: an argument is not declared, is missing, or has a wrong value",
    _SHARED: "fewer results than calls in one step, so the last calls count as calls without a result",
    _UNFOUNDED: "an answer after a call, in the reply that makes it: it teaches the model to invent results",
    _EMPTY: "a reply of the assistant that is empty, or a thought and nothing else",
    UNASKED: "a first reply with nothing before it, which the format native does not supervise",
    UNSUPERVISED: "no supervised token: not trained on",
}
"""What may be doubtful about a kept row, by its key in `data inspect --json`."""
_OPEN = frozenset({"patternProperties", "$ref", "allOf", "anyOf", "oneOf", "if"})
"""Keywords with which the properties are not all that a call may have."""


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
    `unread`: the number of kept rows by key that holds something and is not read. `remarks`: the number of kept rows by
    the key in `_REMARKS`. `first_remarks`: the place of the first of each of these keys.
    """

    rows: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[Path, Rejection]] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    first_remarks: dict[str, str] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """The number of rejected rows."""
        return self.reasons.total()

    def keep(self, path: Path, line: int, conversation: Conversation) -> None:
        """Count a kept row."""
        self.kept += 1
        self.unread.update(conversation.unread)
        for key in conversation.unread:
            self.first_remarks.setdefault(key, f"{path}:{line}")
        doubts = list(_doubts(conversation))
        for key, detail in dict(reversed(doubts)).items():  # the first of each
            self.remark(key, f"{path}:{line}: {detail}")

    def remark(self, key: str, place: str) -> None:
        """Count a kept row under a key of `_REMARKS`."""
        self.remarks[key] += 1
        self.first_remarks.setdefault(key, place)

    def merge(self, later: Ledger) -> None:
        """Add the counts of rows that follow."""
        self.rows, self.kept = self.rows + later.rows, self.kept + later.kept
        for name in ("reasons", "unread", "remarks"):
            getattr(self, name).update(getattr(later, name))
        self.first = self.first | later.first | self.first
        self.first_remarks = later.first_remarks | self.first_remarks

    def notes(self) -> list[str]:
        """Remarks about kept rows of which something is not used or doubtful."""
        unread = [
            f"{rows_have(count)} `{key}`, which is not read: write it as docs/formats.md says, or remove it; "
            f"the first: {self.first_remarks[key]}"
            for key, count in self.unread.most_common()
        ]
        doubts = [
            f"{rows_have(self.remarks[key])} {text}; the first: {self.first_remarks[key]}"
            for key, text in _REMARKS.items()
            if self.remarks[key]
        ]
        return unread + doubts

    def document(self) -> dict[str, Json]:
        """What is not used of kept rows or doubtful, as JSON; a key is left out if there is nothing to count."""
        counts: dict[str, Json] = {"unread_keys": dict(self.unread), **{key: self.remarks[key] for key in _REMARKS}}
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


def _doubts(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """What may be doubtful about a row (a key of `_REMARKS`, perhaps several times), and its place."""
    numbered = list(enumerate(conversation.turns, start=-conversation.inserted))
    for (place, turn), follows in zip(numbered, [*(turn.role for turn in conversation.turns[1:]), None], strict=True):
        thinks = follows != "assistant" and all(isinstance(part, Text) and part.thought for part in turn.parts)
        if turn.role == "assistant" and (thinks or not turn.raw.strip()):
            yield _EMPTY, f"turn {place}"
    if not any(isinstance(part, ToolCall) for _, turn in numbered for part in turn.parts):
        return
    declared = {tool.name: tool.parameters for tool in reversed(conversation.tools)}
    said: list[tuple[int, str, Part | None]] = []
    for place, turn in numbered:
        for call in (part for part in turn.parts if isinstance(part, ToolCall)):
            if call.parse_error:
                yield _UNREADABLE, f"turn {place}: {call.parse_error}"
            elif call.name not in declared:
                yield _UNDECLARED, f"turn {place}: {call.name:.60}"
            elif unfitting := _unfitting(call.arguments, declared[call.name]):
                yield _UNFITTING, f"turn {place}: {call.name:.60}: {unfitting}"
        said += [(place, turn.role, part) for part in turn.parts if not isinstance(part, Text) or part.text.strip()]
    ends = [*said[2:], (0, "", None)]
    for (_, _, made), (place, role, part), (_, _, then) in zip(said, said[1:], ends, strict=False):
        unfounded = isinstance(made, ToolCall) and not isinstance(then, ToolCall | ToolResult)
        if unfounded and role == "assistant" and isinstance(part, Text):
            yield _UNFOUNDED, f"turn {place}: {part.text.strip():.60}"
    kinds = [type(part) for _, role, part in said if role == "user" or isinstance(part, ToolCall | ToolResult)]
    for (kind, calls), (after, results) in pairwise((kind, len([*group])) for kind, group in groupby(kinds)):
        if kind is ToolCall and after is ToolResult and results < calls:
            yield _SHARED, f"{calls} calls, {counted(results, 'result')}"


def _unfitting(arguments: Mapping[str, Json], schema: Mapping[str, Json]) -> str:
    """The first argument that is not declared, has a wrong value or is missing, as a phrase; empty without one."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict):
        return ""
    closed = not (schema.get("additionalProperties") or schema.keys() & _OPEN)
    for name, value in arguments.items():
        if closed and name not in properties:
            return f"{name:.60} is not declared"
        spec = properties.get(name)
        kind, enum = (spec.get("type"), spec.get("enum")) if isinstance(spec, dict) else (None, None)
        if isinstance(value, str) and kind in ("array", "object"):
            return f"{name:.60} is text, not an {kind}"
        if isinstance(enum, list) and not isinstance(value, list | dict) and value not in enum:
            return f"{name:.60} is {value!r:.60}, which its enum does not list"
    listed = required if isinstance(required, list) else []
    missing = next((name for name in listed if isinstance(name, str) and name not in arguments), None)
    return "" if missing is None else f"{missing:.60} is missing"
