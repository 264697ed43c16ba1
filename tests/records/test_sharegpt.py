"""LLaMA-Factory's and ms-swift's rows are read as the OpenAI messages that say the same."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.errors import RowError
from agentft.records import parse_row
from agentft.types import Conversation, Json, Text, ToolCall, ToolResult
from tests.records.rows import fixture

CALL = '{"name": "f", "arguments": {"a": 1}}'


def read(*turns: Json, **more: Json) -> Conversation:
    return parse_row({"conversations": list(turns), **more}, "x")


def turn(role: str, value: Any) -> dict[str, Json]:
    return {"from": role, "value": value}


def test_roles_become_the_ones_of_the_data_model() -> None:
    rows = {name: parse_row(row, "x") for name, row in fixture("sharegpt").items()}
    roles = {name: [one.role for one in row.turns] for name, row in rows.items()}
    assert roles["call-and-result"] == ["system", "user", "assistant", "tool", "assistant"]
    for name in ("several-calls", "ms-swift"):
        calls = [part for one in rows[name].turns for part in one.parts if isinstance(part, ToolCall)]
        results = [part for one in rows[name].turns for part in one.parts if isinstance(part, ToolResult)]
        assert [call.arguments for call in calls] == [{"city": "Rome"}, {"city": "Oslo"}]
        assert [(result.call_id, result.content) for result in results] == [
            (call.id, text) for call, text in zip(calls, ("30", "9"), strict=True)
        ]
    assert not any(row.unread for row in rows.values())


def test_a_thought_may_precede_the_call() -> None:
    thought, call = read(turn("human", "hi"), turn("function_call", f"<think>\nwhy\n</think>\n\n{CALL}")).turns[1].parts
    assert isinstance(thought, Text)
    assert isinstance(call, ToolCall)
    assert (thought.thought, "why" in thought.text, call.arguments) == (True, True, {"a": 1})


def test_a_turn_of_calls_may_be_left_out_of_the_loss() -> None:
    row = read(turn("human", "hi"), turn("function_call", CALL) | {"loss": False}, turn("observation", "1"))
    assert [one.excluded for one in row.turns] == [False, True, False]
    assert not row.unread


def test_calls_of_openai_and_results_of_these_roles_are_read_in_one_row() -> None:
    call: Json = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages: list[Json] = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [call]}]
    messages.append({"role": "observation", "tool_call_id": "c1", "name": "f", "content": "1"})
    row = parse_row({"messages": messages}, "x")
    assert [type(part) for one in row.turns[1:] for part in one.parts] == [ToolCall, ToolResult]
    assert row.unread == ()


def test_other_keys_of_a_turn_of_calls_are_named() -> None:
    row = read(turn("human", "hi"), turn("function_call", CALL) | {"plan": "p"}, turn("observation", "1") | {"loss": 1})
    assert row.unread == ("function_call.plan", "observation.loss")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([turn("function_call", "{bad"), turn("observation", "1")], "call-not-object"),
        ([turn("function_call", "")], "call-not-object"),
        ([turn("observation", "1"), turn("gpt", "one")], "result-without-call"),
        ([turn("function_call", CALL), turn("bot", "1")], "unknown-role"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_turn(turns: list[Json], reason: str) -> None:
    with pytest.raises(RowError) as refused:
        read(turn("human", "hi"), *turns)
    assert refused.value.reason == reason
    assert refused.value.turn == (2 if reason == "unknown-role" else 1)


@pytest.mark.parametrize("value", [{"city": "Rome"}, '{"city": "Rome"}'], ids=["object", "text"])
@pytest.mark.parametrize("role", ["tool_call", "function_call"])
def test_the_name_of_a_call_may_stand_beside_its_arguments(role: str, value: Json) -> None:
    turns: list[Json] = [
        {"from": "human", "value": "Hi"},
        {"from": role, "name": "f", "value": value},
        {"from": "observation", "value": "3"},
    ]
    row = parse_row({"conversations": turns}, "x")
    (call,) = row.turns[1].parts
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments, call.parse_error, row.unread) == ("f", {"city": "Rome"}, None, ())


def test_turns_of_tools_are_results_and_without_a_readable_call_the_notation_is_named() -> None:
    def turns(text: str, **more: Json) -> Json:
        asked: list[Json] = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": text, **more}]
        return [*asked, {"from": "tool", "value": "3"}, {"from": "gpt", "value": "It is 3."}]

    call: Json = [{"function": {"name": "f", "arguments": "{}"}}]
    row = parse_row({"conversations": turns("", tool_calls=call)}, "x")
    assert [turn.role for turn in row.turns] == ["user", "assistant", "tool", "assistant"]
    with pytest.raises(RowError, match=r"no call is open; keys that are not read: f\(a=1\)"):
        parse_row({"conversations": turns("[Market API(a=1)]")}, "x")
    tagged = turns('<tool_call>{"name": "f", "arguments": {}}</tool_call>')
    assert parse_row({"conversations": tagged}, "x").source == "tagged"


@pytest.mark.parametrize("turn", [{"from": "observation"}, {"from": "observation", "value": None}])
def test_a_result_without_a_text_is_refused(turn: dict[str, Json]) -> None:
    call: Json = {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}
    with pytest.raises(RowError, match="the result has no `content`; keys that are not read: none"):
        parse_row({"conversations": [{"from": "human", "value": "Hi"}, call, turn]}, "x")
