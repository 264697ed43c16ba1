"""A local model's prompts, replies and streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.agent import add_user_turn, open_conversation
from agentft.calls import CALL_FORMATS, call_format
from agentft.models import CallDone, CallStarted, CallText, Delta, Request, Sampling, TextDelta
from agentft.models.completion import Completion, OnText, TextRequest
from agentft.models.local import LocalModel, PartStream
from agentft.rendering import FramedRendering
from agentft.rendering.frame import CHATML
from agentft.types import Conversation, Json, Part, Segment, Span, Text, ToolCall, ToolDefinition, ToolResult

TOOL = ToolDefinition("f", "A function.", {"type": "object", "properties": {}})
OPENINGS = {"msagent": "<|startofthink|>", "hermes": "<tool_call>"}
HERMES_CALL = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
PIECES = ["Hi. ", "\n", " ", "<", "a<b ", "<|startofthink|>", "<|endofthink|>", "<|startofexec|>{}<|endofexec|>"]
PIECES += ['```JSON\n{"api_name": "f", "parameters": {}}\n```', "<tool_call>", "</tool_call>", HERMES_CALL]


class Engine:
    """A text engine that generates these texts, piece by piece."""

    name = "engine"

    def __init__(self, *texts: Sequence[str]) -> None:
        self.texts = texts
        self.requests: list[TextRequest] = []

    def complete(
        self, requests: Sequence[TextRequest], sampling: Sampling, on_text: OnText | None = None
    ) -> list[Completion]:
        self.requests += requests
        for index, pieces in enumerate(self.texts):
            for piece in pieces if on_text else ():
                assert on_text is not None
                on_text(index, piece)
        return [Completion("".join(pieces), "end", 7, len(pieces)) for pieces in self.texts]


class Thinking:
    """A rendering for a reasoning model: text before `</think>` is a thought."""

    name = "thinking"
    stop = ("</stop>",)

    def prompt(self, conversation: Conversation) -> tuple[Segment, ...]:
        tools = ",".join(tool.name for tool in conversation.tools)
        return (Segment(f"[{tools}]", False, "system"), Segment("?", False, "user"))

    def samples(self, conversation: Conversation) -> list[tuple[Segment, ...]]:
        return []

    def parse(self, text: str) -> tuple[Part, ...]:
        body = text.removeprefix("<think>")
        if body == text:
            return (Text(text, Span(0, len(text))),) if text else ()
        thought, mark, answer = body.partition("</think>")
        end = len(text) - len(answer)
        parts: list[Part] = [Text(thought, Span(0, end), thought=True)]
        return (*parts, Text(answer, Span(end, len(text)))) if mark and answer else tuple(parts)

    def describe(self) -> Mapping[str, Json]:
        return {"call_format": "thinking"}


def conversation(source: str) -> Conversation:
    return add_user_turn(open_conversation("c", "Persona.", [TOOL], source), "Hello")


def collected(pieces: Sequence[str], parse: Callable[[str], tuple[Part, ...]]) -> list[Delta]:
    deltas: list[Delta] = []
    stream = PartStream(parse, deltas.append)
    for piece in pieces:
        stream.feed(piece)
    stream.close("".join(pieces))
    return deltas


def texts(deltas: Sequence[Delta], *, thought: bool = False) -> str:
    return "".join(d.text for d in deltas if isinstance(d, TextDelta) and d.thought == thought)


@pytest.mark.parametrize("name", CALL_FORMATS)
def test_a_reply_has_the_parts_the_text_the_prompt_and_the_usage(name: str) -> None:
    fmt = call_format(name)
    text = f"I look.{fmt.write_parts([ToolCall('c', 'f', {'x': 1}, Span(0, 0))])}"
    engine = Engine([text])
    model = LocalModel(engine, FramedRendering(fmt, CHATML))
    reply = model.reply([Request("k", conversation(model.source))], Sampling())[0]
    assert (model.name, model.source, model.rendering["frame_sha256"]) == ("engine", name, CHATML.fingerprint)
    assert (reply.raw, reply.turn.raw, reply.turn.parts) == (text, text, fmt.parse(text))
    assert (reply.finish, reply.usage.prompt_tokens, reply.usage.tokens) == ("end", 7, 1)
    assert reply.prompt is not None
    assert reply.prompt == "".join(segment.text for segment in engine.requests[0].segments)
    assert "A function." in reply.prompt
    assert reply.prompt.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    assert engine.requests[0].stop == fmt.stop


def test_a_custom_rendering_controls_the_prompt_the_stop_strings_and_the_parts() -> None:
    engine = Engine(["<think>", "Is it 8?", "</think>", "It is."], ["Plain."])
    model = LocalModel(engine, Thinking())
    deltas: list[tuple[int, Delta]] = []
    requests = [Request(key, conversation(model.source)) for key in ("a", "b")]
    replies = model.reply(requests, Sampling(), lambda index, delta: deltas.append((index, delta)))
    assert [reply.prompt for reply in replies] == ["[f]?", "[f]?"]
    assert engine.requests[0].stop == ("</stop>",)
    assert replies[0].turn.parts == (Text("Is it 8?", Span(0, 23), thought=True), Text("It is.", Span(23, 29)))
    assert deltas == [(0, TextDelta("Is it 8?", thought=True)), (0, TextDelta("It is.")), (1, TextDelta("Plain."))]


def test_thoughts_stream_as_thoughts() -> None:
    deltas = collected(["<think>Is", " it 8", "?</thi", "nk>It", " is."], Thinking().parse)
    assert texts(deltas, thought=True) == "Is it 8?"
    assert texts(deltas) == "It is."


@pytest.mark.parametrize("name", CALL_FORMATS)
def test_text_before_a_call_is_streamed_without_any_part_of_the_marker(name: str) -> None:
    text = f"I look.\n\n{OPENINGS[name]}" + '{"name": "f"}'
    parse = call_format(name).parse
    streamed = []
    for end in range(len(text) + 1):
        deltas: list[Delta] = []
        stream = PartStream(parse, deltas.append)
        for character in text[:end]:
            stream.feed(character)
        streamed.append(texts(deltas))
    assert all("<" not in piece for piece in streamed)
    assert all(later.startswith(earlier) for earlier, later in pairwise(streamed))
    assert streamed[7] == "I look."
    assert streamed[-1].rstrip() == "I look."


def test_text_that_only_looks_like_a_marker_is_streamed_later() -> None:
    parse = call_format("msagent").parse
    assert texts(collected(["a <b"], parse)) == "a <b"
    deltas: list[Delta] = []
    stream = PartStream(parse, deltas.append)
    stream.feed("a <b")
    assert texts(deltas) == "a"
    stream.feed(" c")
    assert texts(deltas) == "a <b c"
    stream.feed("<" + "x" * 40)
    assert texts(deltas) == "a <b c"
    stream.feed("x")
    assert texts(deltas) == "a <b c<" + "x" * 41


def test_each_call_is_announced_once_and_completed_once() -> None:
    text = f"One.{HERMES_CALL}\n{HERMES_CALL}"
    deltas = collected(list(text), call_format("hermes").parse)
    assert [type(delta) for delta in deltas if not isinstance(delta, TextDelta | CallText)] == [
        CallStarted,
        CallDone,
    ] * 2
    growing = [delta for delta in deltas if isinstance(delta, CallText)]
    assert growing[-1].name
    assert all(delta.text in text for delta in growing)
    assert len(growing) > 20
    calls = [delta.call for delta in deltas if isinstance(delta, CallDone)]
    assert calls == [part for part in call_format("hermes").parse(text) if isinstance(part, ToolCall)]


@given(st.sampled_from(sorted(CALL_FORMATS)), st.lists(st.sampled_from(PIECES), max_size=8))
def test_a_stream_contains_the_text_and_the_calls_of_the_turn(name: str, pieces: list[str]) -> None:
    text = "".join(pieces)
    parse = call_format(name).parse
    parts = parse(text)
    deltas: list[Delta] = []
    PartStream(parse, deltas.append).close(text)
    written = "".join(text[part.span.start : part.span.end] for part in parts if isinstance(part, Text | ToolResult))
    assert texts(deltas) == written
    calls = [part for part in parts if isinstance(part, ToolCall)]
    assert [delta.call for delta in deltas if isinstance(delta, CallDone)] == calls
    for piecewise in (pieces, list(text)):
        streamed = collected(piecewise, parse)
        assert sum(isinstance(delta, CallStarted) for delta in streamed) >= bool(calls)
