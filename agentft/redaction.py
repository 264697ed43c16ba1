"""Redacts secrets in recorded exchanges, recognised by the names of their keys and by their shapes."""

from __future__ import annotations

import re

from agentft.types import Json

__all__ = ["is_secret_argument", "redacted"]

_HIDDEN = "[redacted]"
_SECRET_NAME = re.compile(
    r"authori[sz]ation|cookie|api[-_ ]?key|access[-_]?key|private[-_]?key|secret|passw(or)?d|passphrase|passcode"
    r"|credential|session[-_]?(id|key)|jwt|signature|(?<!page)(?<!page[-_])token$|^(pwd|pin|otp|cvv|auth|sid|sig)$",
    re.IGNORECASE,
)
# Broader for arguments: a call's `key` is usually a secret, while in a response it may be the key of a song.
_SECRET_ARGUMENT = re.compile(
    r"(^|[_-])(api_?key|key|token|secret|password|passwd|auth(?!ors?($|[_-]))\w*|session|signature)($|[_-])",
    re.IGNORECASE,
)
_SECRET_SHAPE = re.compile(
    r"\b(?:Bearer|Basic)\s+[\w.~+/=-]{16,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|\b(?:sk|pk|rk)[-_][\w-]{16,}|\bgh[a-z]_\w{20,}"
    r"|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bxox[a-z]-[\w-]{10,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*-----)?|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
    re.IGNORECASE,
)
_PAIR = re.compile(r"([\w.-]{1,64})=([^&\s\"'#;,]+)")


def is_secret_argument(name: str) -> bool:
    """Whether an argument with this name is a secret, which an imported world leaves out.

    So is every name that `redacted` hides, and also a bare `key`, `token`, `session` or `auth...`.
    """
    return bool(_SECRET_NAME.search(name) or _SECRET_ARGUMENT.search(name))


def redacted(value: Json) -> Json:
    """A copy of `value` with "[redacted]" in place of secrets, recognised by the name of their key or their shape."""
    if isinstance(value, dict):
        return {
            key: _HIDDEN if item is not None and _SECRET_NAME.search(key) else redacted(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [redacted(item) for item in value]
    if not isinstance(value, str):
        return value
    plain = _PAIR.sub(lambda pair: f"{pair[1]}={_HIDDEN}" if _SECRET_NAME.search(pair[1]) else pair[0], value)
    return _SECRET_SHAPE.sub(_HIDDEN, plain)
