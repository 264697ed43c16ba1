from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.json_text import MAX_DEPTH, UnreadableError, read_json, read_literal, read_value

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values, st.text(max_size=8), st.text(max_size=8))
def test_json_is_read_from_its_start_to_its_end(value: object, before: str, after: str) -> None:
    text = json.dumps([value], ensure_ascii=False)
    read, end = read_json(before + text + after, len(before))
    assert (read, end) == ([value], len(before) + len(text))


@given(json_values)
def test_python_literals_are_read_as_json(value: object) -> None:
    assert read_literal(repr(value)) == value
    assert read_value(f" {value!r}\n") == value


def test_values_longer_than_a_window_are_read_behind_other_text() -> None:
    text = json.dumps({"a": "x" * 100_000, "b": ["y"] * 50})
    assert read_json("-" + text + "-", 1) == (json.loads(text), len(text) + 1)


def test_the_place_of_an_error_counts_from_the_start_of_the_text() -> None:
    for padding in (0, 10_000):
        text = "-" + '{"a": "' + "x" * padding + '", oops}'
        with pytest.raises(UnreadableError) as caught:
            read_json(text, 1)
        assert caught.value.position == text.index("oops")


def test_raw_newlines_and_tabs_in_strings_are_allowed() -> None:
    assert read_value('{"a": "one\ntwo\tthree"}') == {"a": "one\ntwo\tthree"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "too-deep"),
        ('{"a":' * 100_000, "too-deep"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "too-deep"),
        ("NaN", "invalid-json"),
        ("[Infinity]", "invalid-json"),
        ("[1e999]", "invalid-json"),
        ("9" * 5000, "invalid-json"),
        (r'"\ud800"', "lone-surrogate"),
        ('"\ud800"', "lone-surrogate"),
        ('{"a": 1} x', "invalid-json"),
        ("", "invalid-json"),
    ],
)
def test_what_no_one_can_use_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_value(text)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "text",
    [
        "{'a': {1, 2}}",
        "{'a': b'x'}",
        "{'a': ...}",
        "{1: 'a'}",
        "{'a': 1e999}",
        "{'a': 1+2j}",
        "{'a': open('x')}",
        "__import__('os').system('true')",
        "{'a': " + "-" * 100_000 + "1}",
        "{'a': " + "1+" * 100_000 + "1}",
        "{'a': " + "(" * 50_000 + ")" * 50_000 + "}",
        "'" + r"\ud800" + "'",
        "'" + "x" * 300_000 + "'",
        "{'a': 1",
        "a\0b",
    ],
)
def test_python_that_is_no_plain_value_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        read_literal(text)


def test_nesting_up_to_the_limit_is_read() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(read_value(text)) == text
    assert read_json('{"a": [' + "[]," * 300 + "[]]}")[1] > 900


def test_an_escaped_pair_is_text_and_an_odd_escape_warns_nobody() -> None:
    assert read_value(r'"\ud83d\ude00"') == "😀"
    assert read_literal(r"{'a': '\d'}") == {"a": r"\d"}
    assert read_literal("{'a': (1, 2.5)}") == {"a": [1, 2.5]}


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_text_gives_a_value_or_the_one_error(text: str) -> None:
    for read in (read_value, read_literal, read_json):
        with suppress(UnreadableError):
            read(text)
