"""Results are linked to calls by id or name, and a result without a call rejects the row."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.errors import RowError
from agentft.records import parse_row
from agentft.types import ToolCall
from tests.records.rows import results

USER = {"role": "user", "content": "Rome and Oslo?"}
ANSWER = {"role": "assistant", "content": "30 and 9."}


def call(identity: object = None, name: str = "weather") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": "{}"}}


def asks(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def result(content: str, **keys: object) -> dict[str, Any]:
    return {"role": "tool", "content": content, **keys}


def contents(*messages: dict[str, Any]) -> list[str]:
    return [one.content for one in results(parse_row({"messages": list(messages)}, "x"))]


TWO = asks(call("c1"), call("c2"))


@pytest.mark.parametrize(
    "messages",
    [
        [TWO, result("9", tool_call_id="c2"), result("30", tool_call_id="c1")],
        [asks(call("c1")), asks(call("c2")), result("9", tool_call_id="c2"), result("30", tool_call_id="c1")],
        [asks(call(1), call(2)), result("9", tool_call_id=2), result("30", tool_call_id=1)],
        [asks(call(None, "rome"), call(None, "oslo")), result("9", name="oslo"), result("30", name="rome")],
        [asks(call(1, "rome"), call(2, "oslo")), result("9", tool_name="oslo"), result("30", tool_name="rome")],
        [TWO, result("9", tool_call_id="c2"), result("30")],
        [asks(call("c"), call("c")), result("30", tool_call_id="c"), result("9", tool_call_id="c")],
        [TWO, result("30"), result("9")],
    ],
)
def test_results_of_a_step_stand_in_the_order_of_its_calls(messages: list[dict[str, Any]]) -> None:
    assert contents(USER, *messages, ANSWER) == ["30", "9"]
    assert contents(USER, *messages) == ["30", "9"], "at the end of a row too"


def test_an_id_that_is_used_again_in_the_next_step_is_a_new_call() -> None:
    again = [asks(call("c1")), result("30", tool_call_id="c1")]
    assert contents(USER, *again, ANSWER, USER, *again) == ["30", "30"]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        (
            [asks(call("c1")), result("30", tool_call_id="zzz")],
            "a result for the tool_call_id 'zzz', but the open calls",
        ),
        ([result("30", tool_call_id="c1"), ANSWER], "but no call is open"),
        ([ANSWER, result("30")], "a result, but no call is open"),
        ([asks(call("c1")), result("30"), result("30")], "but no call is open"),
        ([asks(call("c1")), USER, result("30", tool_call_id="c1")], "but no call is open"),
        ([asks(call("c1", "rome")), result("30", name="oslo")], r"the name 'oslo', but the open calls are c1 \(rome\)"),
        ([asks(call("c1", "rome")), result("30", tool_name="oslo")], r"the tool_name 'oslo', but .* c1 \(rome\)"),
        ([{**ANSWER, "toolCalls": [call("c1")]}, result("30")], "keys that are not read: assistant.toolCalls"),
        ([{**ANSWER, "function_calls": "f()"}, result("30")], "keys that are not read: assistant.function_calls"),
        ([asks(), result("30", call_id="c1")], "a result for the call_id 'c1', but no call is open"),
        ([asks(), result("30", callId="c1")], "keys that are not read: tool.callId"),
    ],
)
def test_a_result_without_an_open_call_rejects_the_row(messages: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(RowError, match=why) as caught:
        contents(USER, *messages)
    assert caught.value.reason == "result-without-call"
    assert caught.value.turn == 1 + next(i for i in reversed(range(len(messages))) if messages[i]["role"] == "tool")


def test_a_missing_result_before_another_rejects_the_row() -> None:
    with pytest.raises(RowError, match=r"the call c1 .* has no result, but the later call c2 has one") as caught:
        contents(USER, TWO, result("9", tool_call_id="c2"), ANSWER)
    assert (caught.value.reason, caught.value.turn) == ("call-without-result", 3)
    with pytest.raises(RowError, match="has no result"):
        contents(USER, TWO, result("9", tool_call_id="c2"))
    assert contents(USER, TWO, result("30", tool_call_id="c1"), ANSWER) == ["30"], "a last call may have none"


def test_an_msagent_result_without_a_call_rejects_the_row() -> None:
    value = "Well.<|startofexec|>```JSON\n{}\n```<|endofexec|>It is 30."
    turns: list[Any] = [{"from": "user", "value": "Rome?"}, {"from": "assistant", "value": value}]
    with pytest.raises(RowError, match="no call is open") as caught:
        parse_row({"conversations": turns}, "x")
    assert (caught.value.reason, caught.value.turn, caught.value.offset) == ("result-without-call", 1, 5)


@pytest.mark.parametrize("key", ["tool_call_id", "toolCallId", "call_id", "id"])
def test_results_go_to_the_calls_that_they_name_under_any_key(key: str) -> None:
    calls = [{"id": name, "function": {"name": "f", "arguments": "{}"}} for name in "ab"]
    results = [{"role": "tool", key: name, "content": f"of {name}"} for name in "ba"]
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": calls}, *results]}
    conversation = parse_row(row, "x")  # type: ignore[arg-type]
    assert [turn.raw for turn in conversation.turns[2:]] == ["of a", "of b"]
    assert conversation.unread == ()


def test_the_id_of_a_message_names_no_call() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "id": "message-7", "content": "3"}
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}, result]}
    assert parse_row(row, "x").turns[2].raw == "3"  # type: ignore[arg-type]


def test_a_call_in_both_forms_is_one_and_different_ones_are_two() -> None:
    """Logs of llama-cpp-python hold each call twice; such rows taught to make it twice."""
    function = {"name": "f", "arguments": "{}"}
    listed = [{"id": "c1", "type": "function", "function": function}]
    for older, count in ((function, 1), ({**function, "name": "g"}, 2)):
        message: Any = {"role": "assistant", "content": None, "tool_calls": listed, "function_call": older}
        turns = parse_row({"messages": [{"role": "user", "content": "Hi"}, message]}, "x").turns
        assert sum(isinstance(part, ToolCall) for turn in turns for part in turn.parts) == count
