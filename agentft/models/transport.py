"""HTTP to an OpenAI-compatible endpoint: one origin, limits on time and size, and retries with backoff."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

import agentft
from agentft.credentials import Credential, service_url
from agentft.errors import AgentftError, InputError, MissingError
from agentft.models.service_errors import is_unread, read_error
from agentft.models.streaming import EventStream
from agentft.redaction import is_secret_argument
from agentft.types import Json

__all__ = ["Endpoint", "EndpointDownError", "EndpointError", "Transport", "open_endpoint"]

_KEYS = ("AGENTFT_API_KEY", "OPENAI_API_KEY")
_LONG_KEY = 12  # a shorter key is a placeholder such as `EMPTY`, which may stand in any text
_BUSY = frozenset({429, 502, 503, 504, 520, 522, 524, 529})  # passes by itself; another 5xx often returns
_ATTEMPTS, _FEW = 8, 3
_LONGEST_WAIT = 120.0
_FATAL = {
    402: "add credit, or name another endpoint",
    401: "it refuses the key; set AGENTFT_API_KEY to a valid one",
    403: "it refuses the key; set AGENTFT_API_KEY to one that may use this model",
    404: "check the path of --endpoint and the name in --model",
    405: "check the path of --endpoint",
}
_NO_TOOLS = "; start the server with a parser for this model's calls, or read them with `agentft eval --format hermes`"
_REMEDIES = {
    "temperature": "; name one that the model takes with --temperature, or 1 for none",
    "tool choice": _NO_TOOLS,
    "support tools": _NO_TOOLS,
}
"""What to do about requests that a server refuses, by words of its message."""


class EndpointError(MissingError):
    """The endpoint gave no usable response to one request; the case is invalid, whatever the model is like."""


class EndpointDownError(AgentftError):
    """Nothing gets a response from the endpoint any more; this ends the command."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server, and the limits of requests to it.

    Args:
        url: the address that paths such as `/chat/completions` are added to, without a slash at the end.
        key: the environment variable with the key; empty: none is sent.
        seconds: the longest time from a request to the last byte of its response.
        concurrency: the number of requests in flight at once.
        size: bytes of a response.
        backoff: seconds before the first retry; later ones wait twice as long each.
        tokenizer: whose chat template writes the prompts here (see `open_prompting`); empty: the server's does.
    """

    url: str
    key: str = ""
    seconds: float = 600.0
    concurrency: int = 64
    size: int = 8 << 20
    backoff: float = 0.5
    tokenizer: str = ""

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        return _is_loopback(httpx.URL(self.url).host)


def open_endpoint(
    url: str, *, seconds: float = 600.0, concurrency: int = 64, allow_http: bool = False, backoff: float = 0.5
) -> Endpoint:
    """Check the address that the user names, and find the key in the environment. Nothing is sent.

    Without a path, `/v1` is added. The key is AGENTFT_API_KEY or, if that is not set, OPENAI_API_KEY.

    Raises:
        InputError: it is not a plain http(s) URL, its query has a secret, or the key would be sent unencrypted to
            another machine and `allow_http` is false.
    """
    parts = service_url("--endpoint", url, "http://localhost:8000/v1", queried=True)
    if secret := next(filter(is_secret_argument, parts.params), ""):
        raise InputError(f"--endpoint: its query has a secret ({secret:.40}); set it as AGENTFT_API_KEY instead")
    path, mark, query = parts.raw_path.decode().partition("?")
    path = path.rstrip("/").removesuffix("/completions").removesuffix("/chat") or "/v1"
    key = next((name for name in _KEYS if os.environ.get(name)), "")
    if key and parts.scheme == "http" and not allow_http and not _is_loopback(parts.host):
        raise InputError(f"{key} would be sent unencrypted to {parts.host}; use https, unset it, or add --allow-http")
    return Endpoint(
        str(parts.copy_with(raw_path=(path + mark + query).encode())), key, seconds, concurrency, backoff=backoff
    )


class Transport:
    """Sends requests to the endpoint from one event loop. Redirects are not followed.

    Proxies of the environment are used for other machines only.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._base = httpx.URL(endpoint.url)
        self._credential = Credential(endpoint.key, "Bearer") if endpoint.key else None
        sent = self._credential.headers if self._credential else {}
        if sent and self._base.host.endswith(".azure.com") and not os.environ[endpoint.key].startswith("eyJ"):
            sent = {"api-key": os.environ[endpoint.key]}  # Azure's keys, unlike its tokens
        self._hides = bool(endpoint.key) and len(os.environ[endpoint.key]) >= _LONG_KEY
        self._slots = asyncio.Semaphore(endpoint.concurrency)
        self._resume = self._success = 0.0  # when requests may go on after a 429, and when one last succeeded
        self._http = httpx.AsyncClient(
            headers={
                # A compressed response could be of any size once decompressed.
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": f"agentft/{agentft.__version__}",
                **sent,
            },
            timeout=httpx.Timeout(endpoint.seconds, connect=min(10.0, endpoint.seconds), pool=None),
            follow_redirects=False,
            trust_env=not endpoint.is_local,
            # Many servers close idle connections after 5 seconds, and a request sent just then is lost.
            limits=httpx.Limits(max_connections=endpoint.concurrency, keepalive_expiry=2),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def request(
        self, method: str, path: str, body: Mapping[str, Json] | None = None, stream: EventStream | None = None
    ) -> str:
        """The text of a successful response.

        429, 5xx and lost connections are retried with exponential backoff and jitter, and not before the time that
        `Retry-After` names. After a 429, all requests wait.

        Args:
            stream: gets the lines of the response as they come, if it is a stream; one that has begun is not retried.

        Raises:
            EndpointError: no usable response to this request.
            UnreadableError: see `EventStream.feed`.
            EndpointDownError: nothing gets a response any more.
            InputError: the endpoint refuses the key, the address or the model.
        """
        # Escaped to ASCII, so that lone surrogates can be sent too.
        content = json.dumps(body).encode() if body is not None else b""
        began = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            await asyncio.sleep(max(0.0, self._resume - time.monotonic()))
            try:
                async with self._slots, asyncio.timeout(self._endpoint.seconds):
                    response, text = await self._send(method, path, content, stream)
            except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout):
                raise self._error(f"no answer within {self._endpoint.seconds:g} seconds") from None
            except httpx.TransportError as error:
                if attempt >= (_ATTEMPTS if self._success else _FEW) or (stream and stream.events):
                    raise self._lost(error, began) from None
                await asyncio.sleep(self._delay(attempt))
                continue
            status, said = read_error(response.status_code, text)
            if status < 300:
                self._success = time.monotonic()
                return text
            if not self._may_retry(status, response, text, attempt):
                raise self._refusal(status, said, response)
            delay = max(self._delay(attempt), _retry_after(response))
            if status == 429:
                self._resume = max(self._resume, time.monotonic() + delay)
            else:
                await asyncio.sleep(delay)

    async def _send(
        self, method: str, path: str, content: bytes, stream: EventStream | None
    ) -> tuple[httpx.Response, str]:
        head, mark, query = self._base.raw_path.partition(b"?")
        url = self._base.copy_with(raw_path=head + path.encode() + mark + query)
        body, start = bytearray(), 0
        async with self._http.stream(method, url, content=content) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise self._error("a response is compressed, though none may be")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._endpoint.size:
                    raise self._error(f"a response is larger than {self._endpoint.size} bytes")
                while stream and response.is_success and (end := body.find(b"\n", start) + 1):
                    self._success = time.monotonic()
                    stream.feed(self._text(body[start:end]))
                    start = end
            if stream and response.is_success:
                stream.feed(self._text(body[start:]))  # the last line may have no end
        return response, self._text(body)

    def _text(self, body: bytearray) -> str:
        return self._hidden(body.decode("utf-8-sig", "replace"))

    def _may_retry(self, status: int, response: httpx.Response, text: str, attempt: int) -> bool:
        passes = status in (408, 409, 429) or status >= 500
        may_pass = passes and not is_unread(text) and _retry_after(response) <= _LONGEST_WAIT
        return may_pass and attempt < (_ATTEMPTS if status in _BUSY else _FEW)

    def _delay(self, attempt: int) -> float:
        """Seconds before the next attempt, with jitter, so that requests that failed together spread out."""
        return min(30.0, self._endpoint.backoff * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)

    def _refusal(self, status: int, message: str, response: httpx.Response) -> AgentftError:
        said = f"answered {response.status_code}: {message}"
        if response.has_redirect_location:
            place = self._hidden(response.headers["location"])
            return InputError(f"{self._endpoint.url} redirects to {place:.200}; name the final URL with --endpoint")
        if remedy := _FATAL.get(status):
            return InputError(f"{self._endpoint.url} {said}; {remedy}")
        if status == 429 and _retry_after(response) > _LONGEST_WAIT:
            said += f" (asks to wait {_retry_after(response):.0f} seconds)"
        return self._error(said + next((remedy for words, remedy in _REMEDIES.items() if words in said), ""))

    def _lost(self, error: Exception, began: float) -> AgentftError:
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
        if self._success < began:  # nothing else gets through either
            remedy = "check that the server runs and that --endpoint is its address"
            return EndpointDownError(f"{self._endpoint.url} cannot be reached ({self._hidden(why)}); {remedy}")
        return self._error(f"the connection was lost ({why})")

    def _error(self, why: str) -> EndpointError:
        return EndpointError(f"{self._endpoint.url}: {self._hidden(why)}")

    def _hidden(self, text: str) -> str:
        return str(self._credential.hide(text)) if self._credential and self._hides else text

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _retry_after(response: httpx.Response) -> float:
    """Seconds until the time in the Retry-After header, which is a number or a date; 0 without a usable one."""
    value = response.headers.get("retry-after", "").strip()
    try:
        is_number = value.replace(".", "", 1).isdecimal()
        return max(0.0, float(value) if is_number else parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
