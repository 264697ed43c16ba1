"""Exchanges with a real service, kept as JSONL without their secrets, and answered from again.

A line is `{"tool", "arguments", "status", "type", "body", "method", "url", "headers"}`: `body` is JSON where `type` is,
else text; `url` is the tool's route, without the values in it; `headers` are the answer's. The credentials that the
service was sent are never kept. A call is found again by its tool and the canonical JSON of its arguments, without
secrets; in each session the n-th same call gets the n-th answer, and the last one from there on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock

from agentft.errors import InputError, ToolError
from agentft.strict import read_as, read_json_line
from agentft.toolset import digest
from agentft.types import Json

__all__ = ["Recorded", "Recorder", "Replay", "redacted"]

_HIDDEN = "[redacted]"
_SECRET_NAME = re.compile(
    r"authori[sz]ation|cookie|api[-_ ]?key|access[-_]?key|private[-_]?key|secret|passw(or)?d|passphrase|passcode"
    r"|credential|session[-_]?(id|key)|jwt|signature|(?<!page)(?<!page[-_])token$|^(pwd|pin|otp|cvv|auth|sid|sig)$",
    re.IGNORECASE,
)
_SECRET_SHAPE = re.compile(
    r"\b(?:Bearer|Basic)\s+[\w.~+/=-]{16,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|\b(?:sk|pk|rk)[-_][\w-]{16,}|\bgh[a-z]_\w{20,}"
    r"|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bxox[a-z]-[\w-]{10,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*-----)?|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
    re.IGNORECASE,
)
_PAIR = re.compile(r"([\w.-]{1,64})=([^&\s\"'#;,]+)")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One exchange; the fields are the keys of its line."""

    tool: str
    arguments: Mapping[str, Json]
    status: int
    body: Json
    type: str = "application/json"
    method: str = "POST"
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Recorder:
    """Appends exchanges to a file: one write a line, on disk before the answer goes on.

    Args:
        path: is made, for its owner alone, or added to.
        keep_secrets: leave everything as it was.

    Raises:
        InputError: the file is no recording.
    """

    def __init__(self, path: Path, *, keep_secrets: bool = False) -> None:
        path.touch(mode=0o600)
        _read(path)
        self._clean = (lambda value: value) if keep_secrets else redacted
        self._file = path.open("ab", buffering=0)
        self._lock = Lock()

    def add(self, exchange: Recorded) -> None:
        """Keep one exchange."""
        line = json.dumps(self._clean(asdict(exchange))).encode() + b"\n"
        with self._lock:
            if self._file.write(line) < len(line):
                raise OSError("the recording could not be written in full; free some space")
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        self._file.close()


class Replay:
    """Answers from a recording; `digest` says from which one.

    Args:
        path: the recording.
        strict: refuse a call that is not in it, rather than let the mock answer.

    Raises:
        InputError: the file cannot be read, or a line of it is wrong.
    """

    def __init__(self, path: Path, *, strict: bool = True) -> None:
        self._answers: defaultdict[str, list[Recorded]] = defaultdict(list)
        for exchange in _read(path):
            self._answers[_key(exchange.tool, exchange.arguments)].append(exchange)
        self.digest = hashlib.sha256(path.read_bytes() + bytes([strict])).hexdigest()
        self._strict = strict
        self._asked: Counter[tuple[str, str]] = Counter()
        self._lock = Lock()

    def __call__(self, tool: str, arguments: Mapping[str, Json], session: str) -> Recorded | None:
        """The recorded answer; None lets the mock answer.

        Raises:
            ToolError: there is none and it is strict, or the arguments are nested too deeply.
        """
        try:
            key = _key(tool, arguments)
        except RecursionError:
            raise ToolError("the arguments are nested too deeply; use plain values") from None
        answers = self._answers.get(key)
        if answers is None:
            if self._strict:
                raise ToolError(f"there is no recorded answer to {tool} with these arguments", status=404)
            return None
        with self._lock:
            self._asked[session, key] += 1
            return answers[min(self._asked[session, key], len(answers)) - 1]

    def close(self) -> None:
        """There is nothing to let go of."""


def redacted(value: Json) -> Json:
    """The value without what its key's name, or its own shape, says is a secret."""
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


def _key(tool: str, arguments: Mapping[str, Json]) -> str:
    return digest([tool, redacted(dict(arguments))])


def _read(path: Path) -> list[Recorded]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file made by --record") from None
    places = [(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    return [read_as(Recorded, read_json_line(line, at), at) for line, at in places]
