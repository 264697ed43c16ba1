"""What the assistant says in several turns in a row is one reply, and results keep to their calls."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.records import parse_row
from agentft.rendering.frame import CHATML
from agentft.rendering.messages import chat_messages
from tests.records.test_keys import supervised

USER: dict[str, Any] = {"role": "user", "content": "Rome and Oslo?"}


def said(content: str | None, city: str = "", **keys: object) -> dict[str, Any]:
    call = {"id": "c", "function": {"name": "f", "arguments": {"city": city}}}
    return {"role": "assistant", "content": content, "tool_calls": [call] if city else [], **keys}


def result(content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "c", "content": content}


@pytest.mark.parametrize("fmt", ["hermes", "msagent"])
def test_calls_in_turns_in_a_row_are_parallel_calls(fmt: str) -> None:
    together = said(None, "Rome")
    together["tool_calls"] += said(None, "Oslo")["tool_calls"]
    apart: Any = {
        "messages": [USER, said(None, "Rome"), said("", "Oslo"), result("30"), result("9"), said("30 and 9.")]
    }
    assert supervised(apart, fmt) == supervised({"messages": [USER, together, *apart["messages"][3:]]}, fmt)
    assert len([*chat_messages(parse_row(apart, "x"), CHATML, strict_ids=False)]) == 5


@pytest.mark.parametrize("thought", ["", "<think>\nHm.\n</think>\n\n"])
def test_texts_in_turns_in_a_row_are_told_apart_by_a_blank_line(thought: str) -> None:
    row: Any = {"messages": [USER, said(f"{thought}One."), said(""), said("Two."), said(None, "Rome")]}
    call = '\n<tool_call>\n{"name": "f", "arguments": {"city": "Rome"}}\n</tool_call><|im_end|>'
    assert supervised(row, "hermes") == f"One.\n\nTwo.{call}"
    (_, message) = chat_messages(parse_row(row, "x"), CHATML, strict_ids=False)
    assert (message.content, message.thought) == ("One.\n\nTwo.", "Hm." if thought else "")


def test_a_turn_that_is_not_learnt_stays_out_of_a_reply_that_is() -> None:
    row = {"messages": [USER, said("Wrong.", weight=0), said("Right.")]}
    assert supervised(row, "hermes") == "Right.<|im_end|>"


def test_results_of_calls_with_one_id_name_their_own_calls() -> None:
    step = [said(None, "Rome"), said(None, "Oslo"), result("30"), result("9"), said("Well.")]
    row = parse_row({"messages": [USER, *step, USER, *step]}, "x")
    messages = [*chat_messages(row, CHATML, strict_ids=True)]
    asked = [call.id for message in messages for call in message.calls]
    assert asked == [message.call_id for message in messages if message.role == "tool"]
    assert len(set(asked)) == 4
