"""All call formats agree: the same call object gets the same arguments, or the same kind of failure."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentft.calls import call_format
from agentft.calls.reading import CallKeys, make_call
from agentft.records.openai import parse_openai
from agentft.types import Json, ParseFailure, Span, ToolCall

MISSING = "(missing)"
HERE = Span(0, 9)
TAGS = ("</tool_call>", "<tool_call>", "<|endofthink|>", "<|startofthink|>", "<|startofexec|>", "```")
texts = st.text(max_size=12) | st.sampled_from(TAGS)
values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
argument_texts = (
    st.text(alphabet="{}[]\"':, x1\\\n", max_size=12)
    | values.map(json.dumps)
    | values.map(lambda value: json.dumps(value, ensure_ascii=False))
    | values.map(repr)
    | st.sampled_from(["", " ", "null", "None", "{'x': (1,)}", '{"x": NaN}', '"{}"', '{"x": "\\ud800"}', "[" * 200])
)


def read_everywhere(name: Json, arguments: Json) -> dict[str, ToolCall]:
    """The call object parsed from each format's text."""
    given_arguments: dict[str, Json] = {} if arguments == MISSING else {"arguments": arguments}
    named: dict[str, Json] = {} if name == MISSING else {"name": name}
    openai: dict[str, Json] = {**named, **given_arguments}
    renamed = {"name": "api_name", "arguments": "parameters"}
    msagent = json.dumps({renamed[key]: value for key, value in openai.items()}, ensure_ascii=False)
    hermes = json.dumps(openai, ensure_ascii=False)
    message: Json = {"role": "assistant", "content": None, "tool_calls": [{"function": openai}]}
    found = {
        "msagent": call_format("msagent").parse(f"<|startofthink|>```JSON\n{msagent}\n```<|endofthink|>"),
        "hermes": call_format("hermes").parse(f"<tool_call>\n{hermes}\n</tool_call>"),
        "openai": parse_openai([message])[0][0].parts,
    }
    calls = {}
    for fmt, parts in found.items():
        assert len(parts) == 1, fmt
        assert isinstance(parts[0], ToolCall)
        calls[fmt] = parts[0]
    return calls


@pytest.mark.parametrize("own", [CallKeys(), CallKeys("name", "parameters")])
@pytest.mark.parametrize("key", ["arguments", "args", "parameters", "input"])
def test_arguments_under_another_formats_key_are_not_taken_for_none(own: CallKeys, key: str) -> None:
    given_values: list[Json] = [{"city": "Rome"}, '{"city": "Rome"}']
    for given_value in given_values:
        call = make_call("c", {"name": "f", key: given_value}, HERE, own)
        if key == own.arguments:
            assert (call.arguments, call.parse_error) == ({"city": "Rome"}, None)
        else:
            failure = ParseFailure("content", f"`{key}` instead of `{own.arguments}`")
            assert (call.arguments, call.parse_error) == ({}, failure)
    blanks: list[Json] = [{}, None, ""]
    for blank in blanks:
        assert make_call("c", {"name": "f", key: blank}, HERE, own).parse_error is None
    both: Json = {"name": "f", own.arguments: {"city": "Rome"}, "input": "x"}
    assert make_call("c", both, HERE, own).arguments == {"city": "Rome"}


def verdict(call: ToolCall) -> tuple[object, ...]:
    kind = call.parse_error and call.parse_error.kind
    return call.name, kind, json.dumps(dict(call.arguments), sort_keys=True)


def assert_one_verdict(calls: dict[str, ToolCall]) -> None:
    assert verdict(calls["hermes"]) == verdict(calls["msagent"])
    assert verdict(calls["openai"]) == verdict(calls["msagent"])


@given(argument_texts)
def test_the_same_argument_text_gets_the_same_verdict_in_every_format(text: str) -> None:
    assert_one_verdict(read_everywhere("f", text))


@given(texts | values, values)
@example(MISSING, MISSING)
@example("f", MISSING)
@example("f", None)
@example("f", "")
@example("f", [])
@example("f", False)
@example("", {})
def test_the_same_call_object_gets_the_same_verdict_in_every_format(name: Json, arguments: Json) -> None:
    assert_one_verdict(read_everywhere(name, arguments))


@given(argument_texts.filter(lambda text: not any(tag in text for tag in TAGS)))
def test_the_same_text_in_the_place_of_the_arguments_gets_the_same_verdict(text: str) -> None:
    calls = {}
    for fmt, opening, closing in (
        ("msagent", '<|startofthink|>```JSON\n{"api_name": "f", "parameters": ', "}\n```<|endofthink|>"),
        ("hermes", '<tool_call>\n{"name": "f", "arguments": ', "}\n</tool_call>"),
    ):
        calls[fmt] = call_format(fmt).parse(opening + text + closing)[0]
    msagent, hermes = calls["msagent"], calls["hermes"]
    assert isinstance(msagent, ToolCall)
    assert isinstance(hermes, ToolCall)
    # Only the names may differ: an unreadable MS-Agent call keeps the name found in its text.
    assert verdict(hermes)[1:] == verdict(msagent)[1:]


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (7, "a call must be an object, not a number"),
        ({}, "n is missing"),
        ({"n": ""}, "n is missing"),
        ({"n": 7}, "n is missing"),
        ({"n": "f", "u": 7}, "u must be text, not a number"),
        ({"n": "f", "u": True, "a": 3}, "u must be text, not true or false"),
        ({"n": "f", "a": 3}, "a must be an object, not a number"),
        ({"n": "f", "a": "x"}, "a: not JSON (Expecting value at character 0)"),
    ],
)
def test_the_first_failure_is_reported(value: Json, detail: str) -> None:
    keys = CallKeys("n", "a", "u")
    assert make_call("c", value, HERE, keys).parse_error == ParseFailure("content", detail)
    structure = ParseFailure("structure", "cut off")
    assert make_call("c", value, HERE, keys, structure).parse_error == structure


def test_a_readable_call_keeps_its_name_arguments_and_url() -> None:
    keys = CallKeys("n", "a", "u")
    value: Json = {"n": "f", "a": {"x": 1}, "u": "http://w.test", "other": 1}
    assert make_call("c", value, HERE, keys) == ToolCall("c", "f", {"x": 1}, HERE, None, "http://w.test")
    assert make_call("c", {"name": "f", "url": 7}, HERE, CallKeys()) == ToolCall("c", "f", {}, HERE)
