"""A real service behind the tools of a world: one registered address, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import httpx

from agentft.errors import InputError, ToolError
from agentft.toolserver.body import parse_json
from agentft.toolserver.limits import Limits
from agentft.toolserver.places import fill_request
from agentft.toolserver.recording import Recorded, Recorder, Replay
from agentft.toolset import Route, Toolset
from agentft.types import Json

__all__ = ["RealService", "Source", "open_source"]

_SECONDS = 8.0
_LIMIT = 1 << 20


class RealService:
    """Sends calls to `url`, and keeps the exchanges. Redirects are not followed; answers are read up to 1 MiB.

    A tool goes by its route, or to `POST <url>/tools/<name>` if it has none. The environment's
    AGENTFT_REAL_AUTHORIZATION is sent as the Authorization header.

    Raises:
        InputError: `url` is not an http address.
    """

    def __init__(self, url: str, toolsets: Sequence[Toolset], recorder: Recorder | None = None) -> None:
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL:
            parts = httpx.URL("")
        more = parts.query or parts.fragment or parts.userinfo
        if parts.scheme not in {"http", "https"} or not parts.host or more:
            raise InputError(f"--real {url}: it must be an address such as https://api.example.com/v1")
        self.digest = self._url = url.rstrip("/")
        self._tools = {name: tool for toolset in toolsets for name, tool in toolset.tools.items()}
        self._recorder = recorder
        credentials = os.environ.get("AGENTFT_REAL_AUTHORIZATION")
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": credentials} if credentials else {})
        self._http = httpx.Client(headers=headers, timeout=_SECONDS, follow_redirects=False, trust_env=False)

    def __call__(self, tool: str, arguments: Mapping[str, Json], session: str) -> Recorded | None:
        """What the service answers, or a 502 of ours if it does not; its sessions are its own.

        Raises:
            ToolError: an argument is refused before anything is sent.
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


Source: TypeAlias = RealService | Replay
"""What answers in place of a mock."""


def open_source(
    toolsets: Sequence[Toolset],
    *,
    real: str | None = None,
    record: Path | None = None,
    replay: Path | None = None,
    miss: str = "error",
    keep: bool = False,
) -> Source | None:
    """What answers in place of the mock worlds, by the options of eval and serve; None: nothing does.

    Raises:
        InputError: they do not go together, or one of them cannot be used.
    """
    if miss not in {"error", "mock"}:
        raise InputError(f"--replay-miss {miss}: it must be `error` or `mock`")
    if replay is not None and real is not None:
        raise InputError("--replay and --real exclude each other; give one of them")
    if record is not None and real is None:
        raise InputError("--record keeps what a real service answers; give its address with --real URL")
    if replay is not None:
        return Replay(replay, strict=miss == "error")
    return RealService(real, toolsets, Recorder(record, keep_secrets=keep) if record else None) if real else None


def _content(media: str, content: bytes) -> tuple[str, Json]:
    """The answer as it is kept; what only says that it is JSON is text, and so is what is nested too deeply."""
    media = media.partition(";")[0].strip() or "text/plain"
    if media.endswith("json"):
        try:
            return media, parse_json(content, Limits())
        except ToolError:
            media = "text/plain"
    return media, content.decode(errors="replace")
