"""A model's chat template is code from its folder: it runs with bounds, and its errors become a `FrameError`."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agentft.errors import FrameError

__all__ = ["Template", "guarded"]

Template = Callable[[Sequence[Mapping[str, Any]], bool], str]
"""(messages with `role` and `content`, add generation prompt) -> text. It may raise for roles it does not support."""

MAX_SECONDS = 5.0
MAX_MEMORY = 512 * 1024 * 1024
"""Bytes that rendering may allocate."""
MAX_ADDED = 1_000_000
"""Characters that a template may add to the contents of the messages."""


class _TimeoutSignal(BaseException):
    """Not an Exception, which Jinja's optimizer would swallow."""


def guarded(template: Template) -> Template:
    """The template with bounds on its time, memory and output.

    Raises:
        FrameError: the template raised an error (the message has its words), or went over a bound.
    """

    def render(messages: Sequence[Mapping[str, Any]], prompt: bool) -> str:
        try:
            with _bounded():
                text = template(messages, prompt)
        except FrameError:
            raise
        except _TimeoutSignal:
            raise FrameError(f"the chat template takes over {MAX_SECONDS:g} seconds for one conversation") from None
        except MemoryError:
            raise FrameError(f"the chat template needs over {MAX_MEMORY >> 20} MiB for one conversation") from None
        except Exception as error:  # a template raises errors of its own, and its code may fail in any way
            roles = "/".join(message["role"] for message in messages[:8]) + ("/..." if len(messages) > 8 else "")
            reason = str(error).strip() or type(error).__name__
            raise FrameError(f"the chat template cannot render the turns {roles}: {reason:.300}") from None
        if len(text) > MAX_ADDED + 10 * sum(len(message["content"] or "") for message in messages):
            raise FrameError(f"the chat template adds over {MAX_ADDED:,} characters to one conversation")
        return text

    return render


@contextmanager
def _bounded() -> Iterator[None]:
    """Stop the block after MAX_SECONDS (in the main thread, where signals arrive) or MAX_MEMORY."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limited = _used_memory() + MAX_MEMORY
    if limited > MAX_MEMORY and (soft == resource.RLIM_INFINITY or limited < soft):
        resource.setrlimit(resource.RLIMIT_AS, (limited, hard))
    timed = threading.current_thread() is threading.main_thread() and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    before = signal.signal(signal.SIGALRM, _expire) if timed else None
    try:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
        yield
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _expire(*_: object) -> None:
    raise _TimeoutSignal


def _used_memory() -> int:
    """Bytes of this process's address space; 0 where the system does not tell."""
    try:  # for every row, so without the layers of `open`
        file = os.open("/proc/self/statm", os.O_RDONLY)
        try:
            return int(os.read(file, 64).split()[0]) * resource.getpagesize()
        finally:
            os.close(file)
    except OSError:
        return 0
