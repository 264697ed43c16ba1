from __future__ import annotations

import json
import re
from typing import Any

import pytest

from agentft.errors import RowError
from agentft.records import parse_row
from agentft.types import Conversation, Json, Text, ToolCall, ToolResult
from tests.records.rows import PUBLIC, SHARED, calls, check_spans, fixture, load, results

ROWS = fixture("openai")
BLOCK = "<think>\nEasy.\n</think>\n\n"
UNREADABLE = {"arguments-broken", "arguments-a-list", "call-without-name"}


def parse(name: str) -> Conversation:
    return parse_row(ROWS[name], "default")


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_kept(name: str) -> None:
    conversation = parse(name)
    assert (conversation.id, conversation.source) == (name, "openai")
    for turn in conversation.turns:
        check_spans(turn)
    errors = [call.parse_error for call in calls(conversation) if call.parse_error]
    assert bool(errors) == (name in UNREADABLE)


def answers_follow_calls(row: dict[str, Any]) -> bool:
    """Whether every result in a public row names a call before it: two rows of glaive-demo have theirs as text."""
    called: set[str] = set()
    for message in row["messages"]:
        called |= {call["id"] for call in message.get("tool_calls", ())}
        if message["role"] == "tool" and message["tool_call_id"] not in called:
            return False
    return True


@pytest.mark.slow
def test_public_rows_keep_every_call_result_and_text() -> None:
    rows = list(load(PUBLIC)) + (list(load(SHARED)) if SHARED.exists() else [])
    for row in rows:
        if not answers_follow_calls(row):
            with pytest.raises(RowError, match="result-without-call"):
                parse_row(row, "default")
            continue
        conversation = parse_row(row, "default")
        for turn in conversation.turns:
            check_spans(turn)
        written = [call["function"] for message in row["messages"] for call in message.get("tool_calls", ())]
        assert [(call.name, call.arguments) for call in calls(conversation)] == [
            (function["name"], json.loads(function["arguments"])) for function in written
        ]
        assert [result.content for result in results(conversation)] == [
            message["content"] for message in row["messages"] if message["role"] == "tool"
        ]
        written_texts = [
            (m.get("reasoning") or "") + (m["content"] or "") for m in row["messages"] if m["role"] == "assistant"
        ]
        assert written_texts == [
            "".join(part.text for part in turn.parts if isinstance(part, Text))
            for turn in conversation.turns
            if turn.role == "assistant"
        ]
        assert [tool.name for tool in conversation.tools] == [tool["function"]["name"] for tool in row["tools"]]
        assert [tool.parameters for tool in conversation.tools] == [t["function"]["parameters"] for t in row["tools"]]


def test_a_call_and_its_result() -> None:
    conversation = parse("call-and-result")
    assert [turn.role for turn in conversation.turns] == ["system", "user", "assistant", "tool", "assistant"]
    (call,), (result,) = calls(conversation), results(conversation)
    assert (call.id, call.name, call.arguments, call.endpoint) == ("c1", "current_weather", {"city": "Rome"}, None)
    assert (result.call_id, result.content, result.is_error) == ("c1", '{"high": 30}', False)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("arguments-with-odd-spacing", '{"name":"current_weather","arguments":{ "city" :\t"Rome" }}'),
        ("arguments-as-object", '{"name":"current_weather","arguments":{"city":"Rome","days":2}}'),
        ("text-beside-call", 'Let me look.{"name":"current_weather","arguments":{"city":"Rome"}}'),
        ("reasoning", 'I need the weather.Sure.{"name":"current_weather","arguments":{"city":"Rome"}}'),
        ("arguments-empty", '{"name":"current_weather","arguments":{}}'),
        ("arguments-broken", '{"name":"current_weather","arguments":{"city": "Rome"}'),
        ("refusal", "I cannot help with that."),
    ],
)
def test_raw_is_the_assistants_output(name: str, raw: str) -> None:
    assert parse(name).turns[1].raw == raw


def test_spans_of_parallel_calls_tile() -> None:
    conversation = parse("parallel")
    turn = conversation.turns[1]
    assert [turn.raw[call.span.start : call.span.end] for call in calls(conversation)] == [
        '{"name":"current_weather","arguments":{"city":"Rome"}}',
        '{"name":"current_weather","arguments":{"city":"Oslo"}}',
    ]
    assert [result.call_id for result in results(conversation)] == ["c1", "c2"]
    assert [result.content for result in results(conversation)] == ["warm", "cold"], "in the order of the calls"


def test_reasoning_is_a_thought() -> None:
    for name, text in (("reasoning", "I need the weather."), ("reasoning-content", "Easy.")):
        thought, answer, *_ = parse(name).turns[1].parts
        assert isinstance(thought, Text)
        assert (thought.text, thought.thought) == (text, True)
        assert isinstance(answer, Text)
        assert not answer.thought


@pytest.mark.parametrize(
    ("message", "raw", "thought"),
    [
        ({"content": "<think>\nEasy.\n</think>\n\n4"}, "<think>\nEasy.\n</think>\n\n4", "Easy."),
        ({"content": "<think>Easy.</think>4", "reasoning": "Easy."}, "Easy.<think>Easy.</think>4", "Easy."),
        ({"content": "<think>So.</think>4", "thinking": "Easy."}, "Easy.<think>So.</think>4", "Easy.\n\nSo."),
        ({"content": [{"type": "thinking", "thinking": "Easy."}, {"type": "text", "text": "4"}]}, BLOCK + "4", "Easy."),
        (
            {
                "content": [
                    {"type": "reasoning", "text": [{"type": "text", "text": "Easy."}]},
                    {"type": "text", "text": "4"},
                ]
            },
            BLOCK + "4",
            "Easy.",
        ),
        ({"content": "4", "reasoning_content": None, "thinking": "Easy."}, "Easy.4", "Easy."),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": "Easy."},
                    {"type": "text", "text": "4"},
                    {"type": "thinking", "thinking": "So."},
                ]
            },
            BLOCK.replace("Easy.", "Easy.\n\nSo.") + "4",
            "Easy.\n\nSo.",
        ),
    ],
)
def test_a_leading_block_and_the_keys_of_reasoning_are_one_thought(
    message: dict[str, Any], raw: str, thought: str
) -> None:
    messages: list[Json] = [{"role": "user", "content": "2+2?"}, {"role": "assistant", **message}]
    conversation = parse_row({"messages": messages}, "row")
    turn = conversation.turns[1]
    check_spans(turn)
    assert turn.raw == raw
    assert [(part.text, part.thought) for part in turn.parts if isinstance(part, Text)] == [
        (thought, True),
        ("4", False),
    ]
    assert conversation.unread == ()


def test_reasoning_that_is_no_text_is_refused() -> None:
    message: Any = {"role": "assistant", "content": "4", "reasoning": {"text": "Easy."}}
    with pytest.raises(RowError, match="`reasoning` must be text"):
        parse_row({"messages": [{"role": "user", "content": "2+2?"}, message]}, "row")


def test_older_and_looser_spellings() -> None:
    legacy = parse("legacy-function-call")
    assert [tool.name for tool in legacy.tools] == ["current_weather"]
    assert [result.call_id for result in results(legacy)] == [call.id for call in calls(legacy)] == ["call_0"]
    assert [result.call_id for result in results(parse("no-call-id"))] == ["call_0"]
    assert [turn.raw for turn in parse("content-parts").turns] == ["Be brief.", "Hi", "Hello"]
    assert parse("content-parts").turns[0].role == "system"
    assert parse("bare-tools").tools == parse("call-and-result").tools
    assert parse("nested-as-text").tools == parse("call-and-result").tools
    assert calls(parse("nested-as-text"))[0].arguments == {"city": "Rome"}


def test_an_object_result_becomes_json_and_is_error_is_kept() -> None:
    tool = {"role": "tool", "content": {"天": 1}, "is_error": True}
    row: dict[str, Any] = {"messages": [{"role": "assistant", "tool_calls": [{"name": "f"}]}, tool]}
    part = parse_row(row, "x").turns[1].parts[0]
    assert isinstance(part, ToolResult)
    assert (part.content, part.is_error, part.call_id) == ('{"天": 1}', True, "call_0")


USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


@pytest.mark.parametrize(
    ("row", "reason", "turn"),
    [
        ({"messages": []}, "no-turns", None),
        ({"messages": None}, "no-turns", None),
        ({"messages": 7}, "no-turns", None),
        ({"messages": "oops"}, "no-turns", None),
        ({"messages": [USER]}, "no-assistant", None),
        ({"messages": [USER, "Hello"]}, "turn-not-object", 1),
        ({"messages": [USER, {"role": "robot"}]}, "unknown-role", 1),
        ({"messages": [USER, {"role": None}]}, "unknown-role", 1),
        ({"messages": [USER, ASSISTANT, {"role": "system", "content": "late"}]}, "turn-order", 2),
        ({"messages": [USER, {"role": "assistant", "content": 7}]}, "value-not-text", 1),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ASSISTANT]}, "value-not-text", 0),
        ({"messages": [USER, {"role": "assistant", "tool_calls": ["f"]}]}, "call-not-object", 1),
        ({"messages": [USER, {"role": "assistant", "tool_calls": {"f": 1}}]}, "call-not-object", 1),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{"function": 7}]}]}, "call-not-object", 1),
        ({"messages": [USER, ASSISTANT], "tools": [{}]}, "unreadable-tools", None),
        ({"messages": [USER, ASSISTANT], "tools": "oops"}, "unreadable-tools", None),
        ({"messages": [USER, ASSISTANT], "tools": [{"name": "f", "parameters": 7}]}, "unreadable-tools", None),
    ],
)
def test_rejections_have_a_reason_and_a_turn(row: dict[str, Any], reason: str, turn: int | None) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(row, "x")
    assert (caught.value.reason, caught.value.turn) == (reason, turn)


def test_parts_of_texts_and_refusals_are_read_and_others_named() -> None:
    parts: list[dict[str, Any]] = [{"type": "output_text", "text": "No, ", "annotations": []}]
    parts.append({"type": "refusal", "refusal": "I cannot."})
    asked = {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    given: Any = {"messages": [asked, {"role": "assistant", "content": parts}]}
    row = parse_row(given, "x")
    assert [turn.raw for turn in row.turns] == ["Hi", "No, I cannot."]
    for kind in ("image_url", "input_audio", "tool_use", "file"):
        given["messages"][0] = {"role": "user", "content": [*parts, {"type": kind, kind: {}}]}
        with pytest.raises(RowError, match=f"a part of the content is no text but '{kind}'"):
            parse_row(given, "x")


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "So."}]},
            "{'type': 'reasoning', 'summary'",
        ),
        ({"type": "text", "body": "Hi"}, "{'type': 'text', 'body': 'Hi'}"),
    ],
)
def test_parts_whose_text_stands_under_another_key_are_refused_with_it(part: Any, told: str) -> None:
    """As in the Responses API. The thoughts were left out without a word."""
    row: Any = {"messages": [USER, {"role": "assistant", "content": [part, {"type": "text", "text": "4"}]}]}
    with pytest.raises(RowError, match=re.escape(told)) as refused:
        parse_row(row, "x")
    assert (refused.value.reason, refused.value.turn) == ("value-not-text", 1)


def test_llama_factorys_parts_are_read_with_their_calls_and_weights() -> None:
    call = '{"name": "f", "arguments": {"city": "%s"}}'
    messages: Any = [
        {"role": "user", "content": [{"type": "text", "value": "Weather?"}], "loss_weight": 0.0},
        {
            "role": "assistant",
            "content": [
                {"type": "reasoning", "value": "So.", "text": None},
                {"type": "text", "value": "Look.", "text": None},
                {"type": "tool_call", "value": call % "Rome"},
                {"type": "tool_call", "value": call % "Oslo"},
            ],
            "loss_weight": 1.0,
        },
        {"role": "tool", "content": [{"type": "text", "value": "30"}]},
        {"role": "tool", "content": [{"type": "text", "value": "9"}]},
        {"role": "assistant", "content": [{"type": "text", "value": "30 and 9."}], "loss_weight": 0.0},
    ]
    read = parse_row({"messages": messages}, "x")
    first = read.turns[1].parts
    assert [part.text for part in first if isinstance(part, Text)] == ["So.", "Look."]
    assert [part.arguments for part in first if isinstance(part, ToolCall)] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert [turn.raw for turn in read.turns if turn.role == "tool"] == ["30", "9"]
    assert [turn.excluded for turn in read.turns if turn.role == "assistant"] == [False, True]
    assert read.unread == ()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"role": "user", "content": [{"type": "tool_call", "value": "{}"}]}, "no text but 'tool_call'"),
        ({"role": "assistant", "content": [{"type": "tool_call", "value": "{"}]}, "the text of `tool_calls` is"),
        ({"role": "assistant", "content": [{"type": "tool_call"}]}, "a call must be an object, not None"),
    ],
)
def test_a_part_that_is_no_call_of_the_assistant_is_refused(message: Any, told: str) -> None:
    row: Any = {"messages": [USER, ASSISTANT, message]}
    with pytest.raises(RowError, match=re.escape(told)):
        parse_row(row, "x")


@pytest.mark.parametrize("key", ["messages", "conversations"])
@pytest.mark.parametrize("stray", ["It is 4.\n</think>", "It is 4.\n</think>\n\nAnything else?"])
def test_a_stray_end_of_a_thought_makes_no_thought_of_an_answer(key: str, stray: str) -> None:
    """The thought stands beside the text. An answer became a thought, so most learn rules left it out."""
    row: Any = {key: [USER, {"role": "assistant", "content": stray, "reasoning_content": "Easy."}]}
    read = parse_row(row, "x")
    spoken = [part.text for part in read.turns[1].parts if isinstance(part, Text) and not part.thought]
    assert "".join(spoken) == stray
    assert read.unread == ("</think> in an assistant's text",)
    row[key][1]["content"] = "Easy.\n</think>\n\n4"  # a server that repeats the thought
    read = parse_row(row, "x")
    assert [part.text for part in read.turns[1].parts if isinstance(part, Text)] == ["Easy.", "4"]


def test_a_thought_beside_the_nulls_of_a_merged_column_is_read() -> None:
    parts: Any = [{"type": "reasoning", "thinking": None, "reasoning": "So."}, {"type": "text", "text": "4"}]
    row: Any = {"messages": [USER, {"role": "assistant", "content": parts}]}
    read = parse_row(row, "x")
    assert [(part.text, part.thought) for part in read.turns[1].parts if isinstance(part, Text)] == [
        ("So.", True),
        ("4", False),
    ]


def test_a_result_in_parts_is_their_text_and_an_image_in_it_is_named() -> None:
    call: Json = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    def read(content: Any) -> str:
        calling: Any = {"role": "assistant", "content": None, "tool_calls": [call]}
        result: Any = {"role": "tool", "tool_call_id": "c", "content": content}
        row: Any = {"messages": [USER, calling, result]}
        return parse_row(row, "x").turns[-1].raw

    text: Any = {"type": "text", "text": "30"}
    assert read([text, {"type": "output_text", "text": " degrees"}]) == "30 degrees"
    data: Any
    for data in ([text, {"text": "30"}], [text, 3], [{"type": "city"}]):  # no parts, but values
        assert read(data) == json.dumps(data)
    with pytest.raises(RowError, match="no text but 'image_url'"):
        read([text, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])


def test_openai_turns_under_the_conversations_key_keep_their_calls() -> None:
    for name in ("parallel", "legacy-function-call"):
        row = ROWS[name]
        moved = {**{key: value for key, value in row.items() if key != "messages"}, "conversations": row["messages"]}
        assert parse_row(moved, "x") == parse(name)
        as_text = {**moved, "conversations": json.dumps(row["messages"])}
        assert parse_row(as_text, "x") == parse(name), "the JSON text of the turns keeps their calls too"


@pytest.mark.parametrize("key", ["args", "parameters", "input"])
def test_arguments_are_read_under_the_keys_of_other_exporters(key: str) -> None:
    turn: Any = {
        "role": "assistant",
        "tool_calls": [{"id": "x", "type": "tool_call", "name": "f", key: {"city": "Rome"}}],
    }
    messages: Any = [USER, turn]
    row = parse_row({"messages": messages}, "x")
    assert ([call.arguments for call in calls(row)], row.unread) == ([{"city": "Rome"}], ())
    turn["tool_calls"][0]["arguments"] = {"city": "Oslo"}
    row = parse_row({"messages": messages}, "x")
    assert ([call.arguments for call in calls(row)], row.unread) == ([{"city": "Oslo"}], (f"tool_calls.{key}",))


def test_each_message_call_and_tool_may_be_json_text() -> None:
    row = ROWS["call-and-result"]
    messages = [dict(message) for message in row["messages"]]
    for message in messages:
        if "tool_calls" in message:
            message["tool_calls"] = [json.dumps(call) for call in message["tool_calls"]]
    texts: Any = {"messages": [json.dumps(one) for one in messages], "tools": [json.dumps(one) for one in row["tools"]]}
    assert parse_row({**row, **texts}, "x") == parse("call-and-result")
    with pytest.raises(RowError, match="the text of `tools` is not JSON"):
        parse_row({**row, "tools": ['{"name": "f"']}, "x")


def test_blank_text_of_the_assistant_is_none() -> None:
    call = {"name": "f", "arguments": "{}"}
    message: Any = {"role": "assistant", "content": "\n\n", "tool_calls": [call]}
    (turn,) = parse_row({"messages": [message]}, "x").turns
    assert [type(part) for part in turn.parts] == [ToolCall]
    check_spans(turn)


@pytest.mark.parametrize(
    ("result", "keys"),
    [
        ({"output": "3"}, "tool.output"),
        ({"content": None, "result": {"a": 3}}, "tool.result"),
        ({}, "none"),
    ],
)
def test_a_result_under_another_key_is_refused_and_not_taken_as_empty(result: dict[str, Json], keys: str) -> None:
    call: Json = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}

    def row(more: dict[str, Json]) -> dict[str, Json]:
        return {"messages": [{"role": "user", "content": "Hi"}, call, {"role": "tool", "tool_call_id": "c", **more}]}

    with pytest.raises(RowError, match=f"the result has no `content`; keys that are not read: {keys}") as refused:
        parse_row(row(result), "x")
    assert (refused.value.reason, refused.value.turn) == ("value-not-text", 2)
    for empty in (None, ""):
        assert parse_row(row({"content": empty}), "x").turns[2].raw == ""
