"""Server-sent events of an OpenAI-compatible endpoint, joined to the body that it sends without streaming."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from agentft.json_text import UnreadableError, kind_of
from agentft.models import CallStarted, CallText, Delta, TextDelta
from agentft.models.messages import read_sent
from agentft.types import Json

__all__ = ["REASONING", "EventStream"]

REASONING = ("reasoning_content", "reasoning")
"""The keys under which servers send a model's thoughts."""
_SAID = 300  # characters of an error in a message


class EventStream:
    """Joins the first choice of a stream. `events`: how many were read.

    Args:
        on_delta: called with each text, and with each call as far as it goes.
    """

    def __init__(self, on_delta: Callable[[Delta], None]) -> None:
        self.events = 0
        self._on_delta = on_delta
        self._message: dict[str, Any] = {}
        self._calls: list[Any] = []
        self._choice: dict[str, Any] = {}
        self._usage: Json = None
        self._ended = False

    def feed(self, line: str) -> None:
        """Read a line.

        Raises:
            UnreadableError: as `read_response` does.
        """
        field, _, data = line.partition(":")
        if field != "data":
            return
        self.events += 1
        if data.strip() == "[DONE]":
            self._ended = True
            return
        chunk = read_sent(data, "an event")
        if chunk.get("error"):
            raise UnreadableError(f"structure: the server says {json.dumps(chunk['error'])[:_SAID]}")
        self._usage = chunk.get("usage") or self._usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            delta = choice.get("delta") or {} if isinstance(choice, dict) else choice
            if not isinstance(choice, dict) or not isinstance(delta, dict):
                raise UnreadableError(f"structure: a delta is {kind_of(delta)}, not an object")
            if choice.get("index", 0) == 0:
                self._add(choice, delta)

    def body(self) -> str:
        """The body.

        Raises:
            UnreadableError: the stream is cut.
        """
        if not self._ended and not self._choice.get("finish_reason"):
            raise UnreadableError("structure: the stream ended too soon")
        choice: Json = {**self._choice, "message": {**self._message, "tool_calls": self._calls}}
        return json.dumps({"choices": [choice] if self._choice else [], "usage": self._usage})

    def _add(self, choice: Mapping[str, Json], delta: Mapping[str, Json]) -> None:
        said = choice.get("text")
        if isinstance(said, str):
            self._on_delta(TextDelta(said))
        self._choice["text"] = self._choice.get("text", "") + (said if isinstance(said, str) else "")
        self._choice["finish_reason"] = choice.get("finish_reason") or self._choice.get("finish_reason")
        for key, value in delta.items():
            if key == "tool_calls":
                for piece in value if isinstance(value, list) else [value] * (value is not None):
                    self._add_call(piece)
            elif isinstance(value, dict) and isinstance(self._message.setdefault(key, {}), dict):
                _join(self._message[key], value)
            else:
                _join(self._message, {key: value})
            if isinstance(value, str) and key in {"content", self._thoughts}:
                self._on_delta(TextDelta(value, key != "content"))

    @property
    def _thoughts(self) -> str:
        """The key of the thoughts; some servers send them under two."""
        return next((key for key in self._message if key in REASONING), "")

    def _add_call(self, piece: Json) -> None:
        """Add to a call by its index. Some servers give all calls one index and ids of their own, or no index."""
        if not isinstance(piece, dict):
            self._calls.append(piece)
            return
        place, identity, function = piece.get("index"), piece.get("id"), piece.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        call = next((one for one in reversed(self._calls) if isinstance(one, dict) and one["index"] == place), None)
        if call is None or (identity and call["id"] not in (None, "", identity)) or (place is None and name):
            call = {"index": place, "id": identity, "function": {}}
            self._calls.append(call)
            self._on_delta(CallStarted(str(name or "")))
        call["id"] = call["id"] or identity
        if isinstance(function, dict) and isinstance(call["function"], dict):
            _join(call["function"], function)
            known = call["function"]
            self._on_delta(CallText(str(known.get("name", "")), str(known.get("arguments", ""))))
        elif function is not None:
            call["function"] = function


def _join(whole: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Append texts and lists; a name that is sent again stays one."""
    for key, value in piece.items():
        known = whole.get(key)
        if key != "name" or known != value:
            joins = isinstance(known, str | list) and type(known) is type(value)
            whole[key] = known + value if joins else known if value is None else value
