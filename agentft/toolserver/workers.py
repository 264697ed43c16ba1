"""Runs handlers in threads, each call with a deadline, so that a handler that hangs delays no other call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from agentft.errors import ToolError

__all__ = ["Workers"]

# Handlers are short and hold the GIL, so few threads are fastest; more are added only while all are stuck.
_USUAL = 2
_MOST = 256
_ADDED = 8
_STUCK_LIMIT = 8
_TICK_SECONDS = 0.05
_Job = tuple[asyncio.Future[Any], str, Callable[..., Any], tuple[Any, ...]]
_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


class Workers:
    """Runs functions in threads. For use from one event loop.

    Args:
        seconds: the deadline of a call, queueing included. The thread of a call that misses it cannot be stopped, and
            is replaced.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._open: dict[asyncio.Future[Any], float] = {}  # call -> deadline, oldest first
        self._done: list[_Outcome] = []
        self._lock = Lock()  # over `_done`, `_inside` and `_threads`
        self._threads = 0
        self._inside: dict[asyncio.Future[Any], str] = {}  # running calls, and their tools
        self._finished = 0
        self._ticking = False

    async def run(self, name: str, function: Callable[..., Any], *arguments: object) -> Any:
        """Return or raise what `function(*arguments)` does.

        Args:
            name: the tool's name. While `_STUCK_LIMIT` calls of a tool have missed their deadline and still run,
                further calls of it are refused.

        Raises:
            TimeoutError: the call missed its deadline.
            ToolError: the call was refused.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._open[future] = loop.time() + self._seconds
        if self._threads < _USUAL:
            self._add(loop, _USUAL - self._threads)
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK_SECONDS, self._tick, loop, self._finished)
        self._jobs.put((future, name, function, arguments))
        try:
            return await future
        finally:
            self._open.pop(future, None)

    def close(self) -> None:
        """Stop the threads, each after its current call."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _add(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        with self._lock:
            self._threads += count
        for _ in range(count):
            Thread(target=self._work, args=(loop,), name="agentft-handler", daemon=True).start()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (job := self._jobs.get()) is not None:
            future, name, function, arguments = job
            if future.done():  # its deadline passed in the queue
                continue
            if not self._begin(future, name):
                error = ToolError(f"{name[:60]} is busy: earlier calls have not returned", status=504)
                with suppress(RuntimeError):  # the loop was closed
                    loop.call_soon_threadsafe(self._fail, future, error)
                continue
            outcome: _Outcome
            try:
                outcome = (future, function(*arguments), None)
            # Whatever the function raises is raised again in `run`.
            except BaseException as error:
                # A KeyboardInterrupt or CancelledError raised by a handler would stop the whole loop.
                outcome = (future, None, error if isinstance(error, Exception) else RuntimeError(repr(error)))
            with self._lock:
                del self._inside[future]
                self._done.append(outcome)
                wake = len(self._done) == 1
                surplus = self._threads > _USUAL and self._jobs.empty()
                self._threads -= surplus
            try:
                if wake:
                    loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop was closed in the meantime, so nobody waits for the result
                return
            if surplus:
                return

    def _begin(self, future: asyncio.Future[Any], name: str) -> bool:
        with self._lock:
            stuck = sum(other == name and late.done() for late, other in self._inside.items())
            if stuck < _STUCK_LIMIT:
                self._inside[future] = name
            return stuck < _STUCK_LIMIT

    @staticmethod
    def _fail(future: asyncio.Future[Any], error: Exception) -> None:
        if not future.done():
            future.set_exception(error)

    def _deliver(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        self._finished += len(done)
        for future, result, error in done:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _tick(self, loop: asyncio.AbstractEventLoop, finished: int) -> None:
        """Fail the calls past their deadline, and add threads if none has finished a call since the last tick."""
        now = loop.time()
        for future, deadline in self._open.items():
            if deadline <= now:
                self._fail(future, TimeoutError())
        if finished == self._finished and self._threads < _MOST:
            self._add(loop, min(self._jobs.qsize(), _ADDED))
        self._ticking = bool(self._open)
        if self._ticking:
            loop.call_later(_TICK_SECONDS, self._tick, loop, self._finished)
