"""Rows of Hermes and Qwen, whose declarations, calls and results are tags in the turns' texts."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.errors import RowError
from agentft.records import parse_row
from agentft.types import Conversation, Declarations, Json, Text, ToolCall, ToolResult
from tests.records.rows import calls, check_spans, fixture

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
ROWS = fixture("tagged")


def read(*turns: Json, **more: Json) -> Conversation:
    return parse_row({"conversations": list(turns), **more}, "x")


def turn(role: str, value: Any) -> dict[str, Json]:
    return {"from": role, "value": value}


def results(row: Conversation) -> list[ToolResult]:
    return [part for one in row.turns for part in one.parts if isinstance(part, ToolResult)]


@pytest.mark.parametrize(
    ("name", "arguments", "contents"),
    [
        ("hermes", [{"symbol": "A"}, {"symbol": "B"}], ['{"price": 1}', '{"price": 2}']),
        ("literal", [{"symbol": "A"}], ["1"]),
        ("qwen", [{"symbol": "A"}, {"symbol": "A"}], ["Alpha", "1"]),
    ],
)
def test_calls_and_results_are_read_and_linked(name: str, arguments: list[Json], contents: list[str]) -> None:
    row = parse_row(ROWS[name], "x")
    assert row.source == "tagged"
    assert [one.role for one in row.turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert [call.arguments for call in calls(row)] == arguments
    assert [call.parse_error for call in calls(row)] == [None] * len(arguments)
    assert [(one.call_id, one.content) for one in results(row)] == [
        (call.id, content) for call, content in zip(calls(row), contents, strict=True)
    ]
    assert not row.unread
    for one in row.turns:
        check_spans(one)


@pytest.mark.parametrize(
    ("name", "texts", "tools"),
    [
        ("hermes", [], ["get_price"]),
        ("literal", ["Be brief. "], ["get_price"]),
        ("qwen", ["Be brief.\n\n", "\nToday is Friday."], ["get_price", "get_name"]),
    ],
)
def test_declarations_and_instructions_are_apart_from_the_persona(
    name: str, texts: list[str], tools: list[str]
) -> None:
    row = parse_row(ROWS[name], "x")
    assert [tool.name for tool in row.tools] == tools
    assert row.tools[0].parameters["required"] == ["symbol"]
    parts = row.turns[0].parts
    assert [part.text for part in parts if isinstance(part, Text)] == texts
    assert sum(isinstance(part, Declarations) for part in parts) == 1


def test_a_system_text_without_declarations_is_the_persona() -> None:
    row = read(turn("system", "Use <tools> well."), turn("human", "hi"), turn("gpt", CALL), tools='[{"name": "f"}]')
    assert row.turns[0].parts == (Text("Use <tools> well.", row.turns[0].parts[0].span),)
    assert [tool.name for tool in row.tools] == ["f"]


def test_other_tools_beside_the_declared_ones_are_named_as_not_read() -> None:
    system = '<tools>\n[{"name": "f"}]\n</tools>'
    row = read(turn("system", system), turn("human", "hi"), turn("gpt", CALL), tools='[{"name": "g"}]')
    assert ([tool.name for tool in row.tools], row.unread) == (["f"], ("tools",))


def test_results_find_their_calls_by_name() -> None:
    other = CALL.replace('"f"', '"g"')
    answers = "".join(
        f'<tool_response>{{"name": "{name}", "content": "of {name}"}}</tool_response>' for name in ("g", "f")
    )
    row = read(turn("human", "hi"), turn("gpt", f"{CALL}\n{other}"), turn("tool", answers))
    first, second = calls(row)
    assert [(one.call_id, one.content) for one in results(row)] == [(second.id, "of g"), (first.id, "of f")]
    check_spans(row.turns[2])


def test_results_may_come_in_several_turns_without_tags() -> None:
    row = read(turn("human", "hi"), turn("gpt", f"{CALL}\n{CALL}"), turn("tool", "1"), turn("tool", "2"))
    assert [one.content for one in results(row)] == ["1", "2"]
    assert len({call.id for call in calls(row)}) == 2


def test_an_unreadable_call_is_kept_with_its_failure() -> None:
    row = read(turn("human", "hi"), turn("gpt", "<tool_call>\n{bad}\n</tool_call>"))
    assert isinstance(row.turns[1].parts[0], ToolCall)
    assert row.turns[1].parts[0].parse_error is not None


@pytest.mark.parametrize(
    ("turns", "reason", "place"),
    [
        ([turn("gpt", CALL), turn("tool", "1"), turn("tool", "2")], "result-without-call", 2),
        ([turn("gpt", CALL), turn("tool", '{"name": "g", "content": 1}')], "result-without-call", 1),
        ([turn("gpt", CALL), turn("system", "late")], "turn-order", 1),
        ([turn("system", "<tools>\n{bad\n</tools>"), turn("gpt", CALL)], "unreadable-tools", 0),
        ([turn("gpt", CALL), turn("robot", "1")], "unknown-role", 1),
        ([turn("gpt", CALL), turn("tool", None)], "value-not-text", 1),
        ([turn("gpt", CALL), "text"], "turn-not-object", 1),
    ],
)
def test_bad_rows_are_refused_with_their_turn(turns: list[Json], reason: str, place: int) -> None:
    with pytest.raises(RowError) as refused:
        read(*turns)
    assert (refused.value.reason, refused.value.turn) == (reason, place)


def test_a_declaration_is_a_line_whatever_its_text_holds() -> None:
    system, *others = ROWS["qwen"]["messages"]
    told = system["content"].replace('"description": "', '"description": "a\u2028b\x85c\x1d ')
    row = parse_row({"messages": [{**system, "content": told}, *others]}, "x")
    assert [tool.name for tool in row.tools] == ["get_price", "get_name"]
    assert all(tool.description.startswith("a\u2028b\x85c") for tool in row.tools)
