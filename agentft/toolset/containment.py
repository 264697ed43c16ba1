"""What a world's code may not do in our process: end it, replace it, copy it, or write to our standard output.

This stops accidents, not attacks: a world is trusted code. It is not kept from using memory, files, sockets,
subprocesses or threads of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

__all__ = ["Interruption", "foreign_code", "stdout_to_stderr"]

_REFUSED = frozenset({"os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"})
_local = threading.local()
_exit = os._exit
_installed = threading.Event()


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
    before = getattr(_local, "inside", False)
    _local.inside = True
    try:
        with _marked_interrupts():
            yield
    finally:
        _local.inside = before


@contextmanager
def _marked_interrupts() -> Iterator[None]:
    usual = signal.getsignal(signal.SIGINT)
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
        raise RuntimeError(f"a tool world may not call {event}, because it would copy or replace agentft")


def _leave(status: int) -> NoReturn:
    if getattr(_local, "inside", False):
        raise RuntimeError("a tool world may not call os._exit, because it would end agentft")
    _exit(status)


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
    try:
        yield stream
    finally:
        sys.stdout.flush()
        sys.stdout = before
        os.dup2(kept, 1)
        os.close(kept)
