"""Records of LLaMA-Factory and ms-swift, in which calls and results are turns with roles of their own."""

from __future__ import annotations

from collections.abc import Sequence

from agentft.records.keys import REASONING_KEYS
from agentft.records.openai import OPENAI_KEYS, parse_openai
from agentft.records.tagged import holds_tagged
from agentft.records.turns import role_of, text_of
from agentft.types import Json, ToolDefinition, Turn

__all__ = ["SHAREGPT_KEYS", "holds_sharegpt", "parse_sharegpt"]

_CALLS = ("function_call", "tool_call")
_RESULTS = ("observation", "tool_response")
_ROLES = {"human": "user", "gpt": "assistant", **dict.fromkeys(_CALLS, "assistant"), **dict.fromkeys(_RESULTS, "tool")}

SHAREGPT_KEYS: dict[str, frozenset[str]] = {
    "": frozenset({"role", "content", "from", "value"}),
    **dict.fromkeys(("gpt", "assistant"), OPENAI_KEYS["assistant"]),
    **dict.fromkeys(_CALLS, frozenset({"name", *REASONING_KEYS})),
    **dict.fromkeys(("tool", "function", *_RESULTS), OPENAI_KEYS["tool"]),
}
"""The keys of a turn that are read, by role."""


def holds_sharegpt(key: str, items: Sequence[Json]) -> bool:
    """Whether a turn has a role that stands for calls or results; `tool` only where no call is tagged in a text."""
    turns = [item for item in items if isinstance(item, dict)]
    results = any(turn.get("from") in ("tool", "function") for turn in turns)
    return any(role_of(turn) in (*_CALLS, *_RESULTS) for turn in turns) or (results and not holds_tagged(key, items))


def parse_sharegpt(items: Sequence[Json]) -> tuple[list[Turn], tuple[ToolDefinition, ...]]:
    """The turns, read as the OpenAI messages that say the same. The turns declare no tools.

    A turn of calls holds one call or a list, as an object or JSON text, which a thought may precede.

    Raises:
        RowError: see `parse_openai`.
    """
    return parse_openai([_message(item) if isinstance(item, dict) else item for item in items])


def _message(item: dict[str, Json]) -> Json:
    named, content = role_of(item), text_of(item)
    others = {key: value for key, value in item.items() if key not in SHAREGPT_KEYS[""]}
    message = others | {"role": _ROLES.get(named, named) if isinstance(named, str) else named, "content": content}
    if named not in _CALLS:
        return message if content is not None else {key: message[key] for key in message if key != "content"}
    if item.get("name") and not (isinstance(content, dict) and "name" in content):
        content = {"name": item["name"], "arguments": content}
    thought, calls = "", content
    if isinstance(content, str):
        before, end, rest = content.rpartition("</think>")
        thought, calls = before + end, rest.strip()
    several = isinstance(calls, list) or (isinstance(calls, str) and calls.startswith("["))
    return message | {"content": thought, "tool_calls": calls if several else [calls]}
