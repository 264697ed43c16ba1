"""The credential of a real service: never in a recording, never in what the model gets."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from agentft.credentials import Credential, service_url
from agentft.errors import InputError, ToolError
from agentft.toolserver import ToolServer, open_source
from tests.toolserver.test_recording import WORLD, Service, ask, service
from tests.toolserver.test_source import ASKED

__all__ = ["service"]

VALUE = "Token MYKEY/zz987"


@pytest.fixture(autouse=True)
def variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFT_REAL_AUTHORIZATION", VALUE)


@pytest.mark.parametrize("keep", [False, True])
def test_a_service_that_repeats_the_credential(service: Service, tmp_path: Path, keep: bool) -> None:
    secret = "MYKEY/zz987"
    body = {"message": f"key {secret} is not known", "sent": VALUE, f"x{secret}": [json.dumps({"k": secret}), 7, None]}
    for kind, content in [
        ("application/json", json.dumps(body)),
        ("text/plain", f"GET /?key=MYKEY%2Fzz987 {json.dumps(body).replace('/', chr(92) + '/')}"),
    ]:
        service.reply = (401, {"Content-Type": kind, "X-Debug-Upstream": f"sent {VALUE}"}, content.encode())
        path = tmp_path / kind.replace("/", ".")
        with ToolServer([WORLD], source=open_source([WORLD], real=service.address, record=path, keep=keep)) as server:
            exchange = ask(server)
        assert service.requests[-1][2]["Authorization"] == VALUE
        for text in (exchange.received, path.read_text()):
            assert "MYKEY" not in text
            assert "zz987" not in text
            assert "[redacted]" in text
        with ToolServer([WORLD], source=open_source([WORLD], replay=path)) as server:
            assert ask(server) == exchange


@pytest.mark.parametrize(
    ("value", "text", "hidden"),
    [
        ("abc", "abc abcd", "[redacted] [redacted]d"),
        ("Bearer abcdefgh", "Bearer abcdefgh; Bearer abcdefg", "[redacted]; Bearer abcdefg"),
        ("key v1 s3cretword", "v1 s3cretword key", "v1 [redacted] key"),
        ('Digest username="admin", response="0a1b2c3d"', "it was 0a1b2c3d by admin", "it was [redacted] by [redacted]"),
        (f"Basic {base64.b64encode(b'ada:hunter2').decode()}", "ada and hunter2", "ada and [redacted]"),
        ("Basic !!!!", "ada", "ada"),
        ("", "nothing", "nothing"),
    ],
)
def test_the_value_and_its_words_are_hidden(
    monkeypatch: pytest.MonkeyPatch, value: str, text: str, hidden: str
) -> None:
    monkeypatch.setenv("AGENTFT_REAL_AUTHORIZATION", value)
    assert Credential().hide({text: [text]}) == {hidden: [hidden]}
    assert Credential().headers == ({"Authorization": value} if value else {})


def test_a_number_that_is_the_credential_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFT_REAL_AUTHORIZATION", "Key 12345678")
    assert Credential().hide([12345678, 1234567, True, None]) == ["[redacted]", 1234567, True, None]


@pytest.mark.parametrize("value", ["Token a\nb", "Token é", " Token", "Token\x00"])
def test_a_value_that_cannot_be_sent_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    if "\x00" not in value:  # which no environment can hold
        monkeypatch.setenv("AGENTFT_REAL_AUTHORIZATION", value)
        with pytest.raises(InputError, match="has characters that a header cannot carry") as caught:
            open_source([WORLD], real="http://127.0.0.1:9")
        assert value.strip() not in str(caught.value)


def test_an_error_that_quotes_the_credential_is_hidden(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    source: Any = open_source([WORLD], real=service.address)

    def fail(*_: object, **__: object) -> None:
        raise UnicodeEncodeError("ascii", VALUE, 0, 1, f"in {VALUE}")

    monkeypatch.setattr(source._http, "stream", fail)
    with pytest.raises(ToolError) as caught:
        source("calculate", ASKED, "s")
    assert "MYKEY" not in str(caught.value)
    source.close()


def test_cookies_of_a_service_are_not_sent_again(service: Service) -> None:
    with ToolServer([WORLD], source=open_source([WORLD], real=service.address)) as server:
        ask(server)
        ask(server, session="other")
    assert [{name.lower() for name in request[2]} & {"cookie"} for request in service.requests] == [set(), set()]


@pytest.mark.parametrize(
    "url",
    [
        "http://ada:hunter2@h",
        "http://ada:hun?ter2@h/x",
        "ada:hunter2@h",
        "http://ada:hun@ter2@h",
        "http://h/?k=hunter2",
    ],
)
def test_an_address_that_is_refused_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(InputError, match="it must be a URL") as refused:
        service_url("--real", url, "http://api.test")
    assert not any(part in str(refused.value) for part in ("hun", "ter2", "ada"))
