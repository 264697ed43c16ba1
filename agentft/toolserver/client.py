"""HTTP client for model output: registered tools only, at their registered addresses, on loopback."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Self, TypeAlias
from urllib.parse import quote, urlsplit

import httpx

from agentft.errors import InputError, MissingError, ToolError
from agentft.toolserver.body import error_body
from agentft.types import Exchange, Json, ToolCall, ToolDefinition

__all__ = ["ServerGone", "ToolClient"]

_READ_LIMIT = 16 << 10
_HEALTH_SECONDS = 10.0


class ServerGone(MissingError):  # noqa: N818  (the name is public)
    """The tool server itself does not respond, which is never the model's fault: the case is invalid."""


_Answer: TypeAlias = tuple[int | None, str, bool]
"""Status, text and whether it is an error. Status None: no complete response, and the text gives the reason."""


class ToolClient:
    """Sends calls to a tool server over persistent connections. Thread-safe.

    Responses are cut after `limit` bytes (16 KiB by default), with a note at the end.

    Args:
        address: the server, `http://127.0.0.1:<port>`. No other server is ever contacted.
        token: the server's bearer token.
        definitions: the registered tools with their endpoints.
        timeout: seconds from the start of a request to the last byte of the response.
        served: turns a call of a registered tool into the one that the server takes, or raises ToolError.
    """

    def __init__(
        self,
        address: str,
        token: str,
        definitions: Sequence[ToolDefinition],
        *,
        timeout: float = 10.0,
        limit: int | None = None,
        served: Callable[[ToolCall], ToolCall] | None = None,
    ) -> None:
        if urlsplit(address).hostname != "127.0.0.1":
            raise InputError(f"{address} is not on loopback; tool servers are reached at http://127.0.0.1:<port> only")
        self._address = address.rstrip("/")
        self._tools = {definition.name: definition for definition in definitions}
        self._served = served
        self._limit = limit or _READ_LIMIT
        # No redirects and no proxies: they would let a response or the environment choose where a call goes.
        self._timeout = timeout
        self._http = httpx.Client(
            # A compressed response could be of any size once decompressed.
            headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=50),
        )

    def call(self, call: ToolCall, session: str) -> Exchange:
        """Send a call, or refuse it with the reason (then `Exchange.sent` is None).

        A timeout or a lost connection is the result of the call, as long as /health still responds.

        Raises:
            ServerGone: neither the call nor /health gets a response.
        """
        if refusal := self._refusal(call):
            return _unsent(call, refusal)
        made = call
        if self._served is not None:
            try:
                call = self._served(call)
            except ToolError as error:
                refused = error.status, json.dumps(error_body(error), ensure_ascii=False), True
                return Exchange(made, "POST", made.endpoint, dict(made.arguments), *refused)
        try:
            # Escaped to ASCII, so that lone surrogates can be sent too; the server refuses them.
            body = json.dumps(dict(call.arguments)).encode()
        except (ValueError, TypeError, RecursionError):
            return _unsent(made, {"error": "the arguments cannot be written as JSON; use plain values"})
        target = urlsplit(call.endpoint) if call.endpoint is not None else None
        headers = {"Content-Type": "application/json"} | ({"Host": target.netloc} if target else {})
        path = target.path if target else f"/tools/{call.name}"
        answer = self._send("POST", path, session, headers, body)
        return Exchange(made, "POST", call.endpoint if target else path, dict(call.arguments), *answer)

    def state_digest(self, session: str) -> str:
        """The digest of all worlds' states in a session.

        Raises:
            ServerGone: the server does not respond, or not with a digest.
        """
        status, text, _ = self._send("GET", "/state", session, {}, b"")
        if status != 200:
            raise ServerGone(f"the tool server at {self._address} returned no state: {status} {text}")
        try:
            return str(json.loads(text)["digest"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ServerGone(f"the tool server at {self._address} returned no state: {text[:200]}") from None

    def _refusal(self, call: ToolCall) -> dict[str, Json] | None:
        if call.parse_error is not None:
            return {"error": f"the call could not be read: {call.parse_error}"}
        definition = self._tools.get(call.name)
        if definition is None:
            return {"error": f"there is no tool {call.name[:60]}", "tools": [*self._tools]}
        if call.endpoint is not None and call.endpoint not in definition.endpoints:
            endpoints = list(definition.endpoints)
            error = f"{call.endpoint[:200]} is not the address of {call.name}"
            return {"error": error, "url": endpoints[0] if len(endpoints) == 1 else [*endpoints]}
        return None

    def _send(self, method: str, path: str, session: str, headers: dict[str, str], body: bytes) -> _Answer:
        headers = headers | {"X-Session": quote(session, safe="/:@ ")}
        try:
            return self._read(method, path, headers, body)
        except httpx.TransportError as error:
            if not self._is_up():
                raise ServerGone(
                    f"the tool server at {self._address} does not respond ({type(error).__name__}: {error}); "
                    "start it again"
                ) from error
            late = isinstance(error, httpx.TimeoutException)
            lost = "the connection was closed before the whole answer came"
            return None, _error(f"no answer within {self._timeout:g} seconds" if late else lost), True

    def _read(self, method: str, path: str, headers: dict[str, str], body: bytes) -> _Answer:
        until = time.monotonic() + self._timeout
        content = bytearray()
        with self._http.stream(method, f"{self._address}{path}", headers=headers, content=body) as response:
            for chunk in response.iter_raw():
                content += chunk
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("the response took too long")
                if len(content) > self._limit:
                    break
        kind = response.headers.get("content-type", "text/plain").partition(";")[0]
        if not kind.startswith("text/") and not kind.endswith(("json", "xml")):
            message = _error(f"the answer is {kind[:60]}, which is neither JSON nor text")
            return response.status_code, message, True
        text = content[: self._limit].decode(errors="replace")
        if len(content) > self._limit:
            text += f"... (cut: the answer is longer than {self._limit} bytes)"
        return response.status_code, text, response.is_error

    def _is_up(self) -> bool:
        try:
            return self._http.get(f"{self._address}/health", timeout=_HEALTH_SECONDS).status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Close the connections. Closing twice is fine."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _error(why: str) -> str:
    return json.dumps({"error": why})


def _unsent(call: ToolCall, answer: dict[str, Json]) -> Exchange:
    # A model can write a lone surrogate, which cannot be encoded for a log.
    received = json.dumps(answer, ensure_ascii=False).encode(errors="replace").decode()
    return Exchange(call, "POST", call.endpoint, None, None, received, is_error=True)
