"""Models behind an OpenAI-compatible endpoint, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from agentft.agent import add_user_turn, advance, open_conversation
from agentft.calls import call_format
from agentft.models import CallDone, CallStarted, Delta, Reply, Request, Sampling, TextDelta
from agentft.models.endpoint import EndpointModel
from agentft.models.transport import EndpointError, open_endpoint
from agentft.types import Conversation, Exchange, Json, ParseFailure, Span, Text, ToolCall, ToolDefinition
from tests.models.served import Answer, Served, completion, tool_call

CITY: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = ToolDefinition("weather", "Weather of a city.", CITY)  # type: ignore[arg-type]
HELLO = completion({"content": "Hello."})


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTFT_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@contextmanager
def serving(
    *answers: Answer | Callable[[Any], Any], fmt: str | None = None, **limits: Any
) -> Iterator[tuple[Served, EndpointModel]]:
    with ExitStack() as stack:
        handler: Any = answers[0] if callable(answers[0]) else answers
        served = stack.enter_context(Served(handler))
        endpoint = open_endpoint(served.url, backoff=0.01, **limits)
        model = EndpointModel(endpoint, "tiny", call_format(fmt) if fmt else None)
        stack.callback(model.close)
        yield served, model


def conversation(text: str = "Weather in Oslo?") -> Conversation:
    return add_user_turn(open_conversation("c", "Be brief.", [TOOL], "openai"), text)


def ask(model: EndpointModel, asked: Conversation | None = None, **sampling: Any) -> Reply:
    return model.reply([Request("c/0/0", asked or conversation())], Sampling(**sampling))[0]


def calls(reply: Reply) -> list[ToolCall]:
    return [part for part in reply.turn.parts if isinstance(part, ToolCall)]


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_an_answer_at_the_limit_of_tokens(reason: str) -> None:
    with serving(completion({"content": "Hello."}, reason)) as (_, model):
        assert ask(model).finish == "length"


@pytest.mark.parametrize("streams", [True, False])
def test_a_call_goes_back_with_its_signature(streams: bool) -> None:
    own: Any = tool_call("weather", {"city": "Oslo"}, "")
    signed: Any = {**own, "extra_content": {"google": {"thought_signature": "AbC="}}}
    details: Any = [{"type": "reasoning.text", "text": "Hm"}, {"type": "reasoning.encrypted", "data": "AbC="}]
    calling = completion({"content": None, "tool_calls": [signed], "reasoning_details": details}, "tool_calls")
    if streams:
        deltas: Any = [{"reasoning_details": details[:1]}]
        deltas += [{"tool_calls": [{"index": 0, **signed}], "reasoning_details": details[1:]}]
        events = [{"choices": [{"delta": one, "finish_reason": "stop"}]} for one in deltas]
        body = "".join(f"data: {json.dumps(one)}\n\n" for one in events)
        calling = Answer(body=body, headers={"Content-Type": "text/event-stream"})
    with serving(calling, HELLO, HELLO) as (served, model):
        heard = (lambda *_: None) if streams else None
        (reply,) = model.reply([Request("c/0/0", conversation())], Sampling(), heard)
        after, _ = advance(conversation(), reply, Runner(), "s", 0)
        ask(model, after)
        ask(model, replace(after, id="another"))
    said = [one.body["messages"][2] for one in served.chats[1:]]
    assert [one["tool_calls"][0].get("extra_content") for one in said] == [signed["extra_content"], None]
    assert [one.get("reasoning_details") for one in said] == [details, None]  # OpenRouter's place for it


class Runner:
    def call(self, call: ToolCall, session: str) -> Exchange:
        return Exchange(call, "POST", "/tools/weather", dict(call.arguments), 200, '{"sky": "clear"}', is_error=False)

    def state_digest(self, session: str) -> str:
        return ""


def test_a_conversation_is_sent_as_messages_with_tools_and_call_ids() -> None:
    calling = completion({"content": None, "tool_calls": [tool_call("weather", {"city": "Öslo"}, "abc")]}, "tool_calls")
    with serving(calling, HELLO) as (served, model):
        reply = ask(model)
        assert (reply.finish, reply.usage.prompt_tokens, reply.usage.tokens, reply.raw) == ("stop", 7, 3, None)
        assert json.loads(reply.response or "")["choices"][0]["finish_reason"] == "tool_calls"
        after, _ = advance(conversation(), reply, Runner(), "s", 0)
        answer = ask(model, after, max_new_tokens=9)
    assert (answer.turn.raw, answer.finish) == ("Hello.", "end")
    first, second = (one.body for one in served.chats)
    assert first["tools"] == [
        {"type": "function", "function": {"name": "weather", "description": TOOL.description, "parameters": CITY}}
    ]
    assert {key: first[key] for key in ("model", "temperature", "stream", "max_tokens")} == {
        "model": "tiny",
        "temperature": 0.0,
        "stream": False,
        "max_tokens": 256,
    }
    assert "seed" not in first
    assert second["max_tokens"] == 9
    assert second["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Oslo?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "abc", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Öslo"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "abc", "content": '{"sky": "clear"}'},
    ]


def test_sampling_settings_are_sent_when_they_matter() -> None:
    with serving(HELLO, HELLO) as (served, model):
        ask(model, temperature=0.5, top_p=0.9, top_k=4, seed=3)
        ask(model, temperature=0.5)
    assert {key: served.chats[0].body[key] for key in ("temperature", "top_p", "top_k", "seed")} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "seed": 3,
    }
    assert "top_k" not in served.chats[1].body


def test_parallel_calls_keep_their_order_and_get_ids_of_their_own() -> None:
    given = [
        tool_call("weather", {"city": name}, identity)
        for name, identity in [("A", "same"), ("B", "same"), ("C", None), ("D", "")]
    ]
    with serving(completion({"tool_calls": given})) as (_, model):
        found = calls(ask(model))
    assert [call.arguments["city"] for call in found] == ["A", "B", "C", "D"]
    assert [call.id for call in found] == ["same", "call_1", "call_2", "call_3"]


def test_ids_that_were_made_here_are_taken_by_mistral() -> None:
    """It takes nine letters and digits; one of the server's own stays."""
    given = [
        tool_call("weather", {"city": name}, identity)
        for name, identity in [("A", "D681PevKs"), ("B", None), ("C", "2")]
    ]
    with serving(completion({"tool_calls": given}), HELLO) as (served, model):
        after, _ = advance(conversation(), ask(model), Runner(), "s", 0)
        ask(model, after)
    said, *results = served.chats[1].body["messages"][2:]
    assert [one["id"] for one in said["tool_calls"]] == ["D681PevKs", "call00001", "2"]
    assert [one["tool_call_id"] for one in results] == ["D681PevKs", "call00001", "2"]


BAD: list[tuple[Json, str, str, dict[str, Json]]] = [
    (tool_call("weather", '{"city": '), "content", "weather", {}),
    (tool_call("weather", '{"city": "A", "city": "B"}'), "content", "weather", {"city": "B"}),
    (tool_call("weather", "[1]"), "content", "weather", {}),
    ({"id": "x", "function": {"name": "weather", "arguments": 3}}, "content", "weather", {}),
    ({"id": "x", "function": {"arguments": "{}"}}, "content", "", {}),
    ({"id": "x", "function": "weather"}, "structure", "", {}),
    ("weather(city='A')", "structure", "", {}),
    (None, "structure", "", {}),
]


@pytest.mark.parametrize(("call", "kind", "name", "arguments"), BAD)
def test_malformed_calls_are_the_models_and_classed(
    call: Json, kind: str, name: str, arguments: dict[str, Json]
) -> None:
    """The response is kept as it came, and the conversation goes on with messages that every server accepts."""
    body = completion({"content": "Hm.", "tool_calls": [call]})
    with serving(body, HELLO) as (served, model):
        reply = ask(model)
        assert json.loads(reply.response or "") == body.body
        (found,) = calls(reply)
        assert isinstance(found.parse_error, ParseFailure)
        assert (found.parse_error.kind, found.name, dict(found.arguments)) == (kind, name, arguments)
        assert "".join(reply.turn.raw[p.span.start : p.span.end] for p in reply.turn.parts) == reply.turn.raw
        after, _ = advance(conversation(), reply, Runner(), "s", 0)
        ask(model, after)
    said, result = served.chats[1].body["messages"][2:]
    if name:
        assert said["tool_calls"][0]["function"] == {"name": "weather", "arguments": "{}"}
        assert (result["role"], result["tool_call_id"]) == ("tool", found.id)
    else:
        assert "tool_calls" not in said
        assert result["role"] == "user"
    assert "the call could not be read" in result["content"]


@pytest.mark.parametrize("calls_given", ["weather", {"a": 1}, 7])
def test_calls_that_are_no_list_are_one_malformed_call(calls_given: Json) -> None:
    with serving(completion({"tool_calls": calls_given})) as (_, model):
        (found,) = calls(ask(model))
    assert found.parse_error is not None
    assert found.parse_error.kind == ("structure" if calls_given != {"a": 1} else "content")


def test_arguments_may_be_an_object_and_an_older_function_call_is_read() -> None:
    call: Json = {"function": {"name": "weather", "arguments": {"city": "A"}}}
    old: Json = {"name": "weather", "arguments": '{"city": "B"}'}
    with serving(completion({"tool_calls": [call], "function_call": old})) as (_, model):
        found = calls(ask(model))
    assert [(call.arguments, call.parse_error) for call in found] == [({"city": "A"}, None), ({"city": "B"}, None)]


@pytest.mark.parametrize("streams", [True, False])
def test_a_call_in_both_forms_is_one(streams: bool) -> None:
    """llama-cpp-python sends each call so; every call counted twice."""
    call: Any = tool_call("weather", {"city": "A"})
    message = {"tool_calls": [{**call, "index": 0}], "function_call": call["function"]}
    delta = json.dumps({"choices": [{"delta": message, "finish_reason": "tool_calls"}]})
    with serving(Answer(body=f"data: {delta}\n\n") if streams else completion(message)) as (_, model):
        (reply,) = model.reply([Request("c", conversation())], Sampling(), (lambda *_: None) if streams else None)
    assert [call.arguments for call in calls(reply)] == [{"city": "A"}]


BODIES = [
    "",
    "<html>",
    "[]",
    '{"choices": []}',
    '{"choices": [{}]}',
    '{"error": {"message": "no"}}',
    '{"a": 1, "a": 2}',
]


@pytest.mark.parametrize("body", [*BODIES, json.dumps({"choices": [{"message": {"content": 7}}]})])
def test_a_malformed_body_is_an_error_of_the_server_with_what_it_sent(body: str) -> None:
    with serving(Answer(body=body)) as (served, model), pytest.raises(EndpointError) as caught:
        ask(model)
    kind = "content" if body in {"", "<html>", BODIES[-1]} else "structure"
    assert f"malformed response ({kind}: " in str(caught.value)
    assert str(caught.value).endswith(body)
    assert len(served.chats) == 1


@pytest.mark.parametrize("streams", [True, False])
def test_a_text_in_place_of_a_message_is_the_answer(streams: bool) -> None:
    """As some servers send it; it was an empty answer."""
    said = {"choices": [{"text": "Hello.", "finish_reason": "stop"}]}
    with serving(Answer(body=f"data: {json.dumps(said)}\n\n" if streams else said)) as (_, model):
        (reply,) = model.reply([Request("c", conversation())], Sampling(), (lambda *_: None) if streams else None)
    assert reply.turn.raw == "Hello."


FILTERED = ["content_filter", "content_filter: SAFETY", "sensitive", "refusal", "RECITATION", "guardrail_intervened"]


@pytest.mark.parametrize(
    ("finish", "read"), [("length", "length"), ("stop", "end"), *((one, "filtered") for one in FILTERED)]
)
def test_finish_reasons(finish: str, read: str) -> None:
    with serving(completion({"content": "x"}, finish, usage=None)) as (_, model):
        reply = ask(model)
    assert (reply.finish, reply.usage.tokens) == (read, 0)


@pytest.mark.parametrize(
    "message",
    [
        {
            "reasoning_details": [
                {"type": "reasoning.text", "text": "Hm"},
                {"type": "reasoning.summary", "summary": "."},
            ]
        },
        {"reasoning": [{"type": "text", "text": "Hm."}]},
        {"reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"reasoning": None, "reasoning_content": {"text": "Hm."}},
        {"thinking": "Hm."},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "AbC="}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "text", "text": "A"},
            ]
        },
    ],
)
@pytest.mark.parametrize("streams", [True, False])
def test_thoughts_under_other_keys(message: Any, streams: bool) -> None:
    """They were lost, or made the case invalid."""
    message = {"content": "A", **message}
    seen: list[Delta] = []
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    events = [{"choices": [{"delta": {key: value}}]} for key, value in reversed(message.items())]
    body = "".join(f"data: {json.dumps(one)}\n\n" for one in [*events, end])
    with serving(Answer(body=body) if streams else completion(message)) as (_, model):
        (reply,) = model.reply([Request("c", conversation())], Sampling(), lambda _, delta: seen.append(delta))
    texts = [(part.text, part.thought) for part in reply.turn.parts if isinstance(part, Text)]
    assert texts == [("Hm.", True), ("A", False)]
    assert "".join(one.text for one in seen if isinstance(one, TextDelta) and one.thought) == "Hm."


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_goes_back_under_its_key_during_the_same_turn(key: str) -> None:
    call = completion({key: "Hm.", "content": "", "tool_calls": [tool_call("weather", {"city": "A"})]})
    with serving(call, HELLO, HELLO) as (served, model):
        reply = ask(model)
        assert [part.thought for part in reply.turn.parts if isinstance(part, Text)] == [True]
        after, _ = advance(conversation(), reply, Runner(), "s", 0)
        after, _ = advance(after, ask(model, after), Runner(), "s", 0)
        ask(model, add_user_turn(after, "And Rome?"))
    assert served.chats[1].body["messages"][2][key] == "Hm."
    assert key not in served.chats[2].body["messages"][2]


def test_a_call_without_a_thought_goes_back_with_an_empty_one() -> None:
    """DeepSeek refuses a message without the key, once it has thought."""
    made: dict[str, Json] = {"content": "", "tool_calls": [tool_call("weather", {"city": "A"})]}
    first = completion({"reasoning_content": "Hm.", **made})
    with serving(first, completion(made), HELLO) as (served, model):
        after, _ = advance(conversation(), ask(model), Runner(), "s", 0)
        after, _ = advance(after, ask(model, after), Runner(), "s", 0)
        ask(model, after)
    said = [one for one in served.chats[-1].body["messages"] if one["role"] == "assistant"]
    assert [one.get("reasoning_content") for one in said] == ["Hm.", ""]


def test_the_deltas_of_a_reply_come_at_its_end() -> None:
    seen: list[tuple[int, Delta]] = []
    with serving(completion({"content": "A.", "tool_calls": [tool_call("weather", {"city": "A"})]})) as (_, model):
        reply = model.reply(
            [Request("c", conversation())], Sampling(), lambda index, delta: seen.append((index, delta))
        )
    assert seen == [
        (0, TextDelta("A.")),
        (0, CallStarted("weather")),
        (0, CallDone(calls(reply[0])[0])),
    ]


def test_a_limit_under_another_name_is_learnt_from_the_refusal() -> None:
    def handle(asked: Any) -> Answer:
        if "max_tokens" in asked.body:
            return Answer(400, {"error": {"message": "use 'max_completion_tokens' instead"}})
        return HELLO

    with serving(handle) as (served, model):
        ask(model)
        ask(model)
    assert [("max_tokens" in one.body) for one in served.chats] == [True, False, False]


@pytest.mark.parametrize("fmt", ["hermes", "msagent"])
def test_prompts_can_be_rendered_here_as_plain_messages(fmt: str) -> None:
    """Tools and results are in the contents, and calls are read from the text, as for a local model."""
    form = call_format(fmt)
    tool = ToolDefinition("weather", "Weather of a city.", dict(TOOL.parameters), ("http://w.test/weather",))
    call = ToolCall("call_0", "weather", {"city": "Oslo"}, Span(0, 0), endpoint=tool.endpoints[0])
    text = form.write_parts([Text("Let me see.", Span(0, 0)), call])
    after_stop = "invented" if form.stop else ""
    opened = add_user_turn(open_conversation("c", "Be brief.", [tool], fmt), "Weather in Oslo?")
    with serving(completion({"content": text + after_stop}), HELLO, fmt=fmt) as (served, model):
        assert (model.source, model.rendering["call_format"]) == (fmt, fmt)
        reply = ask(model, opened)
        assert (reply.raw, reply.finish) == (text, "stop" if form.stop else "end")
        assert [part.arguments for part in calls(reply)] == [{"city": "Oslo"}]
        after, _ = advance(opened, reply, Runner(), "s", 0)
        assert ask(model, after).turn.raw == "Hello."
    first, second = (one.body for one in served.chats)
    assert "tools" not in first
    assert first["messages"][0]["content"] == form.write_system("Be brief.", [tool])
    assert first["messages"][1] == {"role": "user", "content": "Weather in Oslo?"}
    last = second["messages"][-1]
    assert '{"sky": "clear"}' in last["content"]
    assert last["role"] == ("assistant" if form.inline_results else "user")
    assert second.get("continue_final_message", False) == form.inline_results
