from __future__ import annotations

import json
from typing import Any

import pytest

from agentft.errors import RowError
from agentft.records import parse_row
from agentft.types import Conversation, Json
from tests.records.rows import calls, check_spans, fixture, results

ROWS = fixture("msagent")
UNREADABLE = {"unreadable-call", "no-api-name", "surplus-bracket-in-call"}


def parse(name: str) -> Conversation:
    return parse_row(ROWS[name], "default")


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_kept_completely(name: str) -> None:
    row, conversation = ROWS[name], parse(name)
    assert conversation.source == "msagent"
    assert conversation.id == row.get("id", "default")
    for turn in conversation.turns:
        check_spans(turn)
    written = row.get("conversations", row.get("messages"))
    if isinstance(written, list):  # byte for byte what the row says
        assert [turn.raw for turn in conversation.turns] == [turn.get("value", turn.get("content")) for turn in written]


@pytest.mark.parametrize("name", ROWS)
def test_only_broken_calls_are_unreadable(name: str) -> None:
    errors = [call.parse_error for call in calls(parse(name)) if call.parse_error]
    assert bool(errors) == (name in UNREADABLE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("canonical", [("city_weather", {"city": "北京"}, "http://weather.test/v1/city_weather")]),
        ("bare-json", [("city_weather", {"city": "北京"}, "http://weather.test/v1/city_weather")]),
        ("missing-url", [("find_recipe", {"dish": "soup"}, None)]),
        ("missing-parameters", [("city_weather", {}, "http://weather.test/v1/city_weather")]),
        ("parameters-as-text", [("city_weather", {"city": "北京"}, "http://weather.test/v1/city_weather")]),
        (
            "raw-newline-and-tab-in-text",
            [("read_aloud", {"text": "line one\nline two\tend"}, "http://speech.test/tts/read")],
        ),
        (
            "python-literal-call",
            [("city_weather", {"city": "北京", "days": None, "now": True}, "http://weather.test/v1/city_weather")],
        ),
        ("parallel-list", [("city_weather", {"city": "北京"}, None), ("city_weather", {"city": "上海"}, None)]),
        ("same-tool-three-urls", [("city_weather", {"city": "Paris"}, "http://10.1.2.4:5000/v1/city_weather")]),
        ("no-tools", []),
    ],
)
def test_calls(name: str, expected: list[tuple[str, dict[str, Any], str | None]]) -> None:
    assert [(call.name, call.arguments, call.endpoint) for call in calls(parse(name))] == expected


def test_results_stay_raw_text() -> None:
    assert [result.content for result in results(parse("result-with-ellipsis"))] == ["{'hours': [1, 2, 3, ...]}"]
    assert [result.content for result in results(parse("plain-text-result"))] == ["晴，31度"]
    assert [result.content for result in results(parse("result-with-inner-quotes"))] == [
        '{"text": "he said "sunny" today"}'
    ]
    assert [result.call_id for result in results(parse("two-calls"))] == ["call_0", "call_1"]


def test_conversations_may_be_text() -> None:
    expected = parse("conversations-as-json-text")
    assert len(calls(expected)) == 1
    assert parse("conversations-as-python-text").turns == expected.turns


def test_msagent_values_under_openai_keys_are_msagent_and_keep_their_tools() -> None:
    conversation = parse("openai-envelope")
    assert [tool.name for tool in conversation.tools] == ["city_weather"]
    assert [result.content for result in results(conversation)] == ["{}"]
    assert parse_row({"messages": json.dumps(ROWS["openai-envelope"]["messages"])}, "x").turns == conversation.turns


def test_ids() -> None:
    turns: list[Json] = [{"from": "assistant", "value": "Hi"}]
    missing: list[Json] = [None, "", True, [1]]
    assert parse_row({"id": 7, "conversations": turns}, "x").id == "7"
    for identity in missing:
        assert parse_row({"id": identity, "conversations": turns}, "x").id == "x"


def turn(role: object, value: object) -> dict[str, Any]:
    return {"from": role, "value": value}


USER, ASSISTANT = turn("user", "Hi"), turn("assistant", "Hello")
REACT = "Thought: look\nAction: weather\nAction Input: {'city': 'Rome'}\nObservation: sunny"


@pytest.mark.parametrize(
    ("turns", "reason", "index", "offset"),
    [
        (None, "no-turns", None, None),
        ([], "no-turns", None, None),
        ("[{'from'", "no-turns", None, None),
        ("{}", "no-turns", None, None),
        (["Hi"], "turn-not-object", 0, None),
        ([USER, turn("robot", "x")], "unknown-role", 1, None),
        ([USER, turn(7, "x")], "unknown-role", 1, None),
        ([USER, turn("assistant", None)], "value-not-text", 1, None),
        ([USER, turn("assistant", {"a": 1})], "value-not-text", 1, None),
        ([USER], "no-assistant", None, None),
        ([USER, ASSISTANT, ASSISTANT], "turn-order", 2, None),
        ([USER, ASSISTANT, turn("system", "late")], "turn-order", 2, None),
        ([turn("system", "Persona. <|user|>:Hi <|assistant|>:Hello"), USER, ASSISTANT], "swallowed-dialogue", 0, 9),
        ([USER, turn("assistant", "So:\n" + REACT)], "react-dialogue", 1, 18),
        ([turn("system", 'Tools: {"name": "f", "description": oops}'), USER, ASSISTANT], "unreadable-tools", 0, 7),
    ],
)
def test_rejections_have_a_reason_a_turn_and_an_offset(
    turns: object, reason: str, index: int | None, offset: int | None
) -> None:
    row: dict[str, Any] = {"conversations": turns}
    with pytest.raises(RowError) as caught:
        parse_row(row, "x")
    assert (caught.value.reason, caught.value.turn, caught.value.offset) == (reason, index, offset)


def test_single_react_keywords_do_not_reject_a_row() -> None:
    for text in ("Final Answer: 4\nObservation: none", "Action: none", "The words Action Input: mean nothing here"):
        assert parse_row({"conversations": [USER, turn("assistant", text)]}, "x").turns[1].raw == text


def test_a_row_of_no_known_format() -> None:
    with pytest.raises(RowError, match="its keys are prompt, answer") as caught:
        parse_row({"prompt": "x", "answer": "y"}, "x")
    assert caught.value.reason == "unknown-format"


def test_turns_with_from_are_msagent_under_messages_too() -> None:
    turns: Any = [USER, turn("gpt", "Hello")]
    assert parse_row({"messages": turns}, "x") == parse_row({"conversations": turns}, "x")


@pytest.mark.parametrize(
    ("call", "key"),
    [
        ('{"api_name": "f", "arguments": {"city": "Rome"}}', "arguments"),
        ("{'api_name': 'f', 'args': {'city': 'Rome'}}", "args"),
        ('{"api_name": "f", "parameters": {}, "input": "{\\"city\\": 1}"}', "input"),
        ('{"api_name": "f", "parameters": {"input": {"city": "Rome"}}}', ""),
        ('{"api_name": "f", "arguments": {}}', ""),
    ],
)
def test_a_call_whose_arguments_stand_under_another_key_is_not_taken_for_one_without(call: str, key: str) -> None:
    row: dict[str, Any] = {"conversations": [USER, turn("gpt", f"Well. <|startofthink|>{call}<|endofthink|>")]}
    if not key:
        assert len(calls(parse_row(row, "x"))) == 1
        return
    with pytest.raises(RowError, match=f"the call 'f' has `{key}` instead of `parameters`") as caught:
        parse_row(row, "x")
    place = row["conversations"][1]["value"].index("<|startofthink|>")
    assert (caught.value.reason, caught.value.turn, caught.value.offset) == ("call-not-object", 1, place)
