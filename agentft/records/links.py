"""The results of one step, linked to the calls that they answer."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from agentft.errors import RowError
from agentft.types import Json, ToolCall, Turn

__all__ = ["RESULT_IDS", "CallLinks", "read_identity"]

RESULT_IDS = ("tool_call_id", "toolCallId", "call_id")
"""Keys of a result that name its call: OpenAI's, the AI SDK's and the Responses API's."""

_SHOWN = 4


@dataclass(slots=True)
class CallLinks:
    """The calls that the assistant made in a row, by number, those that have no result yet, and the results' turns."""

    calls: list[ToolCall] = field(default_factory=list)
    open: dict[int, ToolCall] = field(default_factory=dict)
    results: dict[int, Turn] = field(default_factory=dict)
    _waiting: dict[tuple[str, str], deque[int]] = field(default_factory=lambda: defaultdict(deque))

    def add(self, calls: Iterable[ToolCall]) -> None:
        """Add calls."""
        for call in calls:
            number = len(self.calls)
            self.calls.append(call)
            self.open[number] = call
            self._waiting["id", call.id].append(number)
            self._waiting["name", call.name].append(number)

    def find(self, identity: str, name: str) -> int | None:
        """The open call that a result answers: the one with its id; without an id, the first with its name, if any."""
        if not identity and not name:
            return next(iter(self.open), None)
        waiting = self._waiting[("id", identity) if identity else ("name", name)]
        while waiting and waiting[0] not in self.open:
            waiting.popleft()
        return waiting[0] if waiting else None

    def answer(self, number: int, turn: Turn) -> None:
        """Add the result of a call."""
        del self.open[number]
        self.results[number] = turn

    def problem(self, message: Mapping[str, Json]) -> str:
        """Why this message answers no open call."""
        keys = (key for key in (*RESULT_IDS, "name", "tool_name") if message.get(key))
        named = next((f" for the {key} {message[key]!r:.60}" for key in keys), "")
        calls = ", ".join(f"{call.id:.40} ({call.name:.40})" for call in islice(self.open.values(), _SHOWN))
        return f"a result{named}, but " + (f"the open calls are {calls}" if calls else "no call is open")

    def close(self, *, reopen: bool = False) -> list[Turn]:
        """The turns of the results, in the order of the calls. The step ends, unless it has no results and may reopen.

        Raises:
            RowError: `call-without-result`: a later call has one, which would be taken for the earlier call's.
        """
        if reopen and not self.results:
            return []
        first, last = next(iter(self.open), len(self.calls)), max(self.results, default=-1)
        if first < last:
            missing, answered = self.calls[first], self.calls[last]
            detail = f"the call {missing.id} ({missing.name}) has no result, but the later call {answered.id} has one"
            raise RowError("call-without-result", detail)
        turns = [self.results[number] for number in sorted(self.results)]
        self.calls, self.open, self.results = [], {}, {}
        self._waiting.clear()
        return turns


def read_identity(value: Json) -> str:
    """The id of a call, as text; empty if there is none."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
