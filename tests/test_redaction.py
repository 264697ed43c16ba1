"""Secrets are recognised by the name of their key and by their shape; everything else is unchanged."""

from __future__ import annotations

import json
import random

import pytest

from agentft.redaction import is_secret_argument, redacted
from agentft.types import Json

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "set-cookie",
        "api_key",
        "apiKey",
        "X-API-Key",
        "access_token",
        "refreshToken",
        "X-Auth-Token",
        "id_token",
        "token",
        "password",
        "passwd",
        "client_secret",
        "clientSecret",
        "sessionid",
        "session_id",
        "privateKey",
        "aws_access_key",
        "pwd",
        "otp",
    ],
)
def test_secrets_are_recognised_by_their_name(name: str) -> None:
    hidden = redacted({"deep": [{name: "s3cr3t"}], "url": f"https://x.test/a?{name.replace('-', '_')}=s3cr3t&b=1"})
    assert "s3cr3t" not in json.dumps(hidden)
    assert isinstance(hidden, dict)
    assert str(hidden["url"]).endswith("&b=1")


@pytest.mark.parametrize(
    "text",
    [
        JWT,
        f"Bearer {JWT}",
        "Basic dXNlcjpwYXNzd29yZDEyMw==",
        "sk-proj-abcdefghijklmnop1234",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "xoxb-123456789012-abcdef",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
        "https://ada:hunter2@db.example/x",
    ],
)
def test_secrets_are_recognised_by_their_shape(text: str) -> None:
    secret = "ada:hunter2" if "hunter2" in text else text
    assert secret not in json.dumps(redacted({"note": f"use {text} now"}))
    assert "[redacted]" in json.dumps(redacted([text]))


@pytest.mark.parametrize(
    "value",
    [
        {"max_tokens": 5, "tokens": 3, "next_page_token": "p2", "pageToken": "p3", "author": "Ada", "key": "C major"},
        {
            "text": "the bearer of good news, basic income",
            "url": "https://x.test/a?city=Rome&page=2",
            "n": [1, 2.5, None],
        },
    ],
)
def test_other_values_are_unchanged(value: Json) -> None:
    assert redacted(value) == value


def test_more_names_are_secret_in_arguments_than_in_responses() -> None:
    for name in ("key", "api-key", "auth_user", "session", "page_token", "signature"):
        assert is_secret_argument(name)
    for name in ("keyword", "monkey", "author", "tokens", "sessions", "city"):
        assert not is_secret_argument(name)
    kept: Json = {"key": "C major", "session": "morning", "page_token": "p2"}
    assert redacted(kept) == kept
    assert all(map(is_secret_argument, ("password", "clientSecret", "jwt", "otp", "AWS_ACCESS_KEY", "Set-Cookie")))


def test_redaction_is_fast_on_hostile_texts() -> None:
    chance = random.Random(1)
    for alphabet in ("a", "=a", "-----BEGIN ", "://:", "Bearer ", "eyJ.", "sk-"):
        redacted("".join(chance.choices(alphabet, k=50_000)))
        redacted(alphabet * 20_000)
