"""Likeness of texts, and the requests of data files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentft.rows.likeness import LikeTexts, likeness, plain_words, read_requests


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert plain_words("What's the weather in Rome, today?") == ("what", "s", "the", "weather", "in", "rome", "today")
    assert plain_words("罗马的天气 ok") == ("罗", "马", "的", "天", "气", "ok")
    assert plain_words("snake_case") == ("snake", "case")


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ("Weather in Rome?", "weather in rome", 1, 1),
        ("", "?!", 1, 1),
        ("a b", "b a", 0.2, 0.6),
        ("What is the weather in Rome?", "What is the weather in Oslo?", 0.4, 0.8),
        ("What is the weather in Rome?", "Buy tea", 0, 0.05),
        ("one", "two", 0, 0),
    ],
)
def test_likeness(first: str, second: str, low: float, high: float) -> None:
    assert low <= likeness(first, second) <= high
    assert likeness(first, second) == likeness(second, first)


def test_likeness_is_the_jaccard_index() -> None:
    """`a b`: a, b, "^ a", "a b", "b $", and one trigram; `a c` shares a and "^ a" of ten."""
    assert likeness("a b", "a c") == pytest.approx(2 / 10)
    assert likeness("abcd", "abce") == pytest.approx(1 / 9)  # the trigram abc, of a word, two pairs and two trigrams


def test_the_nearest_texts_come_first() -> None:
    texts = ["Buy tea.", "What is the weather in Oslo?", "What is the weather in Rome today?", "Play a song"]
    found = LikeTexts(texts).nearest("what is the weather in rome", 2)
    assert [index for _, index in found] == [2, 1]
    assert found[0][0] == pytest.approx(likeness(texts[2], "what is the weather in rome"))
    assert LikeTexts(texts).nearest("xyz") == []
    assert LikeTexts([]).nearest("tea") == []
    assert [index for _, index in LikeTexts(["tea", "tea"]).nearest("tea", 2)] == [0, 1]


def test_common_words_do_not_hide_the_nearest() -> None:
    texts = [f"what is the price of item number {number}" for number in range(1000)]
    assert LikeTexts(texts).nearest("what is the price of item number 777")[0] == (1.0, 777)
    assert LikeTexts(["what is"] * 500).nearest("what is")[0] == (1.0, 0)


@pytest.mark.parametrize(("holding", "texts", "used"), [(200, 202, True), (201, 10_049, False), (201, 10_050, True)])
def test_a_gram_finds_nothing_if_more_than_200_texts_and_two_percent_hold_it(
    holding: int, texts: int, used: bool
) -> None:
    others = (str(number) for number in range(texts - holding - 1))
    found = LikeTexts(["aaa"] * holding + ["rare", *others]).nearest("aaa rare", 2)
    assert [index for _, index in found] == ([holding, 0] if used else [holding])


def test_at_most_fifty_texts_are_compared_and_one_is_returned() -> None:
    texts = LikeTexts(["tea"] * 60)
    assert len(texts.nearest("tea", 60)) == 50
    assert len(texts.nearest("tea")) == 1


def test_requests_of_a_data_file(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    rows = [
        {
            "messages": [
                {"role": "system", "content": "You help."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "Weather in Rome?"},
                {"role": "assistant", "tool_calls": [{"id": "c", **call}]},
                {"role": "tool", "tool_call_id": "c", "content": "sun"},
                {"role": "assistant", "content": "Sun."},
            ],
            "tools": tools,
        },
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "Nobody asked."}]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_requests([path])
    assert (first.said, first.calls, first.place, first.tools) == (("Hi",), (), f"{path}:1", frozenset({"weather"}))
    assert second.said == ("Hi", "Weather in Rome?")
    assert [(call.name, call.arguments) for call in second.calls] == [("weather", {"city": "Rome"})]
