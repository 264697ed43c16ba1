"""Threads that run handlers beside the event loop, each call under a time limit; one that hangs holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from agentft.errors import ToolError

__all__ = ["Workers"]

# Handlers are short and hold the GIL, so few threads are quickest; more are added only while all are stuck.
_USUAL = 2
_MOST = 256
_ADDED = 8
_STUCK = 8
_TICK_SECONDS = 0.05
_Job = tuple[asyncio.Future[Any], str, Callable[..., Any], tuple[Any, ...]]
_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


class Workers:
    """Runs functions in threads. To be used from one event loop.

    Args:
        seconds: what a call may take, its waiting included. The thread of one that takes longer cannot be stopped, and
            is replaced.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._open: dict[asyncio.Future[Any], float] = {}  # to its deadline, in order
        self._done: list[_Outcome] = []
        self._lock = Lock()  # over `_done`, `_inside` and `_threads`
        self._threads = 0
        self._inside: dict[asyncio.Future[Any], str] = {}  # what threads are in, with its name
        self._finished = 0
        self._ticking = False

    async def run(self, name: str, function: Callable[..., Any], *arguments: object) -> Any:
        """What `function(*arguments)` returns or raises.

        Args:
            name: of what runs. While several calls of one name are past their time and still hold threads, further ones
                of that name are not begun.

        Raises:
            TimeoutError: it took too long.
            ToolError: it was not begun.
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
        """Let the threads end, each after the call that it is in."""
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
            if future.done():  # it waited for too long
                continue
            if not self._begin(future, name):
                error = ToolError(f"{name[:60]} hangs: earlier calls of it have not ended", status=504)
                with suppress(RuntimeError):  # the loop was closed
                    loop.call_soon_threadsafe(self._give_up, future, error)
                continue
            outcome: _Outcome
            try:
                outcome = (future, function(*arguments), None)
            # Whatever it raises is raised where the call is waited for.
            except BaseException as error:
                # An interrupt or a cancellation that a handler raises itself would stop the whole loop.
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
            except RuntimeError:  # the loop was closed in the meantime: nobody waits any more
                return
            if surplus:
                return

    def _begin(self, future: asyncio.Future[Any], name: str) -> bool:
        with self._lock:
            hang = sum(other == name and late.done() for late, other in self._inside.items())
            if hang < _STUCK:
                self._inside[future] = name
            return hang < _STUCK

    @staticmethod
    def _give_up(future: asyncio.Future[Any], error: Exception) -> None:
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
        """Give up on calls past their time, and add threads if none of them has finished anything since last time."""
        now = loop.time()
        for future, deadline in self._open.items():
            if deadline <= now:
                self._give_up(future, TimeoutError())
        if finished == self._finished and self._threads < _MOST:
            self._add(loop, min(self._jobs.qsize(), _ADDED))
        self._ticking = bool(self._open)
        if self._ticking:
            loop.call_later(_TICK_SECONDS, self._tick, loop, self._finished)
