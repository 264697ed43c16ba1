"""Sources that respond in place of a mock world: a real service, or a recording of one (JSONL, secrets redacted).

A line is `{"tool", "arguments", "status", "type", "body", "method", "url", "headers"}`: `body` is JSON if `type` is,
otherwise text; `url` is the tool's route without the values of its parameters; `headers` are those of the response.
Credentials sent to the service are never recorded. A call is matched by its tool and the canonical JSON of its
arguments, with secrets redacted; in each session, the n-th equal call gets the n-th response, and later ones the last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import httpx

from agentft.errors import InputError, ToolError
from agentft.redaction import redacted
from agentft.strict import read_as, read_json_line
from agentft.toolserver.body import parse_body
from agentft.toolserver.limits import Limits
from agentft.toolserver.places import fill_request
from agentft.toolset import Route, Toolset, digest
from agentft.types import Json

__all__ = ["RealService", "Recorded", "Recorder", "Replayer", "Source", "open_source"]

_SECONDS = 8.0
_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded exchange; the fields are the keys of its line."""

    tool: str
    arguments: Mapping[str, Json]
    status: int
    body: Json
    type: str = "application/json"
    method: str = "POST"
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Recorder:
    """Appends exchanges to a file, one write per line; each is on disk before its response is returned.

    Args:
        path: the file to append to; a new one is readable by its owner only.
        keep_secrets: do not redact secrets.

    Raises:
        InputError: the file exists and is not a recording.
    """

    def __init__(self, path: Path, *, keep_secrets: bool = False) -> None:
        path.touch(mode=0o600)
        _read(path)
        self._clean = (lambda value: value) if keep_secrets else redacted
        self._file = path.open("ab", buffering=0)
        self._lock = Lock()

    def add(self, exchange: Recorded) -> None:
        """Append an exchange.

        Raises:
            OSError: it could not be written in full.
        """
        line = json.dumps(self._clean(asdict(exchange))).encode() + b"\n"
        with self._lock:
            if self._file.write(line) < len(line):
                raise OSError("the recording could not be written in full; free some space")
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        self._file.close()


class Replayer:
    """Responds from a recording, which `digest` identifies.

    Args:
        path: the recording.
        strict: refuse calls that were not recorded; otherwise the mock world responds to them.

    Raises:
        InputError: the file cannot be read, or a line of it is wrong.
    """

    def __init__(self, path: Path, *, strict: bool = True) -> None:
        self._answers: defaultdict[str, list[Recorded]] = defaultdict(list)
        for exchange in _read(path):
            self._answers[_key(exchange.tool, exchange.arguments)].append(exchange)
        self.digest = hashlib.sha256(path.read_bytes() + bytes([strict])).hexdigest()
        self._strict = strict
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = Lock()

    def __call__(self, tool: str, arguments: Mapping[str, Json], session: str) -> Recorded | None:
        """The recorded response; None: the mock world responds.

        Raises:
            ToolError: a strict replay has no response to the call, or its arguments are nested too deeply.
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
            self._counts[session, key] += 1
            return answers[min(self._counts[session, key], len(answers)) - 1]

    def close(self) -> None:
        """Do nothing: a replay holds no resources."""


class RealService:
    """Sends calls to `url` and records the exchanges. Redirects are not followed; responses may have up to 1 MiB.

    A call is sent to its tool's route, or to `POST <url>/tools/<name>` if it has none. The environment variable
    AGENTFT_REAL_AUTHORIZATION is sent as the Authorization header.

    Raises:
        InputError: `url` is not a plain http(s) URL.
    """

    def __init__(self, url: str, toolsets: Sequence[Toolset], recorder: Recorder | None = None) -> None:
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL:
            parts = httpx.URL("")
        more = parts.query or parts.fragment or parts.userinfo
        if parts.scheme not in {"http", "https"} or not parts.host or more:
            raise InputError(f"--real {url}: it must be a URL such as https://api.example.com/v1")
        self.digest = self._url = url.rstrip("/")
        self._tools = {name: tool for toolset in toolsets for name, tool in toolset.tools.items()}
        self._recorder = recorder
        credentials = os.environ.get("AGENTFT_REAL_AUTHORIZATION")
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": credentials} if credentials else {})
        self._http = httpx.Client(headers=headers, timeout=_SECONDS, follow_redirects=False, trust_env=False)

    def __call__(self, tool: str, arguments: Mapping[str, Json], session: str) -> Recorded | None:
        """The service's response, or a 502 if it does not respond. The service does not know our sessions.

        Raises:
            ToolError: an argument is refused; nothing is sent.
        """
        del session
        known = self._tools.get(tool)
        if known is None:
            return None
        checked = known.check(arguments)
        route = known.route or Route("POST", f"/tools/{tool}", {})
        try:
            with self._http.stream(route.method, **fill_request(self._url, route, checked)) as answer:
                content = bytearray()
                for chunk in answer.iter_raw():
                    content += chunk
                    if len(content) > _LIMIT:
                        raise httpx.ReadError(f"the answer is larger than {_LIMIT} bytes")
        except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError) as error:
            raise ToolError(f"an argument cannot be sent as it is: {error}", status=422) from None
        except httpx.TransportError as error:
            return Recorded(tool, checked, 502, {"error": f"the service does not answer: {error}"})
        kind, body = _content(answer.headers.get("content-type", ""), bytes(content))
        url, headers = self._url + route.path, dict(answer.headers)
        exchange = Recorded(tool, checked, answer.status_code, body, kind, route.method, url, headers)
        if self._recorder is not None:
            self._recorder.add(exchange)
        return exchange

    def close(self) -> None:
        """Close the connections and the recording."""
        self._http.close()
        if self._recorder is not None:
            self._recorder.close()


Source: TypeAlias = RealService | Replayer
"""Responds to calls in place of the mock worlds."""


def open_source(
    toolsets: Sequence[Toolset],
    *,
    real: str | None = None,
    record: Path | None = None,
    replay: Path | None = None,
    miss: str = "error",
    keep: bool = False,
) -> Source | None:
    """The source that the options of `eval` and `tools serve` select; None if they select none.

    Raises:
        InputError: two options exclude each other, or a value cannot be used.
    """
    if miss not in {"error", "mock"}:
        raise InputError(f"--replay-miss {miss}: it must be `error` or `mock`")
    if replay is not None and real is not None:
        raise InputError("--replay and --real exclude each other; use one of them")
    if record is not None and real is None:
        raise InputError("--record records a real service; name the service with --real URL")
    if replay is not None:
        return Replayer(replay, strict=miss == "error")
    return RealService(real, toolsets, Recorder(record, keep_secrets=keep) if record else None) if real else None


def _key(tool: str, arguments: Mapping[str, Json]) -> str:
    return digest([tool, redacted(dict(arguments))])


def _read(path: Path) -> list[Recorded]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); use a file made by --record") from None
    places = [(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    return [read_as(Recorded, read_json_line(line, at), at) for line, at in places]


def _content(media: str, content: bytes) -> tuple[str, Json]:
    """The media type and the body to record. A body of a JSON type that is not JSON, or too deep, becomes text."""
    media = media.partition(";")[0].strip() or "text/plain"
    if media.endswith("json"):
        try:
            return media, parse_body(content, Limits())
        except ToolError:
            media = "text/plain"
    return media, content.decode(errors="replace")
