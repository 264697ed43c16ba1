"""A person as the model: what is shown, how a typed line is read, and an evaluation from a pipe."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentft.commands import run
from agentft.models import Delta, Request, Sampling, TextDelta
from agentft.models.play import PlayModel, read_typed
from agentft.models.round_trip import sample_conversation
from agentft.types import Text, ToolCall
from tests.evaluation.world import write_suite, write_world

TALK = sample_conversation()


@pytest.mark.parametrize(
    ("line", "calls"),
    [
        ('get_weather {"city": "Oslo"}\n', [("get_weather", {"city": "Oslo"})]),
        ('a.b {"x": {"y": 1}} c-d{}', [("a.b", {"x": {"y": 1}}), ("c-d", {})]),
        ('get_weather {"city": "Oslo"} please', []),
        ('get_weather {"city": ', []),
        ("It is 17 degrees.\n", []),
        ("\n", []),
    ],
)
def test_a_line_is_calls_or_text(line: str, calls: list[tuple[str, object]]) -> None:
    parts = read_typed(line, TALK)
    assert [(part.name, dict(part.arguments)) for part in parts if isinstance(part, ToolCall)] == calls
    if not calls:
        assert [part.text for part in parts if isinstance(part, Text)] == [line.strip()]


def test_calls_have_ids_and_endpoints() -> None:
    tools = (replace(TALK.tools[0], endpoints=("http://x.test/w",)), *TALK.tools[1:])
    parts = read_typed("get_weather {} get_weather {} echo {}", replace(TALK, tools=tools))
    calls = [(part.id, part.endpoint) for part in parts if isinstance(part, ToolCall)]
    assert calls == [("call_0", "http://x.test/w"), ("call_1", "http://x.test/w"), ("call_2", None)]


def test_tools_are_shown_once_and_then_what_is_new() -> None:
    shown: list[str] = []
    lines = iter(['get_weather {"city": "Oslo"}', "It is 17."])

    def ask(text: str) -> str:
        shown.append(text)
        return next(lines)

    deltas: list[tuple[int, Delta]] = []
    model = PlayModel(ask, "hermes")
    asked = replace(TALK, turns=TALK.turns[:2])
    answered = replace(TALK, turns=TALK.turns[:4])
    requests = [Request("w1/0/0", asked), Request("w1/0/1", answered)]
    first, second = model.reply(requests, Sampling(), lambda index, delta: deltas.append((index, delta)))

    assert '  get_weather {"type": "object"' in shown[0]
    assert "Answer in one line" in shown[0]
    assert shown[0].endswith("user: What is the weather in Oslo?")
    assert shown[1] == '\n[w1/0/1]\ntool: {"degrees": 17}'
    assert first.raw == '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert second.raw == "It is 17."
    assert (1, TextDelta("It is 17.")) in deltas
    assert {index for index, _ in deltas} == {0, 1}


def test_an_evaluation_is_answered_from_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_suite(tmp_path)
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = [
        "eval",
        "./shopping",
        "--tools",
        "./shop",
        "--model",
        "play",
        "--limit",
        "2",
        "--output",
        "out",
        "--json",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("I like tea.\n"))
    assert run(command) == 2
    assert "give the same command again" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("I like tea.\n" * 8))
    assert run(command) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert (summary["cases"], summary["arms"]["model"]["name"]) == (2, "play: a person")
    assert captured.err.count("user: ") == 1, "the first case was answered before"
    assert run([*command, "--adapter", "last"]) == 2
