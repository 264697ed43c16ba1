"""Secrets are recognised by the name of their key and by their shape; everything else is unchanged."""

from __future__ import annotations

import json
import random

import pytest

from agentft.redaction import is_secret_argument, redacted, redacted_command, redacted_path
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
        "access_tokens",
        "_csrf",
        "SAMLResponse",
        "client_assertion",
        "Ocp-Apim-Subscription-Key",
        "AccountKey",
        "connectionString",
        "mfa_code",
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
        "userPwd",
        "user_pin",
        "PHPSESSID",
        "X-Auth",
        "two_factor_code",
        "backup_codes",
        "GITHUB_PAT",
        "signing_key",
        "encKey",
        "security_answer",
        "seed_phrase",
        "db_pass",
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
        "hf_abcdefghijklmnopqrstuvwxyz0123",
        "npm_abcdefghijklmnopqrstuvwxyz0123456789",
        "pypi-AgEIcHlwaS5vcmcCJDAwMDAwMDAw",
        "SG.aaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbb",
        "ya29.a0AfH6SMBx_abcdefghijklmnop",
        "xoxb-123456789012-abcdef",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
        "https://ada:hunter2@db.example/x",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\nMIIEpAIBAAKC-QEA\n-----END PGP PRIVATE KEY BLOCK-----",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEpAIB\n-----END EC PRIVATE KEY-----",
        "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "gsk_abcdefghijklmnopqrst",
        "shpat_0123456789abcdef0123",
        "glrt-abcdefghijklmnopqrst",
        "hvs.abcdefghijklmnopqrst",
    ],
)
def test_secrets_are_recognised_by_their_shape(text: str) -> None:
    secret = "ada:hunter2" if "hunter2" in text else text
    assert secret not in json.dumps(redacted({"note": f"use {text} now"}))
    assert "[redacted]" in json.dumps(redacted([text]))


@pytest.mark.parametrize(
    "value",
    [
        {"token": True, "requires_password": False, "boarding_pass": "B7", "confirmation_code": "X1"},
        {"type": "token", "value": "blue"},
        {"user": "Ada", "pass": "yes", "rate": "pass: 98%"},
        {"pass": "Interrail Global Pass", "code": "US", "url": "https://x.test/?code=US&key=C&pass=2024-05-01"},
        {"tests": [{"id": "t1", "pass": "3"}], "boarding": [["gate", None], ["pass", "B7"]]},
        "https://x.test/?next_page_token=p2&code=SUMMER2026-EXTRA-LONG-SALE-CODE&country_code=DE",
        ["--country-code", "DE", "--page-token", "p2", "--token", "-v"],
        "the flag --token is optional, and --password asks for one",
        '"a token" is a word',
        "python -u server.py",
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


@pytest.mark.parametrize(
    "value",
    [
        [{"name": "password", "value": "s3cr3t"}],
        {"headers": [["X-API-Key", "s3cr3t"]]},
        {"raw": '{"deep": [{"loginPassword": "s3cr3t"}]}'},
        "password: s3cr3t",
        "Authorization: Token s3cr3t",
        "the access token: s3cr3t.",
        'said {"api_key": "s3cr3t"} and left',
        "<login><password>s3cr3t</password></login>",
        "curl https://api.test/?clientSecret=s3cr3t",
        "postgres://s3cr3t@db.test/x",
        {"Name": "apiKey", "Value": "s3cr3t"},
        {"label": "Password", "value": "s3cr3t"},
        {"k": "api_key", "v": "s3cr3t"},
        '"{\\"password\\": \\"s3cr3t\\"}"',
        "/login?next=%2Fa%3Ftoken%3Ds3cr3t",
        {"user[authToken][]": "s3cr3t"},
        "curl -u ada:s3cr3t https://api.test",
        "curl --user ada:s3cr3t https://api.test",
        "sshpass -p s3cr3t ssh ada@db.test",
        {"user": "ada", "pass": "s3cr3t"},
        {"pass": "s3cr3tWord"},
        "log in with pass=s3cr3tWord",
        {"deploy_key": "s3cr3t"},
        ["npx", "server", "--token", "s3cr3t"],
        {"args": ["-password", "s3cr3t"]},
        "start it with --api-key s3cr3t now",
        "password => s3cr3t",
        ':password => "s3cr3t"',
        "<add key='password' value='s3cr3t'/>",
        '<user name="ada" password="s3cr3t"/>',
        "<item><name>password</name><value>s3cr3t</value></item>",
        "https://api.test/cb?code=s3cr3t0AbCdEfGhIjKlMn&state=1",
        "https://api.test/maps?key=s3cr3t0AbCdEfGhIjKlMn",
        "https://api.test/#access_token=s3cr3t",
        {"headers": [["Authorization", "s3cr3t"], ["X-Empty", None]]},
        'Authorization: Digest username="ada", response="s3cr3t"',
        "https://discord.com/api/webhooks/123456789/s3cr3t0AbCdEfGhIjKlMn",
        "password := s3cr3t",
        "password -> s3cr3t",
        "your new password is s3cr3t.",
        "the user 'ada' with the password 's3cr3t'",
        "My API key was s3cr3t",
        "您的新密码是：s3cr3t。",
        {"contraseña": "s3cr3t"},
    ],
)
def test_secrets_are_recognised_in_pairs_and_inside_texts(value: Json) -> None:
    assert "s3cr3t" not in json.dumps(redacted(value))
    assert "[redacted]" in json.dumps(redacted(value))


@pytest.mark.parametrize(
    "value",
    [
        ["token", "blue"],
        {"rows": [["pin", "map"], ["a", "b", "c"]]},
        {"rows": [["pin", "map"], ["zoom", 3]]},
        "Error: the token: expired after 30 minutes",
        "The password: Incorrect, after 3 tries",
        "Your secret: must-have item for spring",
        "Missing authorization: please log in within 30 minutes",
        "der Token: ungültig",
        "boto.NoCredentialsError: Unable to locate credentials",
        "MissingApiKeyError: FOO_API_KEY is not set",
        {"passwordError": "it has no digit"},
        "The password is 8-20 characters long, the token is used once, and the pin is on page 1234",
        "1. 密码学：量子计算机",
        "the zip code is 10115 and the status code is 2000",
    ],
)
def test_sentences_and_other_lists_are_unchanged(value: Json) -> None:
    assert redacted(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "user: ada\n  - password: hunter",
        "user: ada, password: hunter",
        "log in with password:hunter",
        "log in with password=hunter",
        'the password: "hunter" is known',
        'the "password": hunter is known',
        "the password: HUNTER",
        "the header Authorization: Token hunter2",
        "Authorization: Token hunter",
        [["X-API-Key", "hunter"], ["Accept", "*/*"]],
    ],
)
def test_fields_are_secret_even_if_their_value_is_a_word(value: Json) -> None:
    assert "hunter" not in json.dumps(redacted(value)).lower()


def test_numbers_are_secret_after_the_words_for_them() -> None:
    assert redacted("My PIN is 4821, and the verification code is: 493021.") == "My [redacted], and the [redacted]."


def test_known_secrets_are_recognised_everywhere() -> None:
    answer: Json = {"message": "key MYKEYzz987 is not known", "more": ["MYKEYzz987"]}
    assert redacted(answer, ["MYKEYzz987"]) == {"message": "key [redacted] is not known", "more": ["[redacted]"]}


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("npx -y some-server --flag /data", "npx -y some-server --flag /data"),
        ("a 'b c' d=e", "a 'b c' d=e"),
        (
            "env MY_API_KEY=X MODE=Y python3 s.py --token X",
            "env MY_API_KEY=[redacted] MODE=[redacted] python3 s.py --token [redacted]",
        ),
        (
            "docker run -e GITHUB_TOKEN=X img --api-key=X",
            "docker run -e GITHUB_TOKEN=[redacted] img --api-key=[redacted]",
        ),
        ("s -H 'Authorization: Bearer X'", "s -H Authorization: [redacted]"),
        ("http://user:pw@127.0.0.1/mcp?api_key=X&page=2", "http://[redacted]@127.0.0.1/mcp?api_key=[redacted]&page=2"),
        ("https://mcp.test/s/aB3dE5fG7hJ9kL1mN3pQ/mcp", "https://mcp.test/s/[redacted]/mcp"),
        ("/srv/it.json", "/srv/it.json"),
        ("s --pass X --passphrase=X", "s --pass [redacted] --passphrase=[redacted]"),
        ("s --user=ada:X -u ada:X", "s --user=[redacted] -u [redacted]"),
        ("python -u s.py", "python -u s.py"),
        ("s start napi_0a1b2c3d4e5f6a7b8c9d0e1f", "s start [redacted]"),
        ("https://mcp.test/fc-0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d/v2/mcp", "https://mcp.test/[redacted]/v2/mcp"),
        ("s sbp_0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d01234567", "s [redacted]"),
        ("s 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", "s [redacted]"),
        ("s apify_api_0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d", "s [redacted]"),
        ("s pat0a1b2c3d4e5f6g.0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d", "s [redacted]"),
        ("s pat-na1-0a1b2c3d-1234-4abc-8def-0123456789ab", "s [redacted]"),
        ("s AC0f/SK1e:0a1b2c3d4e5f6a7b8c9d0e1f", "s [redacted]"),
        ("docker run img@sha256:0a1b2c3d4e5f6a7b8c9d0e1f", "docker run img@sha256:0a1b2c3d4e5f6a7b8c9d0e1f"),
    ],
)
def test_commands_and_addresses_are_shown_without_credentials(command: str, shown: str) -> None:
    assert redacted_command(command) == shown


def test_keys_in_the_path_of_an_address_are_recognised() -> None:
    assert redacted_path("/bot998877:S3CR11kkk/getMe") == "/[redacted]/getMe"
    plain = "/v1/users/12/posts/my-great-article-of-2024-about-birds/123e4567-e89b-12d3-a456-426614174000"
    assert redacted_path(plain) == plain


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        f"https://hf_{'a1' * 10}:word@h.test",
        f"sshpass -p bot1234:{'a1' * 10}?word",
        f"http://h.test/?code=npm_{'a1' * 10}-word",
        f"a=/--user word:sk-{'a1' * 10}:word",
        f"pass=gho_{'a1' * 20}",
    ],
)
def test_a_secret_inside_another_does_not_show_its_rest(text: str) -> None:
    shown = str(redacted(text))
    assert "[redacted]" in shown
    assert "word" not in shown
    assert "a1" not in shown


def test_redaction_is_fast_on_hostile_texts() -> None:
    chance = random.Random(1)
    for alphabet in (
        "a",
        "=a",
        "-----BEGIN ",
        "://:",
        "Bearer ",
        "eyJ.",
        "sk-",
        "cookie:",
        "pwd:",
        "<a>",
        "token ",
        "pass=",
        "--a ",
        "k=v ",
    ):
        redacted("".join(chance.choices(alphabet, k=50_000)))
        redacted(alphabet * 20_000)
