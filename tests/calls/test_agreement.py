"""The same arguments get the same verdict in both call formats and in OpenAI rows."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agentft.calls import call_format
from agentft.records import parse_row
from agentft.types import Json, Part, ToolCall

MISSING = object()
texts = st.sampled_from(["", " ", "\n", "{}", " {} ", "null", "None", "[]", "()", "''", '""', "{", "oops", "0"])
texts |= st.sampled_from(["\u00a0", "\u3000", "{'a': None}", '{"a": 1e999}', "{} {}", '"{}"', "true", "False"])
values = st.one_of(
    st.just(MISSING), texts, st.none(), st.just({}), st.just([]), st.booleans(), st.integers(), st.just({"a": None})
)


def call_of(parts: tuple[Part, ...]) -> ToolCall:
    (call,) = (part for part in parts if isinstance(part, ToolCall))
    return call


def verdict(call: ToolCall, key: str) -> tuple[object, ...]:
    problem = call.parse_error
    return call.name, call.arguments, problem and (problem.kind, problem.detail.replace(key, "arguments"))


@given(values | st.text(st.sampled_from(" \t\n{}[]'\"nulNoe:a1"), max_size=6))
def test_arguments_get_the_same_verdict_in_every_format(value: Json) -> None:
    given_arguments: dict[str, Json] = {} if value is MISSING else {"arguments": value}
    written = json.dumps({"name": "f", **given_arguments})
    literal = repr({"name": "f", **given_arguments})
    row: dict[str, Json] = {"role": "assistant", "tool_calls": [{"function": {"name": "f", **given_arguments}}]}
    legacy: dict[str, Json] = {"role": "assistant", "function_call": {"name": "f", **given_arguments}}
    found = [
        verdict(call_of(parse_row({"messages": [message]}, "r").turns[0].parts), "arguments")
        for message in (row, legacy)
    ]
    for text in (written, literal):
        found.append(verdict(call_of(call_format("hermes").parse(f"<tool_call>\n{text}\n</tool_call>")), "arguments"))
        renamed = text.replace("arguments", "parameters", 1).replace("name", "api_name", 1)
        block = f"<|startofthink|>```JSON\n{renamed}\n```<|endofthink|>"
        found.append(verdict(call_of(call_format("msagent").parse(block)), "parameters"))
    assert all(one == found[0] for one in found), found
