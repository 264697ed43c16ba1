"""A real server in a thread: uvicorn on loopback, for as long as a `with` block lasts."""

from __future__ import annotations

import re
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Thread
from typing import Self

import uvicorn

from agentft.errors import InputError, MissingError
from agentft.toolserver.app import Service
from agentft.toolserver.client import ToolClient
from agentft.toolserver.faults import Schedule
from agentft.toolserver.guard import Guard
from agentft.toolserver.limits import Limits
from agentft.toolserver.protocol import HEAD_BYTES, LimitedProtocol, WireProtocol
from agentft.toolserver.sessions import Sessions
from agentft.toolserver.source import Source
from agentft.toolset import HandlerError, Toolset

__all__ = ["ToolServer"]

_LOOPBACK = "127.0.0.1"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]+")
_TOKEN_LENGTH = 8
_START_SECONDS = 60.0


class ToolServer:
    """Serves worlds on loopback. Use it as a context manager.

    Args:
        toolsets: the worlds, from `load_toolsets`.
        seed: replaces the seed that the worlds were loaded with.
        port: 0 picks a free one.
        host: the address to listen on. Any other than 127.0.0.1 opens the server to the network and needs a `token`.
        token: the bearer token; by default a random one.
        limits: the limits of callers.
        faults: the faults to inject.
        source: a real or recorded service that responds in place of the worlds; it is closed with the server.

    Raises:
        InputError: another host without a token.
        MissingError: on entry, when the port is taken (exit code 3).
    """

    def __init__(
        self,
        toolsets: Sequence[Toolset],
        seed: int | None = None,
        *,
        port: int = 0,
        host: str = _LOOPBACK,
        token: str | None = None,
        limits: Limits | None = None,
        faults: Schedule | None = None,
        source: Source | None = None,
    ) -> None:
        if host != _LOOPBACK and not token:
            raise InputError(f"serving on {host} opens the tools to the network; pass a token with --token")
        if token is not None and (len(token) < _TOKEN_LENGTH or not _TOKEN.fullmatch(token)):
            raise InputError(f"a token must have {_TOKEN_LENGTH} or more of the characters A-Z a-z 0-9 . _ ~ -")
        self.token = token or secrets.token_urlsafe(24)
        self._definitions = [definition for toolset in toolsets for definition in toolset.definitions]
        self._service = Service(toolsets, seed, limits, faults, source)
        self._host = host
        self._port = port
        self._sockets: list[socket.socket] = []
        config = uvicorn.Config(
            Guard(self._service, self._definitions, host, self.token, (limits or Limits()).rate),
            log_config=None,
            log_level="critical",
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http=WireProtocol if faults else LimitedProtocol,
            h11_max_incomplete_event_size=HEAD_BYTES,
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=60,  # longer than any client's, so that no call comes while the server closes
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = Thread(
            target=self._server.run, kwargs={"sockets": self._sockets}, name="agentft-toolserver", daemon=True
        )
        self._open = ExitStack()
        self._open.callback(self._service.close)

    @property
    def address(self) -> str:
        """`http://127.0.0.1:<port>`; the port is known once the server is running."""
        return f"http://{self._host}:{self._port}"

    @property
    def crashes(self) -> tuple[HandlerError, ...]:
        """The handler bugs behind the 500s; `__cause__` is what the handler raised."""
        return tuple(self._service.crashes)

    @property
    def sessions(self) -> Sessions:
        """The states of the worlds, by session."""
        return self._service.sessions

    def client(self, timeout: float = 10.0) -> ToolClient:
        """A client for this server, which is closed with the server at the latest."""
        return self._open.enter_context(ToolClient(self.address, self.token, self._definitions, timeout=timeout))

    def __enter__(self) -> Self:
        listener = _bind(self._host, self._port)
        self._port = listener.getsockname()[1]
        self._sockets.append(listener)
        self._open.callback(listener.close)
        self._open.callback(self._stop)
        self._thread.start()
        until = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                self.close()
                raise MissingError(f"the tool server did not start on {self.address}; try another port")
            time.sleep(0.002)
        return self

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        self._thread.join()

    def _stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving, after running calls have had a moment to finish. Closing twice is fine."""
        self._open.close()


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InputError(f"port {port} is not a port; use 1 to 65535, or 0 for a free one")
    # asyncio sets TCP_NODELAY on accepted sockets only if the protocol is named; it saves 40 ms per call.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise MissingError(
            f"port {port} on {host} cannot be used: {error.strerror}; stop what uses it, or pass port 0 for a free one"
        ) from None
    return listener
