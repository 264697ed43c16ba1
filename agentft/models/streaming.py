"""Server-sent events of an OpenAI-compatible endpoint, joined to the body that it sends without streaming."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentft.json_text import UnreadableError, kind_of
from agentft.models import CallStarted, CallText, Delta, TextDelta
from agentft.models.messages import read_sent, thought_in
from agentft.records.keys import as_text
from agentft.types import Json

__all__ = ["REASONING", "EventStream"]

REASONING = ("reasoning_content", "reasoning")
"""The keys under which servers send a model's thoughts, and take them back."""


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
        self._model: Json = None
        self._ended = False
        self._thoughts = ""  # the key of the thoughts

    def feed(self, line: str) -> None:
        """Read a line.

        Raises:
            UnreadableError: as `read_response` does.
        """
        field, _, data = line.partition(":")
        if field not in {"data", "error"} or not data.strip():
            return
        self.events += 1
        if data.strip() == "[DONE]":
            self._ended = True
            return
        chunk = read_sent(data, "an event")
        self._usage, self._model = chunk.get("usage") or self._usage, chunk.get("model") or self._model
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            one: Any = choice if isinstance(choice, dict) else {"delta": choice}
            # A message that is sent at once; after deltas, MiniMax sends it again.
            begun = self._calls or set(filter(self._message.get, self._message)) - {"role"}
            delta = one.get("delta") or (not begun and one.get("message")) or {}
            if not isinstance(delta, dict):
                raise UnreadableError(f"structure: a delta is {kind_of(delta)}, not an object")
            if not one.get("index"):
                self._add(one, delta)

    def body(self) -> str:
        """The body.

        Raises:
            UnreadableError: the stream is cut.
        """
        if not self._ended and not self._choice.get("finish_reason"):
            raise UnreadableError("structure: the stream ended too soon; the server's log may say why")
        choice: Json = {**self._choice, "message": {**self._message, "tool_calls": self._calls}}
        return json.dumps({"choices": [choice] if self._choice else [], "usage": self._usage, "model": self._model})

    def _add(self, choice: Mapping[str, Json], delta: Mapping[str, Json]) -> None:
        if said := as_text(choice.get("text")):
            self._on_delta(TextDelta(said))
        self._choice["text"] = self._choice.get("text", "") + said
        self._choice |= {key: value for key, value in choice.items() if value and key.endswith("finish_reason")}
        for key, value in _fields(delta):
            if key == "tool_calls":
                for piece in value if isinstance(value, list) else [value] * (value is not None):
                    self._add_call(piece)
            elif isinstance(value, dict) and isinstance(self._message.setdefault(key, {}), dict):
                _join(self._message[key], value)
            else:
                _join(self._message, {key: value})
            if thought := thought_in({key: value}):
                self._thoughts = self._thoughts or key  # some servers send them under two
                if key == self._thoughts:
                    self._on_delta(TextDelta(thought, thought=True))
            elif isinstance(value, str) and key in {"content", "refusal"}:
                self._on_delta(TextDelta(value))

    def _add_call(self, piece: Json) -> None:
        """Add to a call by its id, or else its index. Servers repeat or omit either, or change them within a call.

        An empty piece begins no call; LiteLLM sends one with each text.
        """
        if not isinstance(piece, dict):
            self._calls += [piece] * (piece is not None)
            return
        place, identity, function = piece.get("index"), piece.get("id"), piece.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        calls = [one for one in reversed(self._calls) if isinstance(one, dict)]
        same = [one for one in calls if one["index"] == place]
        known = next((one for one in (same if name else calls) if identity and one["id"] == identity), None)
        found = same or ([] if name or identity else calls)  # the rest of a call may have another index
        call = known or (found[0] if found else None)
        said = function.get("arguments") if isinstance(function, dict) else function
        if call is None and not (name or identity or said):
            return
        if call is None or (known is None and name and _begins(call, piece)):
            call = {"index": place, "id": identity, "function": {}}
            self._calls.append(call)
            self._on_delta(CallStarted(str(name or "")))
        call |= {"id": call["id"] or identity} | {key: piece[key] for key in ("extra_content",) if key in piece}
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


def _begins(call: Mapping[str, Any], piece: Mapping[str, Any]) -> bool:
    """Whether a piece with a name and the index of `call` begins another call, rather than repeats the name."""
    before = call["function"] if isinstance(call["function"], dict) else {}
    said = str(before.get("arguments") or "").rstrip()
    if not before.get("name") or piece.get("index") is None:
        return bool(before.get("name"))
    has_ids = piece.get("id") and call["id"]
    return said[-1:] in ("", "}") if has_ids else said[-1:] == "}" and bool(piece["function"].get("arguments"))


def _fields(delta: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """The fields of a delta; a content that is a list of texts and thoughts (Mistral's) part by part."""
    for key, value in delta.items():
        for part in value if key == "content" and isinstance(value, list) else [None]:
            kind = str(part.get("type")) if isinstance(part, dict) else ""
            said = part.get(kind) if isinstance(part, dict) else value
            if kind == "thinking" and isinstance(said, list):
                said = "".join(as_text(one.get("text")) for one in said if isinstance(one, dict))
            known = {"": key, "text": "content", "thinking": "thinking"}.get(kind)
            yield (known, said) if known and (said is value or isinstance(said, str)) else (key, [part])
