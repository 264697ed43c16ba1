from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft import json_text
from agentft.json_text import (
    MAX_DEPTH,
    UnreadableError,
    json_pointer,
    kind_of,
    parse_json,
    read_json,
    read_literal,
    read_value,
)
from agentft.types import Json

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


def test_values_longer_than_a_window_are_read_after_other_text() -> None:
    text = json.dumps({"a": "x" * 100_000, "b": ["y"] * 50})
    assert read_json("-" + text + "-", 1) == (json.loads(text), len(text) + 1)


def test_the_position_of_an_error_counts_from_the_start_of_the_text() -> None:
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
def test_unusable_text_is_refused_with_a_reason(text: str, reason: str) -> None:
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
        "{[]: 1}",
        "{'a': " + "-" * 3000 + "1}",
        "{'a': " + "-" * 100_000 + "1}",
        "{'a': " + "1+" * 100_000 + "1}",
        "{'a': " + "(" * 50_000 + ")" * 50_000 + "}",
        "'" + r"\ud800" + "'",
        "'" + "x" * 300_000 + "'",
        "{'a': 1",
        "a\0b",
    ],
)
def test_python_that_is_not_a_plain_literal_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        read_literal(text)


def test_nesting_up_to_the_limit_is_read() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(read_value(text)) == text
    assert read_json('{"a": [' + "[]," * 300 + "[]]}")[1] > 900


def test_an_escaped_pair_is_text_and_an_odd_escape_gives_no_warning() -> None:
    assert read_value(r'"\ud83d\ude00"') == "😀"
    assert read_literal(r"{'a': '\d'}") == {"a": r"\d"}
    assert read_literal("{'a': (1, 2.5)}") == {"a": [1, 2.5]}


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_text_gives_a_value_or_an_unreadable_error(text: str) -> None:
    for read in (read_value, read_literal, read_json):
        with suppress(UnreadableError):
            read(text)


@given(json_values, st.sampled_from(["", " ", "\n\t\r "]))
def test_a_document_is_parsed_whole(value: object, space: str) -> None:
    text = space + json.dumps(value, ensure_ascii=False) + space
    assert parse_json(text) == parse_json(text.encode(), unique_keys=True) == value


@pytest.mark.parametrize(
    ("text", "reason", "position", "detail"),
    [
        ("", "invalid-json", 0, "not JSON (Expecting value at character 0)"),
        ('  {"a" 1}', "invalid-json", 7, "not JSON (Expecting ':' delimiter at character 7)"),
        ("1 2", "invalid-json", 1, "not JSON (text after the value at character 1)"),
        ("1\u00a0", "invalid-json", 1, "not JSON (text after the value at character 1)"),
        ("\u00a01", "invalid-json", 0, "not JSON (Expecting value at character 0)"),
        ('"a\tb"', "invalid-json", 2, "not JSON (Invalid control character at at character 2)"),
        ("[NaN]", "invalid-json", None, "NaN is not JSON"),
        ("-Infinity", "invalid-json", None, "-Infinity is not JSON"),
        ("1e999", "invalid-json", None, "the number 1e999 is too large"),
        ("9" * 5000, "invalid-json", None, None),
        (r'"\ud800"', "lone-surrogate", None, "a lone surrogate, which is not text"),
        (b'{"a": "\xff"}', "invalid-utf8", 7, "not UTF-8 (byte 0xff at position 7)"),
        ("[" * 100_000, "too-deep", None, "nested more than 100 levels deep"),
        ("[" * 101 + "]" * 101, "too-deep", None, "nested more than 100 levels deep"),
    ],
)
def test_a_document_that_is_not_strict_json_is_refused(
    text: str | bytes, reason: str, position: int | None, detail: str | None
) -> None:
    with pytest.raises(UnreadableError) as caught:
        parse_json(text)
    assert (caught.value.reason, caught.value.position) == (reason, position)
    assert detail in (None, str(caught.value))


def test_depth_counts_lists_and_objects() -> None:
    assert MAX_DEPTH == 100
    assert parse_json("[" * 100 + "]" * 100)
    assert parse_json('[{"a": [1]}]', max_depth=3) == [{"a": [1]}]
    assert parse_json('[[1], [], [{}], {"a": 1}]', max_depth=3) == [[1], [], [{}], {"a": 1}]
    assert parse_json('[[1], [], [2], {"a": 1}]', max_depth=2) == [[1], [], [2], {"a": 1}]
    for text in ('[{"a": [1]}]', '{"a": [], "b": {"c": {}}}'):
        with pytest.raises(UnreadableError, match="more than 2 levels"):
            parse_json(text, max_depth=2)
    with pytest.raises(UnreadableError, match="more than 100 levels"):
        read_literal("[" * 50 + "{'a': " * 51 + "1" + "}" * 51 + "]" * 50)
    assert read_literal("[" * 100 + "]" * 100)
    with pytest.raises(UnreadableError, match="more than 100 levels"):
        read_literal("[" * 101 + "]" * 101)


def test_repeated_keys_are_refused_on_request() -> None:
    text = '{"x": [{"b": 1, "a": 2, "a": 3}]}'
    assert parse_json(text) == {"x": [{"b": 1, "a": 3}]}
    with pytest.raises(UnreadableError, match=r"^the key 'a' occurs twice$"):
        parse_json(text, unique_keys=True)


def test_the_length_of_a_literal_is_limited() -> None:
    longest = 200_000
    assert read_literal("'" + "x" * (longest - 2) + "'") == "x" * (longest - 2)
    with pytest.raises(UnreadableError, match=r"^a Python literal of 200001 characters is too long$"):
        read_literal("'" + "x" * (longest - 1) + "'")


def test_the_position_of_surplus_text() -> None:
    with pytest.raises(UnreadableError, match="text after the value at character 8") as caught:
        read_value(' {"a": 1} x')
    assert (caught.value.position, caught.value.reason) == (8, "invalid-json")


@pytest.mark.parametrize("size", [4090, 4095, 4096, 4097, 4120, 32_767, 32_768, 32_769])
def test_a_value_that_ends_at_the_edge_of_a_window_is_read(size: int) -> None:
    for value in ("x" * (size - 4), "\u5317" * (size - 4), 10 ** min(size - 3, 4000), [True] * (size // 6)):
        text = json.dumps([value], ensure_ascii=False)
        assert read_json("-" + text, 1) == ([value], len(text) + 1)
        assert read_json("-" + text + ' "', 1) == ([value], len(text) + 1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "an object"),
        ([], "a list"),
        ("", "text"),
        (True, "true or false"),
        (None, "null"),
        (1, "a number"),
        (0.5, "a number"),
    ],
)
def test_the_type_of_a_value_in_words(value: Json, words: str) -> None:
    assert kind_of(value) == words


@pytest.mark.parametrize(
    ("parts", "pointer"),
    [((), ""), (("",), "/"), (("a", 0), "/a/0"), (("a/b",), "/a~1b"), (("m~n",), "/m~0n"), (("~1",), "/~01")],
)
def test_json_pointers_escape_as_in_rfc_6901(parts: tuple[str | int, ...], pointer: str) -> None:
    assert json_pointer(*parts) == pointer


def test_an_error_quotes_at_most_40_characters() -> None:
    with pytest.raises(UnreadableError, match=f"^the number {'1' * 40} is too large$"):
        parse_json("1" * 50 + "e999")
    with pytest.raises(UnreadableError, match=f"^the key '{'k' * 40}' occurs twice$"):
        parse_json(json.dumps({"k" * 50: 1})[:-1] + ", " + json.dumps({"k" * 50: 2})[1:], unique_keys=True)


def test_a_document_with_unique_keys_is_strict_too() -> None:
    with pytest.raises(UnreadableError, match="Invalid control character"):
        parse_json('"a\tb"', unique_keys=True)


def test_only_the_value_itself_must_be_text() -> None:
    assert read_json("\ud800[1]\ud800", 1) == ([1], 4)
    for text in ('"\ud800"', r'"\udfff"'):
        with pytest.raises(UnreadableError) as caught:
            read_json("-" + text, 1)
        assert caught.value.reason == "lone-surrogate"


def test_a_number_that_is_longer_than_a_window_is_read_whole() -> None:
    for digits in (4095, 4096, 4097, 4300):
        assert read_json("-" + "7" * digits + ",", 1) == (int("7" * digits), digits + 1)
        assert read_json("-" + "7" * digits, 1) == (int("7" * digits), digits + 1)


@pytest.mark.parametrize(("size", "windows"), [(10, [4096]), (4096, [4096, 32_768]), (40_000, [4096, 32_768, 262_144])])
def test_a_value_in_a_long_text_costs_what_its_own_length_costs(
    size: int, windows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Decoder(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> Any:
            seen.append(len(s))
            return super().raw_decode(s, idx)

    monkeypatch.setattr(json_text, "_LENIENT", Decoder())
    value = "x" * (size - 2)
    text = " " + json.dumps(value) + " " * 1_000_000
    assert read_json(text, 1) == (value, size + 1)
    assert seen == windows
