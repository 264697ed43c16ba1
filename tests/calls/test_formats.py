"""Invariant 4: every call format parses what it renders. Also edge cases of each format."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.calls import CALL_FORMATS, CallFormat, call_format
from agentft.errors import InputError
from agentft.records import parse_row
from agentft.records.declarations import parse_system
from agentft.types import Json, Part, Segment, Span, Text, ToolCall, ToolDefinition, ToolResult

NOWHERE = Span(0, 0)
MARKERS = [marker for fmt in CALL_FORMATS.values() for marker in (*fmt.call_markers, *fmt.other_markers)]
plain = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40).filter(
    lambda text: text.strip() and not any(mark in text for mark in MARKERS)
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(plain, values, max_size=4)


@st.composite
def runs(draw: st.DrawFn) -> list[Part]:
    """Optional text, then one to three calls, some with a URL."""
    parts: list[Part] = []
    if draw(st.booleans()):
        parts.append(Text(draw(plain), NOWHERE))
    for index in range(draw(st.integers(1, 3))):
        url = draw(st.none() | st.just("http://weather.test/w"))
        parts.append(ToolCall(f"call_{index}", draw(plain), draw(arguments), NOWHERE, endpoint=url))
    return parts


def bare(parts: Any) -> list[Part]:
    return [replace(part, span=NOWHERE) for part in parts]


def merged(run: list[Segment]) -> list[Segment]:
    """Join adjacent segments of one kind: calls of one block are read as two segments and written as one."""
    groups = groupby(run, key=lambda segment: segment.kind)
    return [Segment("".join(segment.text for segment in group), True, kind) for kind, group in groups]


def without_endpoints(parts: list[Part]) -> list[Part]:
    return [replace(part, endpoint=None) if isinstance(part, ToolCall) else part for part in parts]


@pytest.mark.parametrize("fmt", CALL_FORMATS.values(), ids=CALL_FORMATS)
@given(parts=runs())
def test_a_format_parses_what_it_renders(fmt: CallFormat, parts: list[Part]) -> None:
    text = fmt.write_parts(parts)
    parsed = fmt.parse(text)
    assert bare(parsed) == (parts if fmt.name == "msagent" else without_endpoints(parts))
    assert "".join(text[part.span.start : part.span.end] for part in parsed) == text


@pytest.mark.parametrize("fmt", CALL_FORMATS.values(), ids=CALL_FORMATS)
@given(parts=runs())
def test_reading_a_run_back_keeps_its_text(fmt: CallFormat, parts: list[Part]) -> None:
    text = fmt.write_parts(parts)
    run = fmt.read_run(fmt.parse(text), text)
    assert "".join(segment.text for segment in run) == text
    assert merged(run) == merged(fmt.write_run(fmt.parse(text)))


@pytest.mark.parametrize("fmt", CALL_FORMATS.values(), ids=CALL_FORMATS)
@given(text=st.text(max_size=200) | st.lists(st.sampled_from([*MARKERS, "{", "}", '"', "a", "\n"])).map("".join))
def test_parsing_any_model_output_never_fails_and_loses_nothing(fmt: CallFormat, text: str) -> None:
    parts = fmt.parse(text)
    assert "".join(text[part.span.start : part.span.end] for part in parts) == text


def test_msagent_values_of_calls_and_results_round_trip() -> None:
    parts: list[Part] = [
        Text("Let me see. ", NOWHERE),
        ToolCall("call_0", "w", {"city": "北京"}, NOWHERE, endpoint="http://w.test/w"),
        ToolResult("call_0", '{"t": 3}', NOWHERE),
        ToolCall("call_1", "w", {"city": "Paris"}, NOWHERE),
        ToolCall("call_2", "x", {}, NOWHERE),
        ToolResult("call_1", "plain text", NOWHERE),
        ToolResult("call_2", "[1]", NOWHERE),
        Text("Done.", NOWHERE),
    ]
    fmt = call_format("msagent")
    text = fmt.write_parts(parts)
    assert bare(fmt.parse(text)) == parts
    assert text.count("<|endofthink|>") == 2, "parallel calls share one block"
    assert "北京" in text


@pytest.mark.parametrize(
    ("block", "kind", "detail"),
    [
        ("<tool_call>\n\n</tool_call>", "structure", "no JSON object between the call's tags"),
        ("<tool_call>I think so</tool_call>", "structure", "no JSON object between the call's tags"),
        ('<tool_call>{"name": "f"} or so</tool_call>', "structure", "surplus text after the call: 'or so'"),
        ('<tool_call>{"name": "f"}}</tool_call>', "structure", "surplus text after the call: '}'"),
        ('<tool_call>{"name": "f"} or so', "structure", "surplus text after the call: 'or so'"),
        ('<tool_call>\n{"name": "f", "argum', "structure", "not JSON (Unterminated string"),
        ('<tool_call>{"name" "f"}</tool_call>', "content", "not JSON (Expecting ':'"),
        ("<tool_call>{'name': 1}</tool_call>", "content", "name is missing"),
        ('<tool_call>{"arguments": {}}</tool_call>', "content", "name is missing"),
        ("<tool_call>[1]</tool_call>", "content", "a call must be an object, not a list"),
        (
            '<tool_call>{"name": "f", "arguments": 3}</tool_call>',
            "content",
            "arguments must be an object, not a number",
        ),
        ('<tool_call>{"name": "f", "arguments": "{"}</tool_call>', "content", "arguments: not JSON"),
        (f"<tool_call>{'[' * 5000}</tool_call>", "content", "levels deep"),
        ('<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>', "content", "NaN is not JSON"),
    ],
)
def test_hermes_explains_what_is_wrong_with_a_call(block: str, kind: str, detail: str) -> None:
    (call,) = call_format("hermes").parse(block)
    assert isinstance(call, ToolCall)
    assert call.parse_error is not None
    assert call.parse_error.kind == kind
    assert detail in str(call.parse_error)


@pytest.mark.parametrize("ending", ["", "\n", "</tool", "\n</tool_call>", " </tool_call>\n<tool_call>{}</tool_call>"])
def test_hermes_needs_no_closing_tag_after_complete_json(ending: str) -> None:
    call = call_format("hermes").parse('<tool_call>{"name": "f"}' + ending)[0]
    assert isinstance(call, ToolCall)
    assert (call.name, call.parse_error) == ("f", None)


@pytest.mark.parametrize("count", range(1, 6))
def test_hermes_reads_closing_tags_inside_strings(count: int) -> None:
    text = "</tool_call>" * count
    for body in (json.dumps({"name": "f", "arguments": {"x": text}}), str({"name": "f", "arguments": {"x": text}})):
        first, *rest = call_format("hermes").parse(f"<tool_call>\n{body}\n</tool_call>ok")
        assert isinstance(first, ToolCall)
        readable = body.startswith('{"') or count <= 3  # for a Python literal, four closing tags are tried
        assert (first.parse_error is None) == readable
        assert not readable or (first.arguments, len(rest)) == ({"x": text}, 1)


def test_hermes_reads_arguments_as_text_and_an_unclosed_last_call() -> None:
    text = 'ok\n<tool_call>\n{"name": "f", "arguments": "{\\"x\\": 1}"}'
    parts = call_format("hermes").parse(text)
    assert parts[0] == Text("ok", Span(0, 2))
    assert isinstance(parts[1], ToolCall)
    assert parts[1].arguments == {"x": 1}


def test_an_unknown_format_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="msagent, hermes"):
        call_format("xml")


TOOL = ToolDefinition(
    "weather",
    "The weather.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where"},
            "days": {"type": "integer", "description": "How many", "minimum": 1, "maximum": 7},
        },
        "required": ["city"],
    },
    ("http://w.test/weather", "http://w2.test/weather"),
)


@pytest.mark.parametrize("persona", ["You help.", ""])
def test_msagent_declarations_parse_back_to_the_same_tools(persona: str) -> None:
    fmt = call_format("msagent")
    other = replace(TOOL, name="time", endpoints=("http://w.test/time",))
    bare_tool = replace(TOOL, name="bare", endpoints=())
    system = fmt.write_system(persona, [TOOL, other, bare_tool])
    turns: list[Json] = [
        {"from": "system", "value": system},
        {"from": "user", "value": "u"},
        {"from": "assistant", "value": "a"},
    ]
    conversation = parse_row({"conversations": turns}, "row")
    assert {tool.name: tool for tool in conversation.tools} == {"weather": TOOL, "time": other, "bare": bare_tool}
    first = conversation.turns[0].parts[0]
    assert not persona or (isinstance(first, Text) and first.text.strip() == persona)


def test_msagent_keeps_the_required_properties_of_an_object_parameter() -> None:
    place: Json = {"type": "object", "properties": {"city": {"type": "string"}, "zip": {}}, "required": ["city"]}
    schema: dict[str, Json] = {
        "type": "object",
        "properties": {"place": place, "days": {"type": "integer"}},
        "required": ["place"],
    }
    tool = ToolDefinition("weather", "The weather.", schema)
    assert parse_system(call_format("msagent").write_system("", [tool]))[1] == (tool,)


@pytest.mark.parametrize(
    "more",
    [
        {
            "$defs": {"Line": {"type": "object", "properties": {"sku": {}}}},
            "properties": {"x": {"$ref": "#/$defs/Line"}},
        },
        {"properties": {"x": {}}, "anyOf": [{"required": ["x"]}]},
        {"properties": {}, "additionalProperties": {"type": "number"}},
    ],
)
def test_msagent_declares_a_schema_whole_if_its_parameters_need_it(more: dict[str, Json]) -> None:
    tool = ToolDefinition("order", "Order.", {"type": "object", **more})
    assert parse_system(call_format("msagent").write_system("", [tool]))[1][0].parameters.items() >= more.items()


@pytest.mark.parametrize("fmt", CALL_FORMATS.values(), ids=CALL_FORMATS)
def test_without_tools_the_system_text_is_the_persona(fmt: CallFormat) -> None:
    assert fmt.write_system("You help.", []) == "You help."


def test_hermes_declares_schemas_unchanged() -> None:
    system = call_format("hermes").write_system("P", [TOOL])
    line = next(line for line in system.splitlines() if line.startswith("{"))
    assert json.loads(line)["function"]["parameters"] == TOOL.parameters


@pytest.mark.parametrize("schema", [{"properties": None, "required": None}, {"properties": {"x": True}}])
def test_msagent_declares_every_valid_schema(schema: dict[str, Any]) -> None:
    tool = ToolDefinition("look", "Look.", {"type": "object", **schema}, ())
    assert '"name": "look"' in call_format("msagent").write_system("Hi.", [tool])
