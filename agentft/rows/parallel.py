"""Work on a long sequence of batches in several processes, with the results in order.

The helpers are forked, so that what this process has loaded and cached is theirs at once. They hold nothing: if this
process ends in any way, they end.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import current_process, get_context
from multiprocessing.connection import Pipe, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from agentft.errors import InputError

__all__ = ["available_processes", "map_in_order"]

T = TypeVar("T")
B = TypeVar("B")

_MOST_HELPERS = 4
_MOST_AHEAD = 32  # batches that may be done before an earlier one is
_QUEUED = 3  # batches that a helper has at most, so that it need not wait while this process works
_PARALLELISM = "TOKENIZERS_PARALLELISM"


def available_processes() -> int:
    """How many processes may work for this one. 1 where forking is not safe (macOS), or in a helper."""
    if sys.platform != "linux" or current_process().daemon:
        return 1
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(cores, _MOST_HELPERS))


def map_in_order(work: Callable[[T], B], batches: Iterable[T], processes: int, alone: int) -> Generator[B]:
    """`work(batch)` for each batch, in order. This process is one of the `processes`; it does the first `alone` alone.

    Raises:
        InputError: a helper was ended from outside. What `work` raises is raised here.
    """
    numbered = enumerate(batches)
    for _, batch in islice(numbered, alone if processes > 1 else None):
        yield work(batch)
    following = alone
    done: dict[int, B] = {}
    item = next(numbered, None)
    with _helpers(work, processes - 1 if item else 0) as helpers:
        given: dict[Any, list[tuple[int, T]]] = {connection: [] for connection in helpers}
        while item or done or any(given.values()):
            for connection, waiting in given.items():
                while item and len(waiting) < _QUEUED and item[0] < following + _MOST_AHEAD:
                    connection.send(item[1])
                    waiting.append(item)
                    item = next(numbered, None)
            own = item if item and item[0] < following + _MOST_AHEAD else None
            for connection in wait([one for one, waiting in given.items() if waiting], 0 if own else None):
                number, batch = given[connection].pop(0)
                succeeded, result = _receive(connection)
                done[number] = result if succeeded else work(batch)  # which raises the error here, with its traceback
            if own:
                done[own[0]] = work(own[1])
                item = next(numbered, None)
            while following in done:
                yield done.pop(following)
                following += 1


@contextmanager
def _helpers(work: Callable[[Any], object], count: int) -> Iterator[list[Any]]:
    """A connection to each helper, which answers batches with results; none if the system starts no process."""
    before = os.environ.get(_PARALLELISM)
    os.environ[_PARALLELISM] = "false"  # else the tokenizers library warns of forks
    pairs = [Pipe() for _ in range(count)]
    helpers = [get_context("fork").Process(target=_serve, args=(work, theirs), daemon=True) for _, theirs in pairs]
    try:
        with warnings.catch_warnings(), suppress(OSError):
            warnings.simplefilter("ignore", DeprecationWarning)  # threads have no locks that the helpers take
            for helper in helpers:
                helper.start()
        for _, theirs in pairs:
            theirs.close()
        yield [ours for helper, (ours, _) in zip(helpers, pairs, strict=True) if helper.pid]
    finally:
        for helper in filter(lambda helper: helper.pid, helpers):
            helper.kill()  # not waited for: multiprocessing reaps it when it next starts a process, or at exit
        for ours, _ in pairs:
            ours.close()
        os.environ.pop(_PARALLELISM) if before is None else os.environ.update({_PARALLELISM: before})


def _serve(work: Callable[[Any], object], connection: Any) -> None:
    """Answer batches until the other end is closed."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the helpers
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.closerange(3, connection.fileno())  # locks, and the ends of other helpers' pipes
        os.closerange(connection.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        gc.freeze()
        batches: SimpleQueue[Any] = SimpleQueue()
        Thread(target=_take, args=(connection, batches)).start()
        while True:
            batch = batches.get()
            try:
                answer = (True, work(batch))
            except BaseException:  # a panic of a library in Rust is no Exception
                answer = (False, None)
            connection.send(answer)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)  # without flushing what this process had written when it was forked


def _take(connection: Any, batches: SimpleQueue[Any]) -> None:
    """Take batches at once, so that who sends them never waits, until the other end is closed."""
    try:
        while True:
            batches.put(connection.recv())
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def _receive(connection: Any) -> tuple[bool, Any]:
    try:
        succeeded, result = connection.recv()
    except (EOFError, OSError):
        why = "a process that prepares rows was ended, perhaps for lack of memory"
        raise InputError(f"{why}; free some, or use one process: taskset -c 0 agentft ...") from None
    return succeeded, result
