"""Streamed responses of an endpoint, over real sockets: what they are joined to, and when it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agentft.agent import add_user_turn, open_conversation
from agentft.calls import call_format
from agentft.models import CallDone, CallStarted, CallText, Delta, Reply, Request, Sampling, TextDelta
from agentft.models.endpoint import EndpointModel
from agentft.models.prompting import Prompting, open_prompting
from agentft.models.transport import EndpointError, open_endpoint
from agentft.types import Json, ParseFailure, Span, Text, ToolCall, ToolDefinition
from tests.models.served import Answer, Served, completion
from tests.tiny import tiny_tokenizer

TOOL = ToolDefinition(
    "weather", "Weather.", {"type": "object", "properties": {"city": {"type": "string"}}}, ("http://w.test/weather",)
)
EVENTS = {"Content-Type": "text/event-stream; charset=utf-8"}
USAGE: Json = {"prompt_tokens": 7, "completion_tokens": 3}
END: Json = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}
ABORTED: Json = {"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}
LIMIT = 60  # seconds


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTFT_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def chunk(**delta: Json) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def piece(index: Json, identity: Json = None, name: Json = None, arguments: Json = "") -> Json:
    function: Json = {"arguments": arguments, **({"name": name} if name else {})}
    return {"index": index, "function": function, **({"id": identity, "type": "function"} if identity else {})}


def written(*chunks: Json | str, end: str = "data: [DONE]\n\n") -> bytes:
    lines = (one if isinstance(one, str) else json.dumps(one) for one in chunks)
    return (": ping\r\n\r\n" + "".join(f"data: {line}\r\n\r\n" for line in lines) + end).encode()


def streamed(*chunks: Json | str, end: str = "data: [DONE]\n\n", **more: Any) -> Answer:
    return Answer(body=written(*chunks, end=end), headers=EVENTS, **more)


@contextmanager
def serving(*answers: Any, fmt: str = "", prompting: Prompting | None = None) -> Iterator[tuple[Served, EndpointModel]]:
    with Served(answers[0] if callable(answers[0]) else answers) as served:
        endpoint = open_endpoint(served.url, backoff=0.01, seconds=LIMIT)
        model = EndpointModel(endpoint, "tiny", call_format(fmt) if fmt else None, prompting)
        try:
            yield served, model
        finally:
            model.close()


def ask(model: EndpointModel, seen: list[Delta] | None = None) -> Reply:
    asked = add_user_turn(open_conversation("c", "Be brief.", [TOOL], model.source), "Weather in Oslo?")
    found: list[Delta] = [] if seen is None else seen
    return model.reply([Request("c", asked)], Sampling(), lambda _, delta: found.append(delta))[0]


def calls(reply: Reply) -> list[tuple[str, str, Any]]:
    parts = [part for part in reply.turn.parts if isinstance(part, ToolCall)]
    return [(part.id, part.name, part.parse_error or dict(part.arguments)) for part in parts]


def test_a_reply_is_told_while_it_comes() -> None:
    first = written(chunk(role="assistant", content="Hel"), end="")
    answer = streamed(chunk(role="assistant", content="Hel"), chunk(content="lo."), END, held=len(first))
    seen: list[Delta] = []
    with serving(answer) as (served, model):
        asked = add_user_turn(open_conversation("c", "Be brief.", [TOOL], "openai"), "Hi")

        def hear(_: int, delta: Delta) -> None:
            seen.append(delta)
            served.go_on()  # nothing more comes before this

        (reply,) = model.reply([Request("c", asked)], Sampling(), hear)
    (sent,) = served.chats
    assert (sent.body["stream"], sent.body["stream_options"]) == (True, {"include_usage": True})
    assert seen == [TextDelta("Hel"), TextDelta("lo.")]
    assert (reply.turn.raw, reply.finish, reply.usage.prompt_tokens, reply.usage.tokens) == ("Hello.", "end", 7, 3)


def test_a_thought_in_the_content_is_told_as_one() -> None:
    """As servers send it that have no parser for the model's thoughts."""
    contents = [chunk(content=text) for text in ("<thi", "nk>\nW", "hy?\n</th", "ink>\n\nB", "ecause.")]
    answer = streamed(*contents, chunk(tool_calls=[piece(0, "a", "weather", '{"city": "Oslo"}')]), END)
    seen: list[Delta] = []
    with serving(answer) as (_, model):
        reply = ask(model, seen)
    texts = [(part.text, part.thought) for part in reply.turn.parts if isinstance(part, Text)]
    assert texts == [("Why?", True), ("Because.", False)]
    said = [one for one in seen if isinstance(one, TextDelta)]
    for text, thought in texts:
        assert "".join(one.text for one in said if one.thought == thought) == text
    assert isinstance(seen[-1], CallDone)


def test_thoughts_and_calls_are_joined_by_index() -> None:
    answer = streamed(
        chunk(reasoning="H", reasoning_content="H"),
        chunk(reasoning="m.", reasoning_content="m."),
        chunk(content="Two."),
        chunk(tool_calls=[piece(0, "a", "weather")]),
        chunk(tool_calls=[piece(1, "b", "weather", '{"ci')]),
        chunk(tool_calls=[piece(0, None, None, '{"city": "Oslo"}'), piece(1, None, None, 'ty": "Rome"}')]),
        END,
    )
    seen: list[Delta] = []
    with serving(answer) as (_, model):
        reply = ask(model, seen)
    assert calls(reply) == [("a", "weather", {"city": "Oslo"}), ("b", "weather", {"city": "Rome"})]
    assert [(part.text, part.thought) for part in reply.turn.parts if isinstance(part, Text)] == [
        ("Hm.", True),
        ("Two.", False),
    ]
    assert seen[:4] == [TextDelta("H", True), TextDelta("m.", True), TextDelta("Two."), CallStarted("weather")]
    assert CallText("weather", '{"city": "Rome"}') in seen
    assert seen[-2:] == [CallDone(part) for part in reply.turn.parts if isinstance(part, ToolCall)]
    assert sum(isinstance(one, CallStarted) for one in seen) == 2


OSLO, ROME = '{"city": "Oslo"}', '{"city": "Rome"}'


@pytest.mark.parametrize(
    "pieces",
    [
        [[piece(0, "a", "weather", OSLO)], [piece(0, "b", "weather", ROME)]],  # one index for all
        [[piece(None, "a", "weather", OSLO), piece(None, "b", "weather", ROME)]],  # no index
        [[piece(0, "a", "weather", OSLO[:5]), piece(1, "b", "weather", ROME)], [piece(0, "a", "weather", OSLO[5:])]],
        [[piece(0, None, "wea", OSLO)], [piece(0, "a", "ther"), piece(1, "b", "weather", json.loads(ROME))]],
        # The id changes within a call; the tail of the second call has another index than its head.
        [
            [piece(0, "a", "weather")],
            [piece(0, "x", None, OSLO)],
            [piece(0, "b", "weather")],
            [piece(1, None, None, ROME)],
        ],
        [
            [piece(None, "a", None, OSLO[:5])],
            [piece(None, "a", "weather", OSLO[5:]), piece(None, "b", "weather", ROME)],
        ],
        [[piece(0, "a", "weather", OSLO[:5]), piece(0, "a", "weather", OSLO[5:])], [piece(1, "b", "weather", ROME)]],
    ],
)
def test_indices_and_names_of_other_servers(pieces: list[list[Json]]) -> None:
    with serving(streamed(*(chunk(tool_calls=one) for one in pieces), END)) as (_, model):
        assert calls(ask(model)) == [("a", "weather", {"city": "Oslo"}), ("b", "weather", {"city": "Rome"})]


@pytest.mark.parametrize(
    ("pieces", "made"),
    [
        ([[piece(0, "", "weather", OSLO), piece(0, "", "weather", ROME)]], [OSLO, ROME]),  # Gemini
        ([[piece(0, None, "weather", OSLO)], [piece(0, None, "weather", ROME)]], [OSLO, ROME]),
        ([[piece(0, None, "weather", OSLO[:5])], [piece(0, None, "weather", OSLO[5:])]], [OSLO]),  # repeats the name
        ([[piece(0, None, "weather", OSLO)], [piece(0, None, "weather")]], [OSLO]),
        ([[piece(0, "a", "weather", OSLO)], [piece(1, "a", "weather", ROME)]], [OSLO, ROME]),  # one id for all
    ],
)
def test_calls_with_equal_or_no_ids(pieces: list[list[Json]], made: list[str]) -> None:
    with serving(streamed(*(chunk(tool_calls=one) for one in pieces), END)) as (_, model):
        assert [arguments for _, _, arguments in calls(ask(model))] == list(map(json.loads, made))


THOUGHT: Json = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]


@pytest.mark.parametrize(
    ("chunks", "parts"),
    [
        ([chunk(content=THOUGHT), chunk(content=THOUGHT), chunk(content="Fine.")], [("HmHm", True), ("Fine.", False)]),
        ([chunk(content=[{"type": "text", "text": "Fi"}]), chunk(content="ne.")], [("Fine.", False)]),
        (
            [chunk(content=[{"type": "thinking", "thinking": "Hm"}]), chunk(content="Fine.")],
            [("Hm", True), ("Fine.", False)],
        ),
        ([chunk(thinking="Hm"), chunk(content="Fine.")], [("Hm", True), ("Fine.", False)]),
        ([{"choices": [{"index": None, "delta": {"content": "Fine."}}]}], [("Fine.", False)]),
        ([{"choices": [{"message": {"content": "Fine."}}]}], [("Fine.", False)]),
        (
            [chunk(content="Fi"), chunk(content="ne."), {"choices": [{"message": {"content": "Fine."}}]}],
            [("Fine.", False)],
        ),
    ],
)
def test_contents_of_other_servers(chunks: list[Json], parts: list[tuple[str, bool]]) -> None:
    seen: list[Delta] = []
    with serving(streamed(*chunks, END)) as (_, model):
        turn = ask(model, seen).turn
    assert [(part.text, part.thought) for part in turn.parts if isinstance(part, Text)] == parts
    said = [one for one in seen if isinstance(one, TextDelta)]
    assert "".join(one.text for one in said if not one.thought) == "Fine."
    assert "".join(one.text for one in said if one.thought) == "".join(text for text, thought in parts if thought)


@pytest.mark.parametrize("kind", ["", "application/json", "Text/Event-Stream"])
@pytest.mark.parametrize("start", ["\ufeff", "", "data:\n\n"])
@pytest.mark.parametrize("end", ["data: [DONE]", "data: [DONE]\n\n", ""])
def test_a_stream_is_known_by_its_lines(kind: str, start: str, end: str) -> None:
    finish = END if not end else {**END, "choices": []}  # type: ignore[dict-item]
    body = start.encode() + b"".join(written(one, end="") for one in (chunk(content="Fi"), chunk(content="ne.")))
    body = body.replace(b": ping\r\n\r\n", b"") + written(finish, end=end).rstrip()
    answer = Answer(body=body, headers={"Content-Type": kind})
    with serving(answer, answer) as (served, model):
        asked = add_user_turn(open_conversation("c", "", [TOOL], "openai"), "Hi")
        replies = [ask(model), *model.reply([Request("c", asked)], Sampling())]  # this one asks for no stream
    assert [(reply.turn.raw, reply.usage.tokens) for reply in replies] == [("Fine.", 3)] * 2
    assert [one.body["stream"] for one in served.chats] == [True, False]


@pytest.mark.parametrize("empty", [None, {}, {"index": 0, "function": None}, piece(-1)])
def test_an_empty_piece_of_a_call_is_none(empty: Json) -> None:
    with serving(streamed(chunk(content="Fine.", tool_calls=[empty]), END)) as (_, model):
        reply = ask(model)
    assert (calls(reply), reply.turn.raw) == ([], "Fine.")


@pytest.mark.parametrize("first", [chunk(tool_calls=[piece(0, "a", "weather", OSLO)]), chunk(role="assistant")])
def test_a_message_that_is_sent_again_makes_no_second_call(first: Json) -> None:
    message: Json = {"role": "assistant", "tool_calls": [piece(0, "a", "weather", OSLO)]}
    with serving(streamed(first, {"choices": [{"message": message}]}, END)) as (_, model):
        assert calls(ask(model)) == [("a", "weather", {"city": "Oslo"})]


def test_a_refusal_is_told_while_it_comes() -> None:
    seen: list[Delta] = []
    with serving(streamed(chunk(refusal="I can"), chunk(refusal="not."), END)) as (_, model):
        assert ask(model, seen).turn.raw == "I cannot."
    assert seen == [TextDelta("I can"), TextDelta("not.")]


def test_an_older_function_call_is_joined() -> None:
    parts: list[Json] = [{"name": "weather", "arguments": ""}, {"arguments": OSLO}]
    with serving(streamed(*(chunk(function_call=one) for one in parts), END)) as (_, model):
        assert calls(ask(model)) == [("call_0", "weather", {"city": "Oslo"})]


@pytest.mark.parametrize(
    ("piece_given", "kind"), [("weather", "structure"), ({"index": 0, "function": "weather"}, "structure")]
)
def test_malformed_calls_are_the_models(piece_given: Json, kind: str) -> None:
    with serving(streamed(chunk(tool_calls=[piece_given]), END)) as (_, model):
        ((_, _, failure),) = calls(ask(model))
    assert isinstance(failure, ParseFailure)
    assert failure.kind == kind


@pytest.mark.parametrize(
    ("chunks", "end", "part"),
    [
        (["{"], "", "(content: "),
        (['{"a": 1, "a": 2}'], "", "(content: "),
        (["[]"], "", "(structure: an event is a list"),
        ([chunk(content="Hi"), {"choices": [3]}], "", "(structure: a delta is "),
        ([{"choices": [{"delta": "Hi"}]}], "", "(structure: a delta is "),
        ([chunk(content="Hi"), {"error": {"message": "out of memory"}}], "", "out of memory"),
        (
            [chunk(content="Hi"), {"object": "error", "message": "too long"}],
            "data: [DONE]\n\n",
            'the server says "too long"',
        ),
        ([chunk(content="Hi")], 'error: {"code": 400, "message": "too long"}\n\n', 'the server says "too long"'),
        ([{"code": 422, "details": "no such thing"}], "", "no such thing"),
        ([chunk(content="Hi"), ABORTED], "", "abort"),
        ([chunk(content="Hi")], "", "(structure: the stream ended too soon;"),
        ([{"choices": [], "usage": USAGE}], "data: [DONE]\n\n", "(structure: there is no choice)"),
        ([chunk(content={"a": "b"}), END], "data: [DONE]\n\n", "(structure: "),
    ],
)
def test_a_malformed_stream_is_an_error_of_the_server(chunks: list[Json], end: str, part: str) -> None:
    with serving(streamed(*chunks, end=end)) as (served, model), pytest.raises(EndpointError) as caught:
        ask(model)
    assert "malformed response" in str(caught.value)
    assert part in str(caught.value)
    assert "data:" not in str(caught.value), "a person reads it"
    assert len(served.chats) == 1


def test_a_stream_that_is_lost_is_not_asked_for_again() -> None:
    answer = streamed(
        chunk(content="Hel"), chunk(content="lo."), END, cut=len(written(chunk(content="Hel"), end="")) + 5
    )
    with serving(answer) as (served, model), pytest.raises(EndpointError, match="the connection was lost"):
        ask(model)
    assert len(served.chats) == 1


def test_a_huge_stream_is_not_read_to_its_end() -> None:
    answer = streamed(*[chunk(content="x" * 90_000)] * 100)
    with serving(answer) as (_, model), pytest.raises(EndpointError, match="larger than 8388608"):
        ask(model)


@pytest.mark.parametrize("by", ["the listener", "cancel"])
def test_stopping_closes_the_connection(by: str) -> None:
    first = written(chunk(content="Hel"), end="")
    with serving(streamed(chunk(content="Hel"), chunk(content="lo."), END, held=len(first))) as (served, model):
        asked = add_user_turn(open_conversation("c", "", [], "openai"), "Hi")

        def hear(*_: object) -> None:
            if by == "cancel":
                threading.Timer(0.01, model.cancel).start()
            else:
                raise ZeroDivisionError

        with pytest.raises(EndpointError if by == "cancel" else ZeroDivisionError):
            model.reply([Request("c", asked)], Sampling(), hear)
        assert served.left.wait(LIMIT)


@pytest.mark.parametrize("refuses", [True, False])
def test_servers_that_do_not_stream(refuses: bool) -> None:
    hello = completion({"content": "Hello."})

    def handle(asked: Any) -> Answer:
        return Answer(400, {"error": "unknown field stream_options"}) if refuses and asked.body["stream"] else hello

    seen: list[Delta] = []
    with serving(handle) as (served, model):
        assert [ask(model, seen).turn.raw for _ in range(2)] == ["Hello."] * 2
    assert seen == [TextDelta("Hello.")] * 2
    assert [one.body["stream"] for one in served.chats] == ([True, False, False] if refuses else [True, True])
    assert [("stream_options" in one.body) for one in served.chats] == [one.body["stream"] for one in served.chats]


@pytest.mark.parametrize("fmt", ["hermes", "msagent"])
def test_calls_in_the_text_are_read_while_it_comes(fmt: str) -> None:
    form = call_format(fmt)
    call = ToolCall("call_0", "weather", {"city": "Oslo"}, Span(0, 0), endpoint=TOOL.endpoints[0])
    text = form.write_parts([Text("Let me see.", Span(0, 0)), call])
    whole = text + ("invented" if form.stop else "")
    chunks = [chunk(content=whole[at : at + 3]) for at in range(0, len(whole), 3)]
    seen: list[Delta] = []
    with serving(streamed(*chunks, END), fmt=fmt) as (_, model):
        reply = ask(model, seen)
    assert reply.raw == text
    assert "".join(one.text for one in seen if isinstance(one, TextDelta)) == "Let me see."
    assert [one.call.name for one in seen if isinstance(one, CallDone)] == ["weather"]
    assert sum(isinstance(one, CallText) for one in seen) > 3


def test_prompts_that_are_written_here_are_streamed(tmp_path: Any) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    prompting = open_prompting(str(tmp_path), "hermes")
    texts: list[Json] = [{"choices": [{"index": 0, "text": one, "finish_reason": None}]} for one in ("Fi", "ne.")]
    last: Json = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
    seen: list[Delta] = []
    with serving(streamed(*texts, last), prompting=prompting) as (served, model):
        reply = ask(model, seen)
    assert served.chats[0].path == "/v1/completions"
    assert (reply.raw, reply.finish) == ("Fine.", "length")
    assert "".join(one.text for one in seen if isinstance(one, TextDelta)) == "Fine."
