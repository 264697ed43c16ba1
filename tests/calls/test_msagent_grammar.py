from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.calls.msagent_grammar import CALL_END, CALL_START, RESULT_END, RESULT_START, parse_parts
from agentft.types import Part, Text, ToolCall, ToolResult


def parse(text: str) -> tuple[Part, ...]:
    """Parse, and check invariant 1: the spans tile the text."""
    parts = parse_parts(text)
    place = 0
    for part in parts:
        assert part.span.start == place
        assert part.span.end > place
        place = part.span.end
    assert place == len(text)
    return parts


def one_call(text: str) -> ToolCall:
    (call,) = [part for part in parse(text) if isinstance(part, ToolCall)]
    return call


def write_call(value: object, fence: str = "JSON") -> str:
    return f"{CALL_START} ```{fence}\n{json.dumps(value, ensure_ascii=False)}\n``` {CALL_END}"


def spans(text: str) -> list[tuple[str, str]]:
    return [(type(part).__name__, text[part.span.start : part.span.end]) for part in parse(text)]


CALL = write_call({"api_name": "weather", "url": "http://w.test/a", "parameters": {"city": "北京"}})
RESULT = f'{RESULT_START} ```JSON\n{{"high": 31}}\n``` {RESULT_END}'


def test_the_canonical_value() -> None:
    value = f"Let me look.\n{CALL}\n\n{RESULT}\nIt is 31 degrees."
    assert spans(value) == [
        ("Text", "Let me look.\n"),
        ("ToolCall", CALL),
        ("ToolResult", f"\n\n{RESULT}\n"),
        ("Text", "It is 31 degrees."),
    ]
    _, call, result, _ = parse(value)
    assert isinstance(call, ToolCall)
    assert (call.id, call.name, call.arguments) == ("call_0", "weather", {"city": "北京"})
    assert (call.endpoint, call.parse_error) == ("http://w.test/a", None)
    assert isinstance(result, ToolResult)
    assert (result.call_id, result.content) == ("call_0", '{"high": 31}')


@pytest.mark.parametrize(
    "body",
    [
        ' ```JSON\n{"api_name": "f", "parameters": {"x": 1}}\n``` ',
        '```json\n{"api_name": "f", "parameters": {"x": 1}}\n```',
        '```JSON\n{"api_name": "f", "parameters": {"x": 1}}```',
        '```\n{"api_name": "f", "parameters": {"x": 1}}\n```',
        '{"api_name": "f", "parameters": {"x": 1}}',
        '\n{\n  "api_name": "f",\n  "parameters": {"x": 1}\n}\n',
        '{"api_name": "f", "url": null, "parameters": {"x": 1}}',
        '{"api_name": "f", "parameters": "{\\"x\\": 1}"}',
        "{'api_name': 'f', 'parameters': {'x': 1}}",
        "```JSON\n{'api_name': 'f', 'parameters': {'x': 1}}\n```",
        "```JSON\n{'api_name': 'f', 'parameters': \"{'x': 1}\"}\n```",
    ],
)
def test_every_way_to_write_a_call(body: str) -> None:
    call = one_call(CALL_START + body + CALL_END)
    assert (call.name, call.arguments, call.endpoint, call.parse_error) == ("f", {"x": 1}, None, None)


def test_missing_parameters_mean_empty_arguments() -> None:
    for value in ({"api_name": "f"}, {"api_name": "f", "parameters": None}, {"api_name": "f", "parameters": ""}):
        call = one_call(write_call(value))
        assert (call.arguments, call.parse_error) == ({}, None)


@pytest.mark.parametrize("text", ["```", "a ``` b", CALL_END, f"{CALL_END} {RESULT_START}", "one\ntwo\tthree", '\\"{['])
def test_an_argument_may_contain_any_text(text: str) -> None:
    value = {"api_name": "f", "parameters": {"q": text, "n": None}}
    for call in (write_call(value), f"{CALL_START}```JSON\n{value!r}\n```{CALL_END}"):
        parts = parse(f"{call}\n\n{RESULT}\nDone")
        assert [type(part) for part in parts] == [ToolCall, ToolResult, Text]
        assert isinstance(parts[0], ToolCall)
        assert (parts[0].arguments, parts[0].parse_error) == ({"q": text, "n": None}, None)


def test_raw_newlines_in_an_argument() -> None:
    call = one_call(f'{CALL_START}{{"api_name": "f", "parameters": {{"q": "a\nb\tc"}}}}{CALL_END}')
    assert call.arguments == {"q": "a\nb\tc"}


@pytest.mark.parametrize(
    ("block", "name", "problem"),
    [
        (f'{CALL_START}{{"api_name": "f", "parameters": {{"x": 1}}\n```{CALL_END}', "f", "not JSON"),
        (f'{CALL_START}{{"api_name": "f", "parameters": {{}}}}}}{CALL_END}', "f", "surplus text after the call: '}'"),
        (f"{CALL_START}I think so{CALL_END}", "", "no JSON object"),
        (f"{CALL_START}{CALL_END}", "", "no JSON object"),
        (f'{CALL_START}{{"parameters": {{}}}}{CALL_END}', "", "api_name is missing"),
        (f'{CALL_START}{{"api_name": 7}}{CALL_END}', "", "api_name is missing"),
        (f'{CALL_START}{{"api_name": "f", "url": 7}}{CALL_END}', "f", "url must be text, not a number"),
        (f'{CALL_START}{{"api_name": "f", "parameters": [1]}}{CALL_END}', "f", "must be an object, not a list"),
        (f'{CALL_START}{{"api_name": "f", "parameters": "x"}}{CALL_END}', "f", "parameters: not JSON"),
        (f'{CALL_START}{{"api_name": "f", "parameters": {{"x": NaN}}}}{CALL_END}', "f", "NaN is not JSON"),
        (f'{CALL_START}{{"api_name": "f", "parameters": {{"x": "\\ud800"}}}}{CALL_END}', "f", "lone surrogate"),
        (f'{CALL_START}{{"api_name": "f", "parameters": {"[" * 99999}{CALL_END}', "f", "levels deep"),
        (f"{CALL_START}{{'api_name': 'f', 'parameters': {'-' * 99999}1}}{CALL_END}", "f", "not JSON"),
        (f"{CALL_START}[{{'api_name': 'f'}}]{CALL_END}", "", "a list of calls must be JSON"),
        (f'{CALL_START}[{{"api_name": "f"}} 7]{CALL_END}', "f", "breaks off"),
        (f"{CALL_START}[7]{CALL_END}", "", "a call must be an object, not a number"),
    ],
)
def test_a_bad_call_is_data(block: str, name: str, problem: str) -> None:
    value = f"{block}\n\n{RESULT}\nDone"
    call, result, text = parse(value)
    assert isinstance(call, ToolCall)
    assert call.name == name
    assert problem in str(call.parse_error)
    assert value[call.span.start : call.span.end] == block
    assert isinstance(result, ToolResult)
    assert isinstance(text, Text)


def test_a_last_call_without_its_end_marker() -> None:
    whole = CALL.removesuffix(f" {CALL_END}")
    for cut in (whole, whole + "\n", whole.removesuffix("\n```"), whole + "<|endofth"):
        assert one_call(cut).parse_error is None
    assert one_call(whole[:-8]).parse_error
    assert str(one_call(whole + "\nIt is 31.").parse_error) == "surplus text after the call: 'It is 31.'"


def test_a_missing_end_marker_before_the_next_block() -> None:
    whole = CALL.removesuffix(f" {CALL_END}")
    value = f"{whole}\n\n{RESULT}"
    assert spans(value) == [("ToolCall", whole), ("ToolResult", f"\n\n{RESULT}")]
    assert one_call(value).parse_error is None
    broken = f"{CALL_START}no call {CALL}"
    assert [kind for kind, _ in spans(broken)] == ["ToolCall", "ToolCall"]
    assert str(one_call(f"{whole} and {RESULT}").parse_error) == "surplus text after the call: 'and'"


def test_calls_in_one_block() -> None:
    first, second = '{"api_name": "f", "parameters": {"x": 1}}', '{"api_name": "g"}'
    block = f"{CALL_START}```JSON\n[{first}, {second}]\n```{CALL_END}"
    value = f"{block}\n\n{RESULT}\n\n\n{RESULT}\nDone"
    assert spans(value) == [
        ("ToolCall", f"{CALL_START}```JSON\n[{first}"),
        ("ToolCall", f", {second}]\n```{CALL_END}"),
        ("ToolResult", f"\n\n{RESULT}\n"),
        ("ToolResult", f"\n\n{RESULT}\n"),
        ("Text", "Done"),
    ]
    calls = [part for part in parse(value) if isinstance(part, ToolCall)]
    assert [(call.id, call.name, call.arguments) for call in calls] == [("call_0", "f", {"x": 1}), ("call_1", "g", {})]
    assert [part.call_id for part in parse(value) if isinstance(part, ToolResult)] == ["call_0", "call_1"]


def test_results_answer_calls_in_order() -> None:
    parts = parse(f"{RESULT}{CALL}{RESULT}{CALL}{CALL}{RESULT}{RESULT}{RESULT}")
    assert [part.id for part in parts if isinstance(part, ToolCall)] == ["call_0", "call_1", "call_2"]
    results = [part.call_id for part in parts if isinstance(part, ToolResult)]
    assert results == ["", "call_0", "call_1", "call_2", ""]


@pytest.mark.parametrize(
    ("inner", "content"),
    [
        (' ```JSON\n{"a": 1}\n``` ', '{"a": 1}'),
        ('```json\n{"a": 1}```', '{"a": 1}'),
        ("```\n{'a': [1, ...]}\n```", "{'a': [1, ...]}"),
        ('```JSON\n{"a": "said "so" today"}\n```', '{"a": "said "so" today"}'),
        (" sunny, 31 degrees ", "sunny, 31 degrees"),
        ('{"a": 1}', '{"a": 1}'),
        ("```python\nx\n```", "```python\nx\n```"),
        ("```JSON\n a\n\n```", " a\n"),
        ("```JSON\n```", ""),
        ("", ""),
        ('```JSON\n{"a": "```"}\n```', '{"a": "```"}'),
        (f'```JSON\n{{"a": "{RESULT_END} and {CALL_START}"}}\n```', f'{{"a": "{RESULT_END} and {CALL_START}"}}'),
        (f'{{"a": "{RESULT_START}"}}', f'{{"a": "{RESULT_START}"}}'),
        (f"see {CALL_START} there", f"see {CALL_START} there"),
    ],
)
def test_a_results_content_is_the_text_between_its_markers(inner: str, content: str) -> None:
    call, result, answer = parse(f"{CALL}\n\n{RESULT_START}{inner}{RESULT_END}\nDone")
    assert isinstance(call, ToolCall)
    assert isinstance(result, ToolResult)
    assert result.content == content
    assert isinstance(answer, Text)
    assert answer.text == "Done"


def test_unclosed_results() -> None:
    assert [part.content for part in parse(f'{RESULT_START} ```JSON\n{{"a": 1') if isinstance(part, ToolResult)] == [
        '{"a": 1'
    ]
    value = f"{RESULT_START} sunny {RESULT}"
    assert spans(value) == [("ToolResult", f"{RESULT_START} sunny "), ("ToolResult", RESULT)]
    assert [kind for kind, _ in spans(f"{RESULT_START} sunny {CALL}")] == ["ToolResult", "ToolCall"]


def test_whitespace_and_stray_markers_are_text() -> None:
    assert spans(f"{CALL} \n{CALL}\n") == [("ToolCall", CALL), ("Text", " \n"), ("ToolCall", CALL), ("Text", "\n")]
    assert spans(f"a {CALL_END} b {RESULT_END}") == [("Text", f"a {CALL_END} b {RESULT_END}")]
    assert spans(f"{CALL_END}{CALL}") == [("Text", CALL_END), ("ToolCall", CALL)]
    assert parse("") == ()
    assert spans(" \n") == [("Text", " \n")]


PIECES = [CALL_START, CALL_END, RESULT_START, RESULT_END, CALL, RESULT, "<|endofth", "```JSON\n", "```", "\n", " "]
PIECES += ['{"api_name": "f"', "{'api_name': 'f'}", '"parameters": {"x": 1}', *'}[],"', "'", "\\", "text", "北京"]
pieces = st.sampled_from(PIECES)


@given(st.lists(pieces, max_size=25).map("".join))
def test_spans_tile_any_mixture_of_pieces(text: str) -> None:
    parse(text)


@given(st.text(alphabet=st.characters(codec=None)), st.sampled_from([CALL_START, RESULT_START, ""]), st.text())
def test_spans_tile_any_text(before: str, marker: str, after: str) -> None:
    parse(before + marker + after)


names = st.text(min_size=1)
arguments = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()))


@given(names, arguments, st.sampled_from(["JSON", "json", ""]))
def test_a_written_call_parses_back(name: str, given_arguments: dict[str, object], fence: str) -> None:
    call = one_call("Text\n" + write_call({"api_name": name, "parameters": given_arguments}, fence))
    assert (call.name, call.arguments, call.parse_error) == (name, given_arguments, None)
