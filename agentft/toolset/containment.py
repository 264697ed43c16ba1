"""What a world's code may not do in our process: end, replace, copy or move it, or write to our standard output.

This stops accidents, not attacks: a world is trusted code. It is not kept from using memory, files, sockets,
subprocesses or threads of its own.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO
from weakref import WeakSet

from agentft.strict import counted

__all__ = ["Interruption", "end_without_threads", "foreign_code", "stdout_to_stderr"]

_REFUSED = frozenset({"os.chdir", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"})
_PATIENCE = 10.0  # seconds for the threads of worlds, and what they registered with `atexit`, at the end
_local = threading.local()
_threads: WeakSet[threading.Thread] = WeakSet()  # started by worlds
_outputs: list[int] = []  # copies of the descriptor 2, one for each `stdout_to_stderr` that has not ended
_exit, _start, _register = os._exit, threading.Thread.start, atexit.register
_installed, _has_hooks, _ended = threading.Event(), threading.Event(), threading.Event()
atexit.register(_ended.set)  # runs after what worlds register later


class Interruption(BaseException):
    """Raised in a world's code from outside, by Ctrl-C or a time limit; whatever else its code raises is its bug."""


class _CtrlCError(Interruption, KeyboardInterrupt):
    """Ctrl-C, as opposed to a KeyboardInterrupt that a world raises."""


@contextmanager
def foreign_code() -> Iterator[None]:
    """While the block runs, `os._exit`, `fork` and `exec` raise RuntimeError in this thread.

    In the main thread, Ctrl-C raises an `Interruption`, which is a KeyboardInterrupt.
    """
    if not _installed.is_set():
        _installed.set()
        sys.addaudithook(_audit)
        os._exit = _leave
        threading.Thread.start = _start_noted  # type: ignore[assignment, method-assign]
        atexit.register = _register_noted  # type: ignore[assignment]
    before = getattr(_local, "inside", False)
    try:
        with _marked_interrupts():
            _local.inside = True
            yield
    finally:
        _local.inside = before
        _reopen()


@contextmanager
def _marked_interrupts() -> Iterator[None]:
    is_marked = getattr(_local, "inside", False)
    usual = None if is_marked else signal.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        try:
            usual(number, frame)
        except KeyboardInterrupt:
            raise _CtrlCError from None

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _audit(event: str, _: tuple[Any, ...]) -> None:
    if event in _REFUSED and getattr(_local, "inside", False):
        raise RuntimeError(f"a tool world may not call {event}, because it would copy, replace or move agentft")


def _start_noted(thread: threading.Thread) -> None:
    if getattr(_local, "inside", False):
        _threads.add(thread)
    _start(thread)


def _register_noted(function: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[..., Any]:
    if getattr(_local, "inside", False):
        _has_hooks.set()
    return _register(function, *arguments, **named)


def _leave(status: int) -> NoReturn:
    if getattr(_local, "inside", False):
        raise RuntimeError("a tool world may not call os._exit, because it would end agentft")
    _exit(status)


def end_without_threads(code: int) -> None:
    """End the process soon, although Python would wait for threads and `atexit` functions of a world's code."""

    def end() -> None:
        waited = _ended.wait(_PATIENCE)
        count = sum(thread.is_alive() for thread in [*_threads])
        if not waited and (count or _has_hooks.is_set()):
            what = counted(count, "thread") if count else "the atexit functions"
            os.write(2, f"ended without waiting for {what} of a tool world\n".encode())
            _exit(code)

    _start(threading.Thread(target=end, daemon=True))


def _reopen() -> None:
    """Open again the outputs that a world's code has closed."""
    for copy in _outputs[-1:]:
        for number in (1, 2):
            try:
                os.fstat(number)
            except OSError:
                os.dup2(copy, number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(getattr(sys, name), "closed", True):
            with suppress(OSError):  # its descriptor is closed too
                stream = open(number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)


@contextmanager
def stdout_to_stderr() -> Iterator[TextIO]:
    """While the block runs, what this process writes to standard output goes to standard error.

    That is both `print` and file descriptor 1, in all threads and child processes. Yields the standard output that was.
    """
    sys.stdout.flush()
    before = stream = sys.stdout
    has_descriptor, kept = before is sys.__stdout__, os.dup(1)
    os.dup2(2, 1)
    if has_descriptor:
        stream = open(kept, "w", encoding=before.encoding, errors=before.errors, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stderr
    _outputs.append(os.dup(2))
    try:
        yield stream
    finally:
        _reopen()
        sys.stdout.flush()
        os.dup2(_outputs[-1], 2)
        os.dup2(kept, 1)
        sys.stdout = before
        _reopen()
        os.close(_outputs.pop())
        os.close(kept)
