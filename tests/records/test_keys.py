"""Keys of a row: a system text beside the turns, blank values, weights of turns, and keys that are not read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentft.calls import CALL_FORMATS
from agentft.errors import RowError
from agentft.records import parse_row as parse
from agentft.rendering.encoding import LEARN_RULES, encode
from agentft.rendering.frame import CHATML
from agentft.rendering.render import render_samples
from agentft.rows.inspection import inspect_file
from agentft.types import Conversation
from tests.records.rows import PUBLIC, calls, load
from tests.rendering.test_encoding import Cutter

FRENCH = "Answer in French only."
TOOL = {"type": "function", "function": {"name": "weather", "description": "", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
CHAT: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
SHAREGPT: list[dict[str, Any]] = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
CALLS = [CHAT[0], {"role": "assistant", "content": None, "tool_calls": [CALL]}]


def parse_row(row: dict[str, Any], default_id: str) -> Conversation:
    return parse(row, default_id)


@pytest.mark.parametrize("row", [{"conversations": SHAREGPT}, {"messages": CALLS, "tools": [TOOL]}])
def test_a_system_text_beside_the_turns_is_the_system_turn(row: dict[str, Any]) -> None:
    turns = parse_row({"system": FRENCH, **row}, "x").turns
    assert [(turn.role, turn.raw) for turn in turns[:2]] == [("system", FRENCH), ("user", "Hi")]
    for nothing in (None, "", " "):
        assert len(parse_row({"system": nothing, **row}, "x").turns) == 2


def test_two_system_texts_reject_the_row_unless_they_are_equal() -> None:
    for first in ({"from": "system", "value": "Be brief."}, {"from": "system", "value": FRENCH}):
        row: dict[str, Any] = {"system": FRENCH, "conversations": [first, *SHAREGPT]}
        if first["value"] == FRENCH:
            assert [turn.role for turn in parse_row(row, "x").turns] == ["system", "user", "assistant"]
            continue
        with pytest.raises(RowError, match=r"`system` is 'Answer in French only.', the system turn 'Be br") as caught:
            parse_row(row, "x")
        assert (caught.value.reason, caught.value.turn) == ("system-twice", 0)


def test_places_do_not_count_the_system_text() -> None:
    with pytest.raises(RowError) as caught:
        parse_row({"system": FRENCH, "messages": [CHAT[0], {"role": "assistant", "content": 7}]}, "x")
    assert (caught.value.reason, caught.value.turn) == ("value-not-text", 1)
    with pytest.raises(RowError) as caught:
        parse_row({"system": 7, "messages": CHAT}, "x")
    assert (caught.value.reason, caught.value.turn) == ("value-not-text", None)


@pytest.mark.parametrize("blank", ["", " ", "[]", "{}", "null", "None", " [] ", {}, [], None])
@pytest.mark.parametrize("turns", [{"messages": CHAT}, {"conversations": SHAREGPT}])
def test_blank_tools_and_calls_are_none(blank: object, turns: dict[str, Any]) -> None:
    for key in ("tools", "functions"):
        assert parse_row({**turns, key: blank}, "x").tools == ()
    ((name, items),) = turns.items()
    for key in ("tool_calls", "function_call"):
        conversation = parse_row({name: [items[0], {**items[1], key: blank}]}, "x")
        assert conversation.source == ("openai" if name == "messages" else "msagent")
        assert not calls(conversation)
    assert len(parse_row({**turns, "tools": blank, "functions": [TOOL]}, "x").tools) == 1


def test_a_list_with_blank_text_is_no_list_of_tools() -> None:
    with pytest.raises(RowError, match="tool 0 has no name"):
        parse_row({"messages": CHAT, "tools": [" "]}, "x")


def supervised(row: dict[str, Any], fmt: str) -> str:
    (segments,) = render_samples(parse_row(row, "x"), CALL_FORMATS[fmt], CHATML)
    encoded = encode(segments, Cutter(), LEARN_RULES["assistant"])
    text = "".join(segment.text for segment in segments)
    return "".join(character for character, weight in zip(text, encoded.loss_weights, strict=True) if weight)


@pytest.mark.parametrize("key", ["weight", "loss", "train", "loss_mask", "loss_weight"])
@pytest.mark.parametrize("no", [0, False, 0.0])
@pytest.mark.parametrize("fmt", CALL_FORMATS)
def test_a_turn_of_weight_0_is_not_learnt(key: str, no: object, fmt: str) -> None:
    wrong, right = ({**CALLS[1], "tool_calls": [{**CALL, "id": name}]} for name in ("c1", "c2"))
    result = {"role": "tool", "content": "30"}
    row = {"messages": [CHAT[0], {**wrong, key: no}, result, {**right, key: 1}, result, {**CHAT[1], key: no}]}
    learnt = supervised(row, fmt)
    assert learnt.count('"city"') == 1
    assert "Hello." not in learnt
    assert learnt.endswith("<|endofthink|>" if fmt == "msagent" else "</tool_call><|im_end|>"), "its stop is not learnt"
    everything = {"messages": [{k: v for k, v in message.items() if k != key} for message in row["messages"]]}
    assert supervised(everything, fmt).count('"city"') == 2


def test_a_turn_of_an_msagent_row_may_have_a_weight_too() -> None:
    turns = [{"from": "human", "loss": None, "value": "Say A."}, {"from": "gpt", "loss": False, "value": "B."}]
    turns += [{"from": "human", "loss": None, "value": "No, A."}, {"from": "gpt", "loss": True, "value": "A."}]
    assert supervised({"conversations": turns}, "hermes") == "A.<|im_end|>"


@pytest.mark.parametrize(
    "weights", [{"weight": 0.5}, {"weight": 2}, {"loss": "no"}, {"train": [1]}, {"weight": 0, "loss": 1}]
)
def test_another_weight_rejects_the_row(weights: dict[str, Any]) -> None:
    with pytest.raises(RowError) as caught:
        parse_row({"messages": [CHAT[0], {**CHAT[1], **weights}]}, "x")
    assert (caught.value.reason, caught.value.turn) == ("turn-weight", 1)


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"messages": CHAT, "plan": "Think.", "source": "here", "id": "1", "n": 3, "flag": True}, ("plan",)),
        ({"messages": CHAT, "conversations": SHAREGPT}, ("messages",)),
        ({"messages": CHAT, "tools": [TOOL, TOOL]}, ("tools: the second 'weather'",)),
        ({"messages": CHAT, "tools": [TOOL, TOOL["function"]]}, ("tools: the second 'weather'",)),
        ({"messages": CHAT, "uuid": "a1", "url": "http://x", "created": "2024", "question": CHAT[0]["content"]}, ()),
        ({"messages": CHAT, "question": "Another one?", "uuid": "a1"}, ("question",)),
        ({"messages": CHAT, "session_id": "s1", "conversation_id": "c", "thread_id": "t", "user_id": "u"}, ()),
        ({"messages": CHAT, "tools": [TOOL], "functions": [TOOL]}, ("functions",)),
        ({"messages": [CHAT[0], {**CHAT[1], "toolCalls": [CALL], "thinking": " "}]}, ("assistant.toolCalls",)),
        (
            {
                "messages": [{"role": "system", "content": "Be brief.", "tools": [{"name": "g"}]}, *CHAT],
                "tools": [TOOL],
            },
            ("system.tools",),
        ),
        (
            {"messages": [{"role": "system", "content": "Be brief.", "tools": [{**TOOL, "returns": {"x": 1}}]}, *CHAT]},
            ("tools.returns",),
        ),
        ({"messages": [{**CHAT[0], "tools": [TOOL]}, CHAT[1]]}, ("user.tools",)),
        ({"messages": [{**CHAT[0], "tool_calls": [CALL]}, CHAT[1]]}, ("user.tool_calls",)),
        ({"messages": [{**CHAT[0], "weight": 1}, CHAT[1]]}, ("user.weight",)),
        ({"messages": [CHAT[0], {**CHAT[1], "refusal": "No."}]}, ("assistant.refusal",)),
        (
            {"messages": [CHAT[0], {"role": "assistant", "tool_calls": [{**CALL, "result": "30"}]}]},
            ("tool_calls.result",),
        ),
        ({"messages": CHAT, "tools": [{**TOOL, "strict": True, "returns": {"type": "string"}}]}, ("tools.returns",)),
        ({"messages": CHAT, "tools": [{"name": "f", "args": {"city": "text"}}]}, ("tools.args",)),
        ({"conversations": [SHAREGPT[0], {**SHAREGPT[1], "calls": ["f()"]}]}, ("gpt.calls",)),
        ({"messages": CHAT, "weight": 0, "train": False, "constraint": 3}, ("weight", "train")),
        ({"messages": CHAT, "label": False, "kto_tag": True, "labelled": 1}, ("label", "kto_tag", "labelled")),
        (
            {"messages": [CHAT[0], {**CHAT[1], "loss_scale": 0.0, "masked": True, "learn": False}]},
            ("assistant.loss_scale", "assistant.masked", "assistant.learn"),
        ),
        ({"messages": [CHAT[0], {"role": "assistant", "tool_calls": [{**CALL, "weight": 0}]}]}, ("tool_calls.weight",)),
    ],
)
def test_keys_that_hold_something_and_are_not_read_are_named(row: dict[str, Any], unread: tuple[str, ...]) -> None:
    assert parse_row(row, "x").unread == unread


def test_the_first_of_two_tools_with_one_name_is_declared() -> None:
    other = {**TOOL, "description": "another"}
    for row in ({"tools": [TOOL, other]}, {"messages": [{"role": "system", "content": "", "tools": [TOOL, other]}]}):
        given: Any = {**row, "messages": [*row.get("messages", []), *CHAT]}
        (tool,) = parse_row(given, "x").tools
        assert tool == parse_row({"messages": CHAT, "tools": [TOOL]}, "x").tools[0]
        assert parse_row(given, "x").unread == ("tools: the second 'weather'",)


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL])], ids=["list", "text"])
def test_tools_of_the_system_turn_are_read(tools: Any) -> None:
    system: dict[str, Any] = {"role": "system", "content": "Be brief.", "tools": tools}
    shared = {"from": "system", "value": "Be brief.", "tools": tools}
    rows: list[dict[str, Any]] = [
        {"messages": [system, *CHAT]},
        {"messages": [{**system, "role": "developer"}, *CHAT]},
        {"messages": [system, *({**turn, "tools": None} for turn in CHAT)], "tools": [TOOL]},
        {"conversations": [shared, *SHAREGPT]},
        {"messages": [{"role": "system", "content": "", "functions": tools}, *CHAT]},  # MiniMind's, Dolci's
    ]
    read = [parse_row(row, "x") for row in rows]
    assert {row.unread for row in read} == {()}
    assert {tuple(tool.name for tool in row.tools) for row in read} == {("weather",)}


def test_what_stands_beside_the_tools_that_are_read_is_named() -> None:
    """A key of a tool, or the list of the system turn, is only known where it is read."""
    function: Any = TOOL["function"]
    both = {**function, "arguments": {"a": {"type": "str"}}}
    system: Any = {"role": "system", "content": "", "functions": [{"name": "other"}]}
    assert parse_row({"messages": CHAT, "tools": [both]}, "x").unread == ("tools.arguments",)
    assert parse_row({"messages": [system, *CHAT], "tools": [TOOL]}, "x").unread == ("system.functions",)


def test_every_key_of_public_rows_is_read() -> None:
    assert not any(parse_row(row, "x").unread for row in load(PUBLIC))


def test_inspect_counts_what_is_not_used_of_kept_rows(tmp_path: Path) -> None:
    broken = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}] * 2}
    rows = [{"messages": CHAT, "plan": "a"}, {"messages": CHAT, "plan": "b"}, {"messages": [CHAT[0], broken]}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    inspection = inspect_file(path)
    document = inspection.document()
    assert (document["unread_keys"], document["rows_with_unreadable_calls"]) == ({"plan": 2}, 1)
    assert inspection.notes[0].startswith("2 rows have `plan`, which is not read")
    assert inspection.notes[0].endswith(f"; the first: {path}:1")
    assert "1 row has an unreadable call, which is never supervised; the first: " in inspection.notes[1]
    assert "rows.jsonl:3: turn 1: " in inspection.notes[1]
    path.write_text(json.dumps({"system": "Be brief.", "messages": [CHAT[0], broken]}), encoding="utf-8")
    assert "rows.jsonl:1: turn 1: " in inspect_file(path).notes[0]
