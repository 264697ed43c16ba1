from __future__ import annotations

from pathlib import Path

import pytest

from agentft.errors import InputError
from agentft.models import Request, Sampling
from agentft.models.scripted import ScriptedBackend, read_answers
from agentft.types import Segment


def request(key: str, *stop: str) -> Request:
    return Request(key, (Segment("two words", False, "user"),), stop)


def test_exact_keys_go_before_patterns() -> None:
    backend = ScriptedBackend({"a*": "pattern", "ab/0/0": "exact", "*": "rest"})
    done = backend.complete([request("ab/0/0"), request("ac/0/0"), request("z")], Sampling())
    assert [completion.text for completion in done] == ["exact", "pattern", "rest"]
    assert {completion.finish for completion in done} == {"end"}
    assert done[0].prompt_tokens == 2


def test_an_answer_is_cut_behind_the_first_stop_string() -> None:
    pieces: list[tuple[int, str]] = []
    backend = ScriptedBackend({"k": "call<end> and <stop> more"})
    done = backend.complete([request("k", "<stop>", "<end>")], Sampling(), lambda i, text: pieces.append((i, text)))
    assert (done[0].text, done[0].finish) == ("call<end>", "stop")
    assert pieces == [(0, "call<end>")]


def test_a_missing_key_is_named_with_the_line_to_add() -> None:
    with pytest.raises(InputError) as caught:
        ScriptedBackend({"a": "x"}, "answers.jsonl").complete([request("w1/0/2")], Sampling())
    assert str(caught.value) == ('answers.jsonl: no answer for \'w1/0/2\'; add a line {"key": "w1/0/2", "text": "..."}')


def test_the_name_says_where_the_answers_come_from() -> None:
    assert ScriptedBackend({}, "a.jsonl").name == "scripted:a.jsonl"


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "a/0/0", "text": "天气\\n好"}\n\n{"key": "b*", "text": ""}\n', encoding="utf-8")
    assert read_answers(path) == {"a/0/0": "天气\n好", "b*": ""}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "answers.jsonl:1: it is not a JSON object"),
        ('{"key": "a"}', "answers.jsonl:1: it must be"),
        ('{"key": "a", "text": 1}', "answers.jsonl:1: it must be"),
        ("[]", "answers.jsonl:1: it is list, not a JSON object"),
        ('{"key": "a", "text": ""}\n{"key": "a", "text": ""}', "answers.jsonl:2: the key 'a' has an answer already"),
    ],
)
def test_a_bad_line_is_named_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_answers(path)
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_answers(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_answers(tmp_path)
