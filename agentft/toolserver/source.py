"""Sources that respond in place of a mock world: a real service, or a recording of one."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Protocol

import httpx

from agentft.credentials import Credential, service_url
from agentft.errors import InputError, ToolError
from agentft.toolserver.body import JSON_MEDIA, error_body, parse_body
from agentft.toolserver.limits import Limits
from agentft.toolserver.places import fill_request
from agentft.toolserver.recording import Recorded, Recorder, Replayer
from agentft.toolset import Route, Tool, Toolset
from agentft.types import Json

__all__ = ["REAL_SECONDS", "RealService", "Source", "open_source"]

REAL_SECONDS = 8.0
"""The longest time that a real service may take for one call."""

_LIMIT = 1 << 20
_CHARSETS = frozenset({"gbk", "gb2312", "gb18030", "big5", "shift_jis", "euc-jp", "iso-8859-1", "windows-1252"})


class RealService:
    """Sends calls to `url` and records the exchanges. Redirects are not followed; responses may have up to 1 MiB.

    A call is sent to its tool's route, or to `POST <url>/tools/<name>` if it has none. The environment variable
    AGENTFT_REAL_AUTHORIZATION is sent as the Authorization header, and hidden in all that comes back.

    Args:
        url: the service.
        toolsets: the worlds whose tools it runs.
        recorder: records every call: answered, failed or refused.
        seconds: how long the service may take for a call.

    Raises:
        InputError: `url` is not a plain http(s) URL, or the credential cannot be sent in a header.
    """

    def __init__(
        self, url: str, toolsets: Sequence[Toolset], recorder: Recorder | None = None, seconds: float = REAL_SECONDS
    ) -> None:
        service_url("--real", url, "https://api.example.com/v1")
        self.digest = self._url = url.rstrip("/")
        self._tools = {name: tool for toolset in toolsets for name, tool in toolset.tools.items()}
        self._recorder = recorder
        self._seconds = seconds
        self._credential = Credential()
        self._http = httpx.Client(
            headers={"Accept-Encoding": "identity"} | self._credential.headers,
            timeout=httpx.Timeout(seconds, connect=seconds / 3),
            limits=httpx.Limits(max_connections=100, keepalive_expiry=2),  # uvicorn closes after 5 seconds
            follow_redirects=False,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # else sessions would share them
        )

    def __call__(self, tool: str, arguments: Mapping[str, Json], session: str) -> Recorded | None:
        """The service's response, or a 502 if it does not respond. The service does not know our sessions.

        Raises:
            ToolError: an argument is refused; nothing is sent.
        """
        known = self._tools.get(tool)
        if known is None:
            return None
        try:
            exchange = self._ask(known, arguments)
        except ToolError as error:
            refusal = ToolError(str(self._credential.hide(str(error))), status=error.status, **error.details)
            self._record(Recorded(tool, arguments, error.status, error_body(refusal), method=""), session)
            raise refusal from None
        return self._record(exchange, session)

    def _ask(self, tool: Tool, arguments: Mapping[str, Json]) -> Recorded:
        name, checked = tool.definition.name, tool.check(arguments)
        route = tool.route or Route("POST", f"/tools/{name}", {}, media=JSON_MEDIA)
        late = httpx.ReadTimeout(f"no answer within {self._seconds:g} seconds")
        until = time.monotonic() + self._seconds
        exchange = Recorded(name, checked, 502, None, method=route.method, url=self._url + route.path)
        try:
            with self._http.stream(route.method, **fill_request(self._url, route, checked)) as answer:
                packed = answer.headers.get("content-encoding", "identity").lower() != "identity"
                content, unpacking = bytearray(), zlib.decompressobj(zlib.MAX_WBITS | 32)  # of gzip and zlib
                for chunk in answer.iter_raw():  # some services compress, whatever Accept-Encoding says
                    content += unpacking.decompress(chunk, _LIMIT + 1) if packed else chunk
                    if len(content) > _LIMIT:
                        raise httpx.ReadError(f"the answer is larger than {_LIMIT} bytes")
                    if time.monotonic() > until:
                        raise late
            if time.monotonic() > until:
                raise late
        except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError) as error:
            raise ToolError(f"an argument cannot be sent as it is: {error}", status=422) from None
        except (httpx.RequestError, zlib.error) as error:
            why = late if isinstance(error, httpx.TimeoutException) else error
            return replace(exchange, body={"error": f"the service does not answer: {why}"})
        charset = str(answer.charset_encoding).lower()
        text = content.decode(charset if charset in _CHARSETS else "utf-8-sig", "replace")
        kind, body = _content(answer.headers.get("content-type", ""), text)
        # Some services have a status of 999, with which our own server would lose the connection.
        status, headers = min(answer.status_code, 599), dict(answer.headers)
        return replace(exchange, status=status, body=body, type=kind, headers=headers)

    def _record(self, exchange: Recorded, session: str) -> Recorded:
        """The exchange without the credential, on disk if there is a recorder."""
        hidden: Any = self._credential.hide(asdict(exchange))
        exchange = Recorded(**{**hidden, "session": session})
        if self._recorder is not None:
            self._recorder.add(exchange)
        return exchange

    def close(self) -> None:
        """Close the connections and the recording."""
        self._http.close()
        if self._recorder is not None:
            self._recorder.close()


class Source(Protocol):
    """Responds to calls in place of the mock worlds. `digest` identifies what responds."""

    digest: str

    def __call__(self, tool: str, arguments: Mapping[str, Json], session: str) -> Recorded | None:
        """The response to a call of a registered tool; None: the mock world responds."""

    def close(self) -> None:
        """Release what it holds."""


def open_source(
    toolsets: Sequence[Toolset],
    *,
    real: str | None = None,
    record: Path | None = None,
    replay: Path | None = None,
    miss: str = "error",
    keep: bool = False,
    client_seconds: float | None = None,
) -> Source | None:
    """The source that the options of `eval` and `tools serve` select; None if they select none.

    `client_seconds`: how long callers wait, if that is known. The service fails before they stop waiting, so that the
    recording has what they got.

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
        writes = [name for toolset in toolsets for name in toolset.tools if toolset.is_write(name)]
        return Replayer(replay, strict=miss == "error", writes=writes)
    if real is None:
        return None
    seconds = REAL_SECONDS if client_seconds is None else min(REAL_SECONDS, 0.6 * client_seconds)
    return RealService(real, toolsets, Recorder(record, keep_secrets=keep) if record else None, seconds)


def _content(media: str, content: str) -> tuple[str, Json]:
    """The media type and the body to record. A body of a JSON type that is not JSON, or too deep, becomes text."""
    media = media.partition(";")[0].strip() or "text/plain"
    if media.endswith("json"):
        try:
            return media, parse_body(content.encode(), Limits())
        except ToolError:
            media = "text/plain"
    return media, content
