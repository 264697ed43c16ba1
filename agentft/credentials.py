"""The credential of a service: read from the environment, sent as a header, and hidden wherever it comes back."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator
from html import escape
from urllib.parse import quote, quote_plus

import httpx

from agentft.errors import InputError
from agentft.types import Json

__all__ = ["REAL_VARIABLE", "Credential", "service_url"]

REAL_VARIABLE = "AGENTFT_REAL_AUTHORIZATION"
"""The authorization of a real service behind the tools."""

_HIDDEN = "[redacted]"
_SCHEME = re.compile("(?i)api-?key|basic|bearer|bot|digest|hmac|key|negotiate|ntlm|oauth|token")
_SHORTEST = 4  # a shorter word, such as `v1`, is no secret, and stands in many texts


def service_url(option: str, url: str, example: str, *, queried: bool = False) -> httpx.URL:
    """The address of a service that the user names with `option`. `queried`: it may have a query.

    Raises:
        InputError: it is not a plain http(s) URL; the message leaves out a user, a password and a query.
    """
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL("")
    more = (parts.query and not queried) or parts.fragment or parts.userinfo
    if parts.scheme not in {"http", "https"} or not parts.host or more:
        shown = re.sub(r"(?s)^(\w+://)?.*@", rf"\1{_HIDDEN}@", url).partition("?")[0]
        raise InputError(f"{option} {shown}: it must be a URL such as {example}, without user and query")
    return parts


class Credential:
    """The value of an environment variable, or none, sent as the Authorization header.

    Args:
        variable: the variable's name.
        scheme: the scheme before the value, such as `Bearer`; empty if the value has its own.

    Raises:
        InputError: the value cannot be sent in a header.
    """

    def __init__(self, variable: str = REAL_VARIABLE, scheme: str = "") -> None:
        value = os.environ.get(variable, "")
        if value and not (value.isascii() and value.isprintable() and value == value.strip()):
            raise InputError(f"{variable} has characters that a header cannot carry, such as a line end; set it again")
        self.headers = {"Authorization": f"{scheme} {value}".strip()} if value else {}
        secrets = {form for secret in _secrets(value) for form in _forms(secret)}
        longest_first = sorted(secrets, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if secrets else None

    def hide(self, value: Json) -> Json:
        """A copy of `value` with "[redacted]" in place of the credential, each word of it, and their encodings."""
        if self._pattern is None:
            return value
        if isinstance(value, dict):
            return {str(self.hide(key)): self.hide(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.hide(item) for item in value]
        if isinstance(value, str):
            return self._pattern.sub(_HIDDEN, value)
        return _HIDDEN if self._pattern.search(json.dumps(value)) else value


def _secrets(value: str) -> Iterator[str]:
    """The value, its words without the name of a scheme, and the user and password in the word of `Basic`."""
    if not value:
        return
    yield value
    words = [word for word in re.split(r"[\s,;]+", value) if word]
    for word in words:
        yield from (part for part in {word, word.partition("=")[2].strip("\"'")} if _is_secret(part))
    if words[0].lower() == "basic" and len(words) > 1:
        try:
            pair = base64.b64decode(words[1], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield from (part for part in (pair, pair.partition(":")[2]) if _is_secret(part))


def _is_secret(word: str) -> bool:
    return len(word) >= _SHORTEST and not _SCHEME.fullmatch(word)


def _forms(secret: str) -> tuple[str, ...]:
    """A secret as it stands in text, JSON (with `/` escaped too), URLs and HTML."""
    quoted = json.dumps(secret)[1:-1]
    return (
        secret,
        quoted,
        quoted.replace("/", "\\/"),
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        escape(secret),
    )
