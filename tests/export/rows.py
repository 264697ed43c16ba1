"""Conversations that texts for servers often get wrong."""

from __future__ import annotations

import json
from typing import Any

from agentft.records import parse_row
from agentft.types import Conversation, ToolDefinition
from tests.engine.samples import msagent_row

__all__ = ["awkward", "declared", "plain", "tools_of"]

_WEATHER: dict[str, Any] = {
    "name": "weather_now",
    "description": 'Now, in a "city": 城市, <b> & {{ braces }}',
    "parameters": {
        "type": "object",
        "properties": {
            "unit": {"type": "string", "enum": ["c", "f"]},
            "city": {"description": "Its name", "type": "string"},
            "days": {"type": "integer", "minimum": 1},
        },
        "required": ["city"],
    },
}
_CLOCK: dict[str, Any] = {"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}}
_TOOLS = [{"type": "function", "function": one} for one in (_WEATHER, _CLOCK)]


def _call(identity: str, name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": identity, "type": "function", "function": function}


def _result(identity: str, content: str) -> dict[str, str]:
    return {"role": "tool", "tool_call_id": identity, "content": content}


def _row(number: int, *messages: dict[str, Any], tools: bool = True) -> Conversation:
    row: dict[str, Any] = {"messages": list(messages), **({"tools": _TOOLS} if tools else {})}
    return parse_row(row, f"row-{number}")


def plain(thought: str = "") -> list[Conversation]:
    """With and without tools and system text; several calls, results, Chinese, quotes and line breaks."""
    reasoning = {"reasoning_content": thought} if thought else {}
    user, answer = {"role": "user", "content": '北京的天气?\n"now"'}, {"role": "assistant", "content": "20 °C.\n\nBye"}
    system = {"role": "system", "content": 'You are "kind".\nAnswer in 中文.'}
    both = [_call("a1", "weather_now", unit="c", city='北"京\n'), _call("a2", "clock")]
    one = [_call("a3", "weather_now", city="Oslo", days=2)]
    return [
        _row(0, {"role": "user", "content": "hi"}, answer, {"role": "user", "content": "more"}, answer, tools=False),
        _row(1, system, user, {**answer, **reasoning}, tools=False),
        _row(2, system, user, {"role": "assistant", "content": "Wait.", "tool_calls": both, **reasoning},
             _result("a1", '{"t": 20}'), _result("a2", "12:00\n"), {**answer, **reasoning}, user, answer),
        _row(3, user, {"role": "assistant", "content": "", "tool_calls": one, **reasoning}, _result("a3", "ok"),
             {"role": "assistant", "content": "", "tool_calls": [_call("a4", "clock")]}, _result("a4", ""), answer),
        _row(4, {"role": "user", "content": "no tool"}, answer),
    ]  # fmt: skip


def awkward() -> list[Conversation]:
    """As `plain`, with outer white space, characters that Go escapes and values in values."""
    asked = [_call("a1", "weather_now", city="a<b>&c"), _call("a2", "clock", at={"z": [1, 2.0], "a": None})]
    return [
        _row(9, {"role": "system", "content": " spaced \n"}, {"role": "user", "content": " q "},
             {"role": "assistant", "content": None, "tool_calls": asked}, _result("a1", "x"), _result("a2", "y"),
             {"role": "assistant", "content": "done"}),
    ]  # fmt: skip


def declared() -> list[Conversation]:
    """MS-Agent rows, whose system text declares the tools in the data set's own wording."""
    rows: list[Any] = [msagent_row(city, at, call=city != "none") for at, city in enumerate(["Oslo", "北京", "none"])]
    return [parse_row(row, f"declared-{at}") for at, row in enumerate(rows)]


def tools_of(rows: list[Conversation]) -> list[ToolDefinition]:
    """All tools of the rows."""
    return [tool for row in rows for tool in row.tools]
