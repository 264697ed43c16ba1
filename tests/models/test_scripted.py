from __future__ import annotations

from pathlib import Path

import pytest

from agentft.agent import add_user_turn, open_conversation
from agentft.errors import InputError
from agentft.models import CallDone, CallStarted, Delta, Request, Sampling, TextDelta
from agentft.models.scripted import ScriptedModel, read_answers
from agentft.types import Span, Text, ToolCall

CALL = ToolCall("call_0", "f", {"x": 1}, Span(0, 0))
HERMES = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
MSAGENT = '<|startofthink|>```JSON\n{"api_name": "f", "parameters": {"x": 1}}\n```<|endofthink|>'


def request(key: str) -> Request:
    return Request(key, add_user_turn(open_conversation("c", "", (), "msagent"), "two words"))


def test_exact_keys_take_precedence_over_patterns() -> None:
    model = ScriptedModel({"a*": "pattern", "ab/0/0": "exact", "*": "rest"})
    replies = model.reply([request("ab/0/0"), request("ac/0/0"), request("z")], Sampling())
    assert [reply.raw for reply in replies] == ["exact", "pattern", "rest"]
    assert replies[0].turn.parts == (Text("exact", Span(0, 5)),)
    assert {reply.finish for reply in replies} == {"end"}
    assert replies[0].prompt == "<|im_start|>user\ntwo words<|im_end|>\n<|im_start|>assistant\n"
    assert (replies[0].usage.prompt_tokens, replies[0].usage.tokens) == (5, 1)


def test_an_answer_is_cut_after_the_first_stop_string() -> None:
    deltas: list[tuple[int, Delta]] = []
    replies = ScriptedModel({"k": f"Well.{MSAGENT} and more"}).reply(
        [request("k")], Sampling(), lambda index, delta: deltas.append((index, delta))
    )
    assert (replies[0].raw, replies[0].finish) == (f"Well.{MSAGENT}", "stop")
    call = replies[0].turn.parts[1]
    assert isinstance(call, ToolCall)
    assert deltas == [(0, TextDelta("Well.")), (0, CallStarted("f")), (0, CallDone(call))]


@pytest.mark.parametrize(("fmt", "text"), [("hermes", HERMES), ("msagent", MSAGENT)])
def test_parts_are_written_and_parsed_in_the_call_format(fmt: str, text: str) -> None:
    model = ScriptedModel({"k": (CALL,)}, fmt=fmt)
    reply = model.reply([request("k")], Sampling())[0]
    assert (reply.raw, reply.turn.raw, model.source) == (text, text, fmt)
    assert [(part.name, part.arguments) for part in reply.turn.parts if isinstance(part, ToolCall)] == [("f", {"x": 1})]
    assert model.rendering["call_format"] == fmt


def test_a_missing_key_is_an_error_with_the_line_to_add() -> None:
    with pytest.raises(InputError) as caught:
        ScriptedModel({"a": "x"}, "answers.jsonl").reply([request("w1/0/2")], Sampling())
    assert str(caught.value) == ('answers.jsonl: no answer for \'w1/0/2\'; add a line {"key": "w1/0/2", "text": "..."}')


def test_the_name_contains_the_source_of_the_answers() -> None:
    assert ScriptedModel({}, "a.jsonl").name == "scripted:a.jsonl"


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
        ("[]", "answers.jsonl:1: expected a JSON object, got list"),
        ('{"key": "a", "text": ""}\n{"key": "a", "text": ""}', "answers.jsonl:2: the key 'a' has an answer already"),
    ],
)
def test_a_bad_line_is_an_error_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_answers(path)
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_answers(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_answers(tmp_path)
