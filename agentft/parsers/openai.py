"""OpenAI-style records: `{"messages": [...], "tools": [...]}`, with calls beside the content and results in turns of
their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentft.errors import RowError
from agentft.formats.values import UnreadableError, read_value
from agentft.parsers.tools import conversation_of, read_list, read_role, read_tools
from agentft.types import Conversation, Json, Part, Role, Span, Text, ToolCall, ToolResult, Turn

__all__ = ["parse_openai"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def parse_openai(row: Mapping[str, Json], default_id: str) -> Conversation:
    """An OpenAI-style record as a conversation.

    `Turn.raw` of an assistant's turn is its reasoning, its content and the text of each call
    (`{"name":...,"arguments":...}`), joined. Arguments that no reader understands are data (`ToolCall.parse_error`).

    Raises:
        RowError: `no-turns`, `turn-not-object`, `unknown-role`, `value-not-text`, `turn-order`, `no-assistant`,
            `call-not-object` or `unreadable-tools`, with the turn.
    """
    reader = _Reader()
    for index, message in enumerate(read_list(row.get("messages"), "messages", "no-turns") or ()):
        try:
            reader.add(message)
        except RowError as error:
            raise RowError(error.reason, error.detail, turn=index) from None
    if not reader.turns:
        raise RowError("no-turns", "`messages` is empty")
    return conversation_of(row, default_id, reader.turns, read_tools(row), "openai")


@dataclass(slots=True)
class _Reader:
    """Turns as they are read; `open_calls` are ids of calls that have no result yet."""

    turns: list[Turn] = field(default_factory=list)
    open_calls: list[str] = field(default_factory=list)
    calls: int = 0

    def add(self, message: Json) -> None:
        if not isinstance(message, dict):
            raise RowError("turn-not-object", f"a message must be an object, not {message!r:.60}")
        role = read_role(message.get("role"), _ROLES)
        if role == "system" and self.turns:
            raise RowError("turn-order", "a system message that is not the first")
        turn = _Turn()
        if role == "assistant":
            self._add_said(turn, message)
        elif role == "tool":
            content = _read_result(message.get("content"))
            call_id, failed = self._answered(message.get("tool_call_id")), message.get("is_error") is True
            turn.parts.append(ToolResult(call_id, content, turn.next_span(content), failed))
        else:
            turn.add_text(_read_content(message.get("content")))
        self.turns.append(Turn(role, tuple(turn.parts), turn.raw))

    def _answered(self, call_id: Json) -> str:
        """The id that a result names; without one, the earliest call that has no result."""
        if not (isinstance(call_id, str) and call_id):
            call_id = self.open_calls[0] if self.open_calls else ""
        if call_id in self.open_calls:
            self.open_calls.remove(call_id)
        return call_id

    def _add_said(self, turn: _Turn, message: Mapping[str, Json]) -> None:
        for key in ("reasoning_content", "reasoning"):
            if message.get(key):
                turn.add_text(_read_content(message.get(key)), thought=True)
                break
        turn.add_text(_read_content(message.get("content") or message.get("refusal")))
        calls = read_list(message.get("tool_calls"), "tool_calls", "call-not-object") or []
        legacy = message.get("function_call")
        for call in [*calls, *([legacy] if legacy is not None else [])]:
            if not isinstance(call, dict):
                raise RowError("call-not-object", f"a call must be an object, not {call!r:.60}")
            given = call.get("id")
            identity = given if isinstance(given, str) and given else f"call_{self.calls}"
            self.calls += 1
            self.open_calls.append(identity)
            _add_call(turn, identity, call)


@dataclass(slots=True)
class _Turn:
    """A turn that grows: each part comes with its text, so that spans tile `raw` by construction."""

    raw: str = ""
    parts: list[Part] = field(default_factory=list)

    def next_span(self, text: str) -> Span:
        """Append `text` and give its place."""
        start = len(self.raw)
        self.raw += text
        return Span(start, len(self.raw))

    def add_text(self, text: str, *, thought: bool = False) -> None:
        """Append a Text unless it is empty."""
        if text:
            self.parts.append(Text(text, self.next_span(text), thought))


def _add_call(turn: _Turn, identity: str, call: Mapping[str, Json]) -> None:
    function = call.get("function", call)
    if not isinstance(function, dict):
        raise RowError("call-not-object", f"a call's function must be an object, not {function!r:.60}")
    name, given = function.get("name"), function.get("arguments")
    problem = None if isinstance(name, str) and name else "the call has no name"
    arguments: Json = given
    written = "{}"
    if isinstance(given, str):
        if given.strip():
            written = given
            try:
                arguments = read_value(given)
            except UnreadableError as error:
                arguments, problem = {}, problem or f"arguments: {error}"
        else:
            arguments = {}
    elif given is not None:
        written = json.dumps(given, ensure_ascii=False, separators=(",", ":"))
    if not isinstance(arguments, dict | None):
        problem = problem or f"arguments must be an object, not {arguments!r:.60}"
    readable = name if isinstance(name, str) else ""
    span = turn.next_span(f'{{"name":{json.dumps(readable, ensure_ascii=False)},"arguments":{written}}}')
    turn.parts.append(ToolCall(identity, readable, arguments if isinstance(arguments, dict) else {}, span, problem))


def _read_content(content: Json) -> str:
    """The text of a message: text, nothing, or a list of text parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_read_text_part(part) for part in content)
    raise RowError("value-not-text", f"the content must be text, not {content!r:.60}")


def _read_text_part(part: Json) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part
    if isinstance(text, str):
        return text
    raise RowError("value-not-text", f"only text parts are supported, not {part!r:.60}")


def _read_result(content: Json) -> str:
    """A result's text; an object that some exporters leave undumped is written as JSON."""
    texts = isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    if content is None or isinstance(content, str) or (texts and content):
        return _read_content(content)
    return json.dumps(content, ensure_ascii=False)
