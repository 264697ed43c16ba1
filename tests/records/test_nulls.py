"""Nulls that Arrow adds: left out of schemas, rejected in arguments unless the tool allows them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentft.errors import RowError
from agentft.records import parse_row
from agentft.records.tools import read_parameters
from agentft.types import Json
from tests.records.rows import calls


def row(arguments: object, **properties: object) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    turns = [{"role": "user", "content": "Rome?"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    return {"messages": turns, "tools": [{"function": {"name": "weather", "parameters": parameters}}]}


CITY = {"type": "string", "enum": None, "items": None}


def test_nulls_are_left_out_of_schemas() -> None:
    nested = {"type": "object", "properties": {"a": CITY, "b": None}, "default": None}
    (tool,) = parse_row(row("{}", city=CITY, query=None, filter=nested), "x").tools
    inner = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert tool.parameters["properties"] == {"city": {"type": "string"}, "filter": inner}
    assert read_parameters({"city": {"type": "string"}, "query": None})["properties"] == {"city": {"type": "string"}}


def test_nulls_that_json_schema_allows_stay() -> None:
    schema: Any = {"type": "object", "properties": {"a": {"enum": ["x", None], "default": None, "const": None}}}
    assert read_parameters(schema) == schema


@pytest.mark.parametrize(
    ("arguments", "properties", "name"),
    [
        ({"city": "Rome", "query": None}, {"city": CITY, "query": None}, "query"),
        ({"city": "Rome", "query": None}, {"city": CITY}, "query"),
        ({"city": "Rome", "unit": None}, {"city": CITY, "unit": {"type": "string"}}, "unit"),
        ({"at": {"x": 1, "y": None}}, {"at": {"type": "object", "properties": {"x": {"type": "integer"}}}}, "at.y"),
        ({"at": [{"y": None}]}, {"at": {"type": "array", "items": {"properties": {"x": {}}}}}, "at.y"),
        ('{"city": "Rome", "query": null}', {"city": CITY}, "query"),
        ("{'city': 'Rome', 'query': None}", {"city": CITY}, "query"),
    ],
)
def test_a_null_argument_that_the_tool_does_not_allow_rejects_the_row(
    arguments: object, properties: dict[str, Any], name: str
) -> None:
    with pytest.raises(RowError, match=f"the argument {name} is null") as caught:
        parse_row(row(arguments, **properties), "x")
    assert (caught.value.reason, caught.value.turn) == ("null-arguments", 1)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["string", "null"]},
        {"type": "null"},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "string", "nullable": True},
        {"enum": ["x", None]},
        {"description": "Anything."},
        True,
    ],
)
def test_a_null_argument_that_the_tool_allows_stays(schema: object) -> None:
    (call,) = calls(parse_row(row({"unit": None}, unit=schema), "x"))
    assert call.arguments == {"unit": None}


def test_a_tool_that_declares_no_parameters_does_not_say_what_is_allowed() -> None:
    (call,) = calls(parse_row(row({"zone": None}), "x"))
    assert call.arguments == {"zone": None}


def test_a_null_in_json_text_was_written_by_somebody() -> None:
    (call,) = calls(parse_row(row(json.dumps({"unit": None}), unit={"type": "string"}), "x"))
    assert call.arguments == {"unit": None}


@pytest.mark.parametrize("key", ["input_schema", "inputSchema", "arguments", "parameters"])
def test_a_schema_under_the_keys_of_anthropic_mcp_and_toolmind_is_read(key: str) -> None:
    schema: Any = {"type": "object", "properties": {"city": {"type": "string"}}}
    turns: Any = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    conversation = parse_row({"messages": turns, "tools": [{"name": "f", key: schema}]}, "x")
    assert (conversation.tools[0].parameters, conversation.unread) == (schema, ())


@pytest.mark.parametrize("before", [{"function_call": {}}, {"tool_calls": "[]"}, {"tool_calls": None}])
def test_blank_calls_of_an_earlier_turn_do_not_shift_the_check(before: dict[str, Any]) -> None:
    turns = row({"city": None}, city={"type": "string"})
    turns["messages"][:0] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello.", **before},
    ]
    with pytest.raises(RowError, match="the argument city is null") as caught:
        parse_row(turns, "x")
    assert caught.value.turn == 3


def test_calls_in_json_text_are_checked_as_structs() -> None:
    turns = row({"city": None}, city={"type": "string"})
    turns["messages"][1]["tool_calls"] = json.dumps(turns["messages"][1]["tool_calls"])
    with pytest.raises(RowError, match="the argument city is null"):
        parse_row(turns, "x")


def test_a_system_text_beside_the_turns_does_not_shift_the_turn() -> None:
    with pytest.raises(RowError) as caught:
        parse_row({"system": "You help.", **row({"city": None}, city={"type": "string"})}, "x")
    assert caught.value.turn == 1


def test_a_null_function_of_a_tool_or_call_is_an_absent_one() -> None:
    call: Json = {"id": "c1", "function": None, "name": "f", "arguments": "{}"}
    turns: list[Json] = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    parsed = parse_row({"messages": turns, "tools": [{"function": None, "name": "f", "parameters": None}]}, "x")
    assert ([tool.name for tool in parsed.tools], [call.name for call in calls(parsed)]) == (["f"], ["f"])
