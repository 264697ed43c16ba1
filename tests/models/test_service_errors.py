"""Errors that an endpoint sends, and calls that it could not read, over real sockets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agentft.agent import advance
from agentft.models import Request, Sampling
from agentft.models.service_errors import read_error
from agentft.models.transport import EndpointError
from agentft.types import Json
from tests.models.served import Answer, completion, tool_call
from tests.models.test_endpoint import HELLO, Runner, ask, calls, conversation, no_key, serving

__all__ = ["no_key"]


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no provider"}},
        {"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": {"message": "no provider"}}]},
        {"choices": [{"message": {"content": "no provider"}, "finish_reason": "abort"}]},
        {"choices": [{"message": {"content": "no provider"}, "finish_reason": "insufficient_system_resource"}]},
        {"choices": [{"message": {"content": "no provider"}, "finish_reason": "network_error"}]},
        {"choices": [{"message": {"content": "no provider"}, "finish_reason": "ERROR"}]},
        {"object": "error", "message": "no provider"},
        {"code": 20012, "msg": "no provider", "data": None},
        {"success": False, "errors": [{"code": 7000, "message": "no provider"}], "result": None},
        {"choices": None, "base_resp": {"status_code": 2013, "status_msg": "no provider"}},
        {"choices": [{"message": {}}], "base_resp": {"status_code": 1027, "status_msg": "no provider"}},
    ],
)
def test_an_error_with_status_200_is_no_answer(body: Json) -> None:
    with serving(Answer(body=body)) as (_, model), pytest.raises(EndpointError, match=r"the server says .*no provider"):
        ask(model)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"error": {"message": "slow", "code": 429}}, (429, "slow")),
        (200, {"error": {"message": "slow"}, "status": "503"}, (503, "slow")),
        (200, {"error": {"message": "no code", "code": 4290}}, (200, "no code")),
        (200, {"error": {"message": "model_not_found"}}, (200, "model_not_found")),
        (200, {"choices": [{"error": {"message": "gone", "code": 502}}, {}]}, (502, "gone")),
        (200, {"base_resp": {"status_code": 1002, "status_msg": "slow"}}, (429, "slow")),
        (200, {"base_resp": {"status_code": 1004, "status_msg": "key"}}, (401, "key")),
        (200, {"base_resp": {"status_code": 1008, "status_msg": "pay"}}, (402, "pay")),
        (500, {"error": {"message": "down", "code": 429}}, (500, "down")),
        (400, [{"error": {"message": "API key not valid."}}, {"error": {"message": "x"}}], (401, "API key not valid.")),
        (429, {"error": {"message": "insufficient_quota"}}, (402, "insufficient_quota")),
        (400, {"error": {"message": "model_not_found"}}, (404, "model_not_found")),
        (400, {"error": {"message": "first", "details": "second"}}, (400, "first")),
        (403, '{"error": {"code": "content_filter"}}', (400, '{"error": {"code": "content_filter"}}')),
        (200, '{"error": {"code": "content_filter"}}', (400, '{"error": {"code": "content_filter"}}')),
        (400, '{"error": {"message": "tool_use_failed"}}', (400, '{"error": {"message": "tool_use_failed"}}')),
        (500, "down\n", (500, "down")),
        (500, {"reason": "é"}, (500, '{"reason": "é"}')),
        (500, "x" * 2000, (500, "x" * 1000)),
    ],
)
def test_the_status_and_the_message_of_an_error(status: int, body: Any, expected: tuple[int, str]) -> None:
    assert read_error(status, body if isinstance(body, str) else json.dumps(body)) == expected


def test_good_answers_may_hold_the_keys_of_errors() -> None:
    """MiniMax sends its `base_resp` with every answer."""
    good = {**HELLO.body, "error": None, "code": 0, "message": "ok", "base_resp": {"status_code": 0, "status_msg": ""}}
    with serving(Answer(body=good)) as (_, model):
        assert ask(model).turn.raw == "Hello."


UNREAD = [
    (400, {"error": {"message": "Failed to call a function. See 'failed_generation'", "code": "tool_use_failed"}}),
    (400, {"error": {"message": 'litellm.BadRequestError: GroqException - {"failed_generation": "<f>"}'}}),
    (200, {"error": {"message": "Provider error", "code": 400, "metadata": {"raw": '{"code": "tool_use_failed"}'}}}),
    (500, {"error": {"code": 500, "message": "Failed to parse input at pos 12: </tool_call>"}}),
    (500, {"error": {"code": 500, "message": "The model produced output that does not match the expected x format"}}),
    (500, {"error": {"message": "error parsing tool call: raw='{\"a\": ]', err=invalid character"}}),
    (400, {"error": "Failed to parse tool call: Unexpected end of content."}),
    (500, {"error": {"message": "Unexpected token 12606 while expecting start token 200006", "code": 500}}),
    (500, {"error": {"message": 'unexpected tokens remaining in message header: Some("to=functions.f")'}}),
    (424, {"message": "Model produced invalid sequence as part of ToolUse."}),
    (500, {"error": {"message": "The model produced invalid content.", "type": "model_error"}}),
    (422, {"error": "Tool error: Failed to parse generated text: EOF while parsing", "error_type": "tool_error"}),
]


@pytest.mark.parametrize(("status", "body"), UNREAD)
@pytest.mark.parametrize("streams", [True, False])
def test_an_error_about_the_models_call_is_the_models(status: int, body: Any, streams: bool) -> None:
    """It is not asked again, since another try would be another chance."""
    sent: Any = f"event: error\ndata: {json.dumps(body)}\n\n" if streams and status == 400 else body
    answer = Answer(200 if streams and status == 400 else status, sent)
    with serving(answer, HELLO) as (served, model):
        (reply,) = model.reply([Request("c", conversation())], Sampling(), (lambda *_: None) if streams else None)
        assert len(served.chats) == 1
        (call,) = calls(reply)
        assert (reply.finish, call.name) == ("unread", "")
        assert str(call.parse_error).startswith("the server could not read it: ")
        assert served.url not in str(call.parse_error)
        after, _ = advance(conversation(), reply, Runner(), "s", 0)
        assert ask(model, after).turn.raw == "Hello."


AZURE = {"message": "The response was filtered", "param": "prompt", "code": "content_filter", "status": 400}
FILTERED = [
    (400, {"error": {**AZURE, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    (400, {"error": {"message": "litellm.ContentPolicyViolationError: AzureException - filtered", "code": "400"}}),
    (400, {"error": {"message": "Invalid prompt: it may violate our usage policy.", "code": "invalid_prompt"}}),
    (403, {"error": "Content violates usage guidelines."}),
    (403, {"error": {"code": 403, "metadata": {"flagged_input": "x"}}}),
    (400, {"error": {"message": "Content Exists Risk", "code": "invalid_request_error"}}),
    (400, {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}),
    (400, "<400> InternalError.Algo.DataInspectionFailed: Input text data"),
    (400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}),
    (200, {"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}, "choices": None}),
    (500, {"type": "error", "error": {"message": "Output blocked by content filtering policy"}}),
]


@pytest.mark.parametrize(("status", "body"), FILTERED)
@pytest.mark.parametrize("fmt", [None, "hermes"])
def test_a_prompt_that_a_filter_refuses_has_no_answer(status: int, body: Any, fmt: str | None) -> None:
    """As an answer that it withheld; it made the case invalid. A person is told why instead."""
    with serving(lambda _: Answer(status, body), fmt=fmt) as (served, model):
        reply = ask(model)
        assert (reply.finish, reply.turn.parts, len(served.chats)) == ("filtered", (), 1)
        with pytest.raises(EndpointError, match=f"answered {status}"):
            model.reply([Request("c", conversation())], Sampling(), lambda *_: None)


def test_what_azure_says_about_its_filter_in_a_good_answer_is_no_refusal() -> None:
    results = {"hate": {"filtered": False, "severity": "safe"}}
    choice = {**HELLO.body["choices"][0], "content_filter_results": results}
    with serving(Answer(body={"choices": [choice], "prompt_filter_results": [results]})) as (_, model):
        assert ask(model).turn.raw == "Hello."


@pytest.mark.parametrize(
    "said", ["Failed to parse tool call arguments as JSON", "the parser failed", "Invalid tool call arguments passed"]
)
def test_an_error_about_the_request_is_not_the_models(said: str) -> None:
    with serving(lambda _: Answer(500, {"error": {"message": said}})) as (_, model), pytest.raises(EndpointError):
        ask(model)


@pytest.mark.parametrize("fmt", [None, "hermes"])
def test_without_tools_no_call_can_be_unread(fmt: str | None) -> None:
    bare = replace(conversation(), tools=())
    with serving(Answer(*UNREAD[3]), fmt=fmt) as (_, model), pytest.raises(EndpointError, match="Failed to parse"):
        ask(model, bare if fmt is None else conversation())


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Unsupported value: 'temperature' does not support 0 with this model.", "--temperature"),
        ("phi3 does not support tools", "`agentft eval --format hermes`"),
        ('"auto" tool choice requires --enable-auto-tool-choice', "start the server with a parser"),
    ],
)
def test_what_to_do_about_a_refused_request(said: str, remedy: str) -> None:
    answer = Answer(400, {"error": {"message": said}})
    with serving(answer) as (_, model), pytest.raises(EndpointError) as caught:
        ask(model)
    assert said in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "ends",
    [
        {"finish_reason": "function_call_filter: MALFORMED_FUNCTION_CALL"},
        {"finish_reason": "error", "native_finish_reason": "MALFORMED_FUNCTION_CALL"},
        {"finish_reason": "UNEXPECTED_TOOL_CALL"},
        {"finish_reason": "malformed_tool_use"},
    ],
)
@pytest.mark.parametrize("streams", [True, False])
def test_a_call_that_the_server_could_not_read_is_the_models(ends: Any, streams: bool) -> None:
    """Without it, a model that fails so would look like one that rightly makes no call."""
    said = {"choices": [{"message": {"role": "assistant", "content": None}, **ends}]}
    answer = Answer(body=f"data: {json.dumps(said)}\n\n" if streams else said)
    with serving(answer) as (_, model):
        (reply,) = model.reply([Request("c", conversation())], Sampling(), (lambda *_: None) if streams else None)
    (call,) = calls(reply)
    assert reply.finish == "unread"
    assert str(call.parse_error).startswith("the server could not read it (")


@pytest.mark.parametrize(
    "said", ["property 'reasoning' is unsupported", "messages.2.reasoning: extra is not permitted"]
)
def test_a_server_that_refuses_thoughts_gets_none_back(said: str) -> None:
    """Groq and Cerebras send thoughts and refuse them; each case with a call was invalid."""
    call = completion({"reasoning": "Hm.", "content": "", "tool_calls": [tool_call("weather", {"city": "A"})]})

    def handle(asked: Any) -> Answer:
        messages = asked.body["messages"]
        refused = any("reasoning" in one for one in messages)
        return Answer(400, {"error": {"message": said}}) if refused else call if len(messages) == 2 else HELLO

    with serving(handle) as (served, model):
        for _ in range(2):
            after, _ = advance(conversation(), ask(model), Runner(), "s", 0)
            assert ask(model, after).turn.raw == "Hello."
    assert len(served.chats) == 5


def test_another_refusal_is_an_error_once() -> None:
    """DeepSeek's, which wants its thoughts back."""
    call = completion({"reasoning_content": "Hm.", "content": "", "tool_calls": [tool_call("weather", {"city": "A"})]})
    said = "The `reasoning_content` in the thinking mode must be passed back to the API."
    with serving(call, Answer(400, {"error": {"message": said}})) as (served, model):
        after, _ = advance(conversation(), ask(model), Runner(), "s", 0)
        with pytest.raises(EndpointError, match="must be passed back"):
            ask(model, after)
    assert len(served.chats) == 2


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_model_without_a_temperature_is_asked_without_1(temperature: float) -> None:
    """1 is what OpenAI's reasoning models do, but some refuse the parameter, whatever its value."""

    def handle(asked: Any) -> Answer:
        sent = next((key for key in ("temperature", "top_p") if key in asked.body), "")
        said = f"Unsupported parameter: '{sent}' is not supported with this model."
        return Answer(400, {"error": {"message": said}}) if sent else HELLO

    with serving(handle) as (served, model):
        if temperature == 1:
            assert ask(model, temperature=temperature).turn.raw == "Hello."
            assert len(served.chats) == 3
        else:
            with pytest.raises(EndpointError, match="name one that the model takes with --temperature, or 1 for none"):
                ask(model, temperature=temperature)
