"""Invariant 5: `hermes` renders byte for byte as the vendor's own template, for all shapes of a turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentft.calls import call_format
from agentft.records import parse_row
from agentft.rendering.frame import Frame
from agentft.rendering.render import render_prompt, render_samples
from agentft.types import Json
from tests.tiny import tiny_tokenizer

TEMPLATE = (Path(__file__).parent / "qwen2.5_chat_template.jinja").read_text(encoding="utf-8")
TOOLS: list[Json] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'The weather, 天气, <b>now</b> & "here".',
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
    {
        "type": "function",
        "function": {"name": "time", "description": "", "parameters": {"type": "object", "properties": {}}},
    },
]
SYSTEM: Json = {"role": "system", "content": "You help."}
USER: Json = {"role": "user", "content": "How is it in 北京?"}


def call(name: str = "weather", identity: str = "c1", **arguments: Json) -> dict[str, Json]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(text: str, *calls: Json) -> Json:
    return {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {})}


def result(text: str, identity: str = "c1") -> Json:
    return {"role": "tool", "tool_call_id": identity, "content": text}


SHAPES: dict[str, list[Json]] = {
    "text": [assistant("It is fine.")],
    "call": [assistant("", call(city="北京"))],
    "text and call": [assistant("Let me look.", call(city="Paris"))],
    "call, result, text": [assistant("", call(city="Paris")), result('{"t": 3}'), assistant("3 degrees.")],
    "two calls": [assistant("", call(city="Paris"), call("time", "c2"))],
    "two results in a row": [
        assistant("", call(city="Paris"), call("time", "c2", zone=None, exact=True, digits=2.5)),
        result('{"t": 3}'),
        result("noon", "c2"),
        assistant("3 degrees at noon."),
    ],
    "two rounds": [
        assistant("", call(city="Paris")),
        result("3"),
        assistant("3."),
        USER,
        assistant("", call(city="北京")),
    ],
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tools", [TOOLS, []], ids=["tools", "no tools"])
def test_hermes_equals_the_vendors_template_byte_for_byte(shape: str, tools: list[Json], tokenizer: Any) -> None:
    messages = [SYSTEM, USER, *SHAPES[shape]]
    vendor = tokenizer.apply_chat_template(messages, tools=tools or None, tokenize=False)
    conversation = parse_row({"messages": messages, "tools": tools}, "row")
    segments = render_samples(conversation, call_format("hermes"), Frame.of_tokenizer(tokenizer))[0]
    assert "".join(segment.text for segment in segments) == vendor


@pytest.mark.parametrize("shape", SHAPES)
def test_hermes_prompts_equal_the_vendors_generation_prompts(shape: str, tokenizer: Any) -> None:
    messages = [SYSTEM, USER, *SHAPES[shape]]
    while isinstance(messages[-1], dict) and messages[-1]["role"] == "assistant":
        messages.pop()
    vendor = tokenizer.apply_chat_template(messages, tools=TOOLS, tokenize=False, add_generation_prompt=True)
    conversation = parse_row({"messages": [*messages, assistant("later")], "tools": TOOLS}, "row")
    cut = type(conversation)(conversation.id, conversation.turns[:-1], conversation.tools, conversation.source)
    segments = render_prompt(cut, call_format("hermes"), Frame.of_tokenizer(tokenizer))
    assert "".join(segment.text for segment in segments) == vendor
