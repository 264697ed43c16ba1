"""Requests to an endpoint: limits, retries, concurrency, addresses and keys, over real sockets."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest

from agentft.errors import InputError
from agentft.models import Request, Sampling
from agentft.models.endpoint import EndpointModel, find_model
from agentft.models.transport import EndpointDownError, EndpointError, Transport, open_endpoint
from tests.models.served import Answer, Served, completion
from tests.models.test_endpoint import HELLO, ask, conversation, no_key, serving
from tests.waiting import PATIENCE, wait_until

__all__ = ["no_key"]

KEY = "sk-a-very-secret-key"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_passing_failures_are_retried(status: int) -> None:
    with serving(Answer(status, "busy"), Answer(status), HELLO) as (served, model):
        assert ask(model).turn.raw == "Hello."
    assert len(served.chats) == 3


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Provider returned error", "code": 502}},
        {"code": "429", "message": "busy"},
        {"error_code": 500, "error_msg": "busy"},
        {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "choices": None},
    ],
)
def test_passing_failures_with_status_200_are_retried(body: Any) -> None:
    """OpenRouter and MiniMax send them so; each made a case invalid at the first attempt."""
    with serving(Answer(200, body), Answer(200, body), HELLO) as (served, model):
        assert ask(model).turn.raw == "Hello."
    assert len(served.chats) == 3


@pytest.mark.parametrize(("status", "attempts"), [(500, 3), (503, 8), (429, 8), (400, 1), (413, 1), (422, 1)])
def test_retries_end_and_other_refusals_are_not_retried(status: int, attempts: int) -> None:
    def refuse(_: Any) -> Answer:
        return Answer(status, {"error": {"message": "no, sorry"}})

    with serving(refuse) as (served, model), pytest.raises(EndpointError, match=f"answered {status}: no, sorry"):
        ask(model)
    assert len(served.chats) == attempts


def test_retry_after_is_honoured_and_a_long_one_ends_the_case() -> None:
    long = Answer(429, "wait", {"Retry-After": "3600"})
    with serving(HELLO, Answer(429, "", {"Retry-After": "0.5"}), HELLO, long) as (served, model):
        for _ in range(2):
            ask(model)
        assert served.times[2] - served.times[1] >= 0.5
        with pytest.raises(EndpointError, match=r"asks to wait 3600 seconds"):
            ask(model)
    assert len(served.chats) == 4


def test_a_cut_body_is_requested_again() -> None:
    cut = Answer(body=HELLO.body, cut=20)
    with serving(HELLO, cut, cut, HELLO) as (served, model):
        assert [ask(model).turn.raw for _ in range(2)] == ["Hello.", "Hello."]
    assert len(served.chats) == 4


def test_a_slow_response_is_not_requested_again() -> None:
    with (
        serving(Answer(body=HELLO.body, seconds=PATIENCE), seconds=1) as (served, model),
        pytest.raises(EndpointError, match=r"no answer within 1 seconds"),
    ):
        ask(model)
    assert len(served.chats) == 1


def test_a_huge_body_is_not_read_to_its_end() -> None:
    with (
        serving(Answer(body=b" " * (9 << 20))) as (_, model),
        pytest.raises(EndpointError, match=r"larger than 8388608"),
    ):
        ask(model)


def test_a_compressed_body_is_refused() -> None:
    answer = Answer(body=b"x", headers={"Content-Encoding": "gzip"})
    with serving(answer) as (served, model), pytest.raises(EndpointError, match="compressed"):
        ask(model)
    assert served.chats[0].headers["accept-encoding"] == "identity"


def test_a_redirect_is_named_and_not_followed() -> None:
    with Served([HELLO]) as other:
        moved = Answer(307, "", {"Location": f"{other.url}/chat/completions"})
        with serving(moved) as (_, model), pytest.raises(InputError, match=r"redirects to .*; name the final URL"):
            ask(model)
    assert other.spoken == []


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (Answer(401, {"error": "bad key"}), "401: bad key; it refuses the key; set AGENTFT_API_KEY"),
        (Answer(404, {"error": {"message": "no model tiny"}}), "no model tiny; check the path of --endpoint and the"),
        (Answer(429, {"error": {"code": "insufficient_quota", "message": "pay"}}), "pay; add credit"),
        (Answer(400, [{"error": {"message": "API key not valid"}}]), "400: API key not valid; it refuses the key"),
        (Answer(402, {"error": {"message": "Insufficient Balance"}}), "402: Insufficient Balance; add credit"),
        (Answer(400, {"error": {"code": "model_not_found", "message": "no"}}), "no; check the path of --endpoint and"),
        (Answer(503, {"error": {"code": "model_not_found", "message": "no"}}), "no; check the path of --endpoint and"),
        (
            Answer(200, {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}),
            "login fail; it refuses the key",
        ),
        (Answer(200, {"base_resp": {"status_code": 1008, "status_msg": "balance"}}), "200: balance; add credit"),
        (Answer(200, {"code": 401, "msg": "expired", "success": False}), "200: expired; it refuses the key"),
    ],
)
def test_what_every_request_would_meet_ends_the_command(answer: Answer, part: str) -> None:
    with serving(answer) as (served, model), pytest.raises(InputError) as caught:
        ask(model)
    assert part in str(caught.value)
    assert len(served.chats) == 1


def test_a_server_that_is_gone_ends_the_command() -> None:
    with Served([HELLO]) as served:
        url = served.url
    model = EndpointModel(open_endpoint(url, backoff=0.01), "tiny")
    with pytest.raises(EndpointDownError, match=r"cannot be reached .* check that the server runs") as caught:
        ask(model)
    assert caught.value.exit_code == 3
    model.close()
    model.close()


def test_idle_connections_end_before_a_common_server_closes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[httpx.Limits] = []
    monkeypatch.setattr(httpx, "AsyncClient", lambda **options: given.append(options["limits"]))
    Transport(open_endpoint("http://127.0.0.1:1", concurrency=3))
    assert given == [httpx.Limits(max_connections=3, keepalive_expiry=2)]


@pytest.mark.parametrize(
    ("host", "key", "header", "value"),
    [
        ("api.test", "0123456789abcdef", "Authorization", "Bearer 0123456789abcdef"),
        ("x.openai.azure.com", "0123456789abcdef", "api-key", "0123456789abcdef"),
        ("x.openai.azure.com", "eyJ0eXAi.x.y", "Authorization", "Bearer eyJ0eXAi.x.y"),
    ],
)
def test_a_key_of_azure_has_a_header_of_its_own(
    host: str, key: str, header: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(httpx, "AsyncClient", lambda **options: given.append(options["headers"]))
    monkeypatch.setenv("AGENTFT_API_KEY", key)
    Transport(open_endpoint(f"https://{host}/openai/deployments/x?api-version=1"))
    (headers,) = given
    assert {name: headers.get(name) for name in ("Authorization", "api-key")} == {
        "Authorization": None,
        "api-key": None,
        header: value,
    }


# Concurrency


def test_as_many_requests_as_allowed_are_in_flight() -> None:
    async def handle(_: Any) -> Answer:
        while served.most < 5:
            await asyncio.sleep(0.01)
        return Answer(body=HELLO.body, seconds=0.2)  # in which a sixth would come

    with serving(handle, concurrency=5) as (served, model):
        model.reply([Request(str(number), conversation()) for number in range(12)], Sampling())
    assert (served.most, len(served.chats)) == (5, 12)


def test_cancelling_ends_replies_in_other_threads() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            ask(model)
        except EndpointError as error:
            caught.append(error)

    with serving(Answer(body=HELLO.body, seconds=2 * PATIENCE)) as (served, model):
        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: served.chats)
        model.cancel()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert "cancelled" in str(caught[0])


# The address and the key


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://api.test/openai/v2/", "https://api.test/openai/v2"),
        ("http://[::1]:80/v1/chat/completions", "http://[::1]/v1"),
        ("https://api.test/v1/completions/", "https://api.test/v1"),
        (
            "https://a.test/openai/deployments/x/chat/completions?api-version=1",
            "https://a.test/openai/deployments/x?api-version=1",
        ),
        ("https://api.test?api-version=1&b=%2F", "https://api.test/v1?api-version=1&b=%2F"),
        ("https://api.test/gateway/a%2Fb/", "https://api.test/gateway/a%2Fb"),
    ],
)
def test_addresses(given: str, url: str) -> None:
    assert open_endpoint(given).url == url


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://x/#b", "\x00"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="it must be a URL such as"):
        open_endpoint(url)


@pytest.mark.parametrize("query", ["key=sk-1", "a=1&Subscription-Key=sk-1", "sig=sk-1", "token=sk-1"])
def test_a_secret_in_the_query_is_refused_without_repeating_it(query: str) -> None:
    """The address stands in reports."""
    with pytest.raises(InputError, match="its query has a secret") as caught:
        open_endpoint(f"https://x/v1?{query}")
    assert "sk-1" not in str(caught.value)


def test_a_query_and_an_escaped_path_go_with_every_request() -> None:
    """Azure's addresses have a version, and those of gateways may have an escaped slash."""
    with Served([HELLO]) as served:
        endpoint = open_endpoint(f"{served.url}/a%2Fb?api-version=2024-10-21")
        assert find_model(endpoint) == "tiny"
        model = EndpointModel(endpoint, "tiny")
        ask(model)
        model.close()
    paths = [f"/v1/a%2Fb/{name}?api-version=2024-10-21" for name in ("models", "chat/completions")]
    assert [one.path for one in served.spoken] == paths


def test_a_password_in_the_address_is_refused_without_repeating_it() -> None:
    with pytest.raises(InputError) as caught:
        open_endpoint("https://me:hunter2@api.test/v1")
    assert "hunter2" not in str(caught.value)


def test_the_key_comes_from_the_environment_and_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-key-of-openai")
    monkeypatch.setenv("AGENTFT_API_KEY", KEY)
    leak = Answer(400, {"error": {"message": f"you sent Bearer {KEY}"}})
    with serving(completion({"content": f"Your key is {KEY}."}), leak) as (served, model):
        reply = ask(model)
        with pytest.raises(EndpointError) as caught:
            ask(model)
    assert served.chats[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(reply) + str(caught.value)
    assert reply.turn.raw == "Your key is [redacted]."
    monkeypatch.delenv("AGENTFT_API_KEY")
    assert open_endpoint("http://localhost").key == "OPENAI_API_KEY"


def test_a_placeholder_key_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFT_API_KEY", "EMPTY")
    with serving(completion({"content": "EMPTY"})) as (_, model):
        assert ask(model).turn.raw == "EMPTY"


def test_a_key_is_not_sent_unencrypted_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_endpoint("http://gpu.test:8000").key == ""
    monkeypatch.setenv("AGENTFT_API_KEY", KEY)
    with pytest.raises(InputError, match=r"AGENTFT_API_KEY would be sent unencrypted to gpu.test; use https") as caught:
        open_endpoint("http://gpu.test:8000")
    assert KEY not in str(caught.value)
    assert open_endpoint("http://gpu.test:8000", allow_http=True).key == "AGENTFT_API_KEY"
    assert open_endpoint("https://gpu.test:8000").key == open_endpoint("http://127.0.0.2:1").key == "AGENTFT_API_KEY"


def test_proxies_are_not_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(HELLO) as (_, model):
        assert ask(model).turn.raw == "Hello."


def test_cookies_are_not_sent_back() -> None:
    with serving(Answer(body=HELLO.body, headers={"Set-Cookie": "a=b"}), HELLO) as (served, model):
        ask(model)
        ask(model)
    assert "cookie" not in served.chats[1].headers


def test_the_only_listed_model_is_found() -> None:
    with Served([], ["one"]) as served:
        assert find_model(open_endpoint(served.url)) == "one"
    with Served([], ["a", "b"]) as served, pytest.raises(InputError, match=r"lists 2 models: a, b; name .* --model"):
        find_model(open_endpoint(served.url))
