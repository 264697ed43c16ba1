"""Conversations as an endpoint's messages, and an endpoint's responses as turns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from agentft.calls.format import declare_tool
from agentft.errors import RowError
from agentft.json_text import UnreadableError, kind_of, parse_json
from agentft.models import Finish, Usage
from agentft.models.service_errors import error_in
from agentft.records.keys import REASONING_KEYS, as_text, is_blank
from agentft.records.openai import parse_openai
from agentft.records.tools import older_calls
from agentft.types import Conversation, Json, ParseFailure, Text, ToolCall, ToolDefinition, ToolResult, Turn

__all__ = [
    "ChatResponse",
    "declare",
    "read_response",
    "read_sent",
    "read_turn",
    "thought_in",
    "write_messages",
    "write_reply",
]

_THOUGHT_KEYS = (*REASONING_KEYS, "reasoning_details", "thinking_blocks")
"""Keys of a message that hold its thought; the last two are lists (OpenRouter's and LiteLLM's)."""
_FINISH_KEYS = ("finish_reason", "native_finish_reason")
"""Keys of a choice that say why it ended; the second is OpenRouter's, for what the model's own server says."""
_FINISHES: dict[Json, Finish] = {"tool_calls": "stop", "function_call": "stop"}
_FINISHES |= {"length": "length", "max_tokens": "length", "model_length": "length"}
_FAILED = ("error", "abort", "insufficient_system_resource", "network_error")
"""Finish reasons of OpenRouter, SGLang, DeepSeek and Zhipu for answers that a server did not finish."""
_MALFORMED = re.compile("malformed_|unexpected_tool_call|too_many_tool_calls")
"""In finish reasons of Gemini and Bedrock for a call of the model's that its server cannot read."""
_FILTERED = re.compile(
    "content.?filter|sensitive|refusal|safety|recitation|blocklist|prohibited_content|spii|guardrail|error_toxic"
)
"""In finish reasons for an answer that a filter withheld or cut."""
_SAID = 300  # characters of an error in a message


_Signed: TypeAlias = Mapping[str, Mapping[str, Json]]
"""By the id of a call, what Gemini's server sent with it and wants back: as `extra_content` of the call or, through
OpenRouter, as `reasoning_details` of its message."""


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """The first choice of a response. `text`: that of `/completions`. `unread`: the server could not read a call."""

    message: Mapping[str, Json]
    text: str
    finish: Finish
    usage: Usage
    unread: str = ""


def declare(tools: Sequence[ToolDefinition]) -> list[Json]:
    """The tools as the API declares them."""
    return [declare_tool(tool) for tool in tools]


def write_messages(conversation: Conversation, reasoning: str = "", signed: _Signed | None = None) -> list[Json]:
    """The messages of a conversation.

    Many servers fail on a message with an unreadable call: its arguments are sent as `{}`, and a call without a name as
    text with its result in a user message.

    Args:
        conversation: what was said.
        reasoning: the key under which the server sends the model's reasoning; it gets back that of the last user turn.
        signed: by the id of a call, what the server sent with it and wants back.
    """
    messages: list[Json] = []
    current = max((index for index, turn in enumerate(conversation.turns) if turn.role == "user"), default=0)
    named: set[str] = set()
    for index, turn in enumerate(conversation.turns):
        if turn.role == "assistant":
            named |= {part.id for part in turn.parts if isinstance(part, ToolCall) and part.name}
            messages.append(write_reply(turn, reasoning if index > current else "", signed))
        elif turn.role == "tool":
            messages += _write_results(turn, named)
        elif turn.raw:
            texts = "".join(part.text for part in turn.parts if isinstance(part, Text))
            messages.append({"role": turn.role, "content": texts if turn.role == "system" else turn.raw})
    return messages


def write_reply(turn: Turn, reasoning: str = "", signed: _Signed | None = None) -> dict[str, Json]:
    """An assistant turn as a message; `reasoning`: the key of its thoughts, which are left out without one."""
    text = "".join(part.text for part in turn.parts if isinstance(part, Text) and not part.thought)
    thought = "".join(part.text for part in turn.parts if isinstance(part, Text) and part.thought)
    calls: list[Json] = []
    given: dict[str, Json] = {}
    for part in turn.parts:
        if isinstance(part, ToolCall) and part.name:
            arguments = json.dumps({} if part.parse_error else dict(part.arguments), ensure_ascii=False)
            function: Json = {"name": part.name, "arguments": arguments}
            given = {**given, **(signed or {}).get(part.id, {})}
            extra = {"extra_content": given.pop("extra_content")} if "extra_content" in given else {}
            calls.append({"id": _sent_id(part.id), "type": "function", "function": function, **extra})
        elif isinstance(part, ToolCall):
            text += turn.raw[part.span.start : part.span.end]
    message: dict[str, Json] = {"role": "assistant", "content": text, **given}
    if reasoning and (thought or calls):  # DeepSeek wants it with every call
        message[reasoning] = thought
    return {**message, "tool_calls": calls} if calls else message


def _write_results(turn: Turn, named: set[str]) -> Iterator[Json]:
    for part in turn.parts:
        if isinstance(part, ToolResult) and part.call_id in named:
            yield {"role": "tool", "tool_call_id": _sent_id(part.call_id), "content": part.content}
        elif isinstance(part, ToolResult):
            yield {"role": "user", "content": part.content}


def _sent_id(identity: str) -> str:
    """A call's id as it is sent: Mistral takes nine letters and digits only, which an id that was made here is not."""
    return f"call{identity[5:]:0>5}" if re.fullmatch("call_[0-9]{1,5}", identity) else identity


def read_sent(text: str, what: str) -> dict[str, Any]:
    """A JSON object that a server sent. `what` it is, for the message.

    Raises:
        UnreadableError: as for `read_response`, and for an error, which many servers send with status 200.
    """
    try:
        document = parse_json(text, unique_keys=True)
    except UnreadableError as error:
        raise UnreadableError(f"content: {error}") from None
    if not isinstance(document, dict):
        raise UnreadableError(f"structure: {what} is {kind_of(document)}, not an object")
    choices = document.get("choices")
    choice: Any = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    if said := error_in(document) or (choice if _reason(choice) in _FAILED else None):
        raise UnreadableError(f"structure: the server says {json.dumps(said, ensure_ascii=False)[:_SAID]}")
    return document


def read_response(body: str) -> ChatResponse:
    """The first choice of a response.

    Raises:
        UnreadableError: the body is not JSON or has no choice. The detail begins with the class of the failure:
            `structure` or `content`, as for calls.
    """
    document = read_sent(body, "the body")
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise UnreadableError("structure: there is no choice")
    message, text = choice.get("message"), choice.get("text")
    if not isinstance(message, dict) and not isinstance(text, str):
        raise UnreadableError("structure: the choice has no message")
    reason, usage = _reason(choice), document.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    message = {"content": as_text(text), **(message if isinstance(message, dict) else {})}
    unread = _MALFORMED.search(reason) and not message.get("tool_calls")
    return ChatResponse(
        message,
        as_text(text),
        "unread" if unread else "filtered" if _FILTERED.search(reason) else _FINISHES.get(reason, "end"),
        Usage(_count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))),
        f"the server could not read it ({reason})" if unread else "",
    )


def _reason(choice: Mapping[str, Json]) -> str:
    """Why an answer ended, in lower case."""
    said = [as_text(choice.get(key)).lower() for key in _FINISH_KEYS]
    return next((one for one in said if _MALFORMED.search(one)), said[0])


def _count(value: Json) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def read_turn(message: Mapping[str, Json], before: Conversation, unread: str = "") -> Turn:
    """The assistant's turn in a message. Calls keep their ids; a call without one of its own gets a new one.

    A call that is not an object with a function is a failure of structure, one with unusable arguments (invalid JSON, a
    repeated key) one of content.

    Raises:
        UnreadableError: the content is not text.
    """
    made = sum(isinstance(part, ToolCall) for turn in before.turns for part in turn.parts)
    listed = message.get("tool_calls")
    written: list[Json] = [*listed] if isinstance(listed, list) else [] if is_blank(listed) else [listed]
    written += older_calls(message, written)
    calls: list[Json] = []
    failures: list[ParseFailure | None] = []
    taken: set[str] = set()
    for number, call in enumerate(written, made):
        identity = str(call.get("id") or "") if isinstance(call, dict) else ""
        identity = identity if identity and identity not in taken else f"call_{number}"
        taken.add(identity)
        function = call.get("function", call) if isinstance(call, dict) else None
        failures.append(_failure(call, function))
        calls.append({"id": identity, "function": function if isinstance(function, dict) else {"arguments": "{}"}})
    if unread:  # see `ChatResponse.unread`
        failures.append(ParseFailure("structure", unread))
        calls.append({"id": f"call_{made + len(calls)}", "function": {"arguments": "{}"}})
    kept: dict[str, Json] = {key: message.get(key) for key in ("content", "refusal")}
    kept["reasoning"] = thought_in(message)
    try:
        turn = parse_openai([{**kept, "role": "assistant", "tool_calls": calls}])[0][0]
    except RowError as error:
        raise UnreadableError(f"structure: {error.detail}") from None
    found = iter(failures)
    parts = [
        replace(part, parse_error=next(found) or part.parse_error) if isinstance(part, ToolCall) else part
        for part in turn.parts
    ]
    return replace(turn, parts=tuple(parts))


def thought_in(message: Mapping[str, Json]) -> str:
    """The thought in a message, or in a piece of one; some servers send it in parts, and under several keys."""
    for key in _THOUGHT_KEYS:
        value = message.get(key)
        parts = value if isinstance(value, list) else [value]
        texts = [one.get(name) for one in parts if isinstance(one, dict) for name in ("text", "thinking", "summary")]
        if said := "".join(map(as_text, [*parts, *texts])):
            return said
    return ""


def _failure(call: Json, function: Json) -> ParseFailure | None:
    """What `make_call` cannot see: a call that is no object, and a repeated key in arguments."""
    if not isinstance(function, dict):
        return ParseFailure("structure", f"a call must be an object with a function, not {kind_of(call)}")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            parse_json(arguments, unique_keys=True)
        except UnreadableError as error:
            return ParseFailure("content", f"arguments: {error}") if "occurs twice" in str(error) else None
    return None
