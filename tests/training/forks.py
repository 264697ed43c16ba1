"""Processes of a run as forks of the test: imports happen once, and no wait is longer than its limit."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch

from tests.shared_locks import leave_shared_locks

__all__ = ["SECONDS", "Fork", "join"]

SECONDS = 200.0
"""How long the processes of one run may take."""


class Fork:
    """A fork that does `work`, whose result is its exit code; `agentft.training.launch` takes it for a Popen."""

    args: Sequence[str] = ["fork"]

    def __init__(self, environment: Mapping[str, str], work: Callable[[], int]) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            return
        leave_shared_locks()
        code = 1
        try:
            signal.alarm(int(SECONDS))  # ends it, whatever it waits for
            gc.freeze()  # DeepSpeed collects garbage, which would take longer than all else
            torch.set_num_threads(1)  # threads do not survive the fork, and would be waited for
            os.environ.update(environment)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code; that of a signal is negative, and None means that the fork has not ended."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self) -> None:
        """Wait for the end, which `signal.alarm` brings if nothing else does."""
        while self.poll() is None:
            time.sleep(0.01)


def join(forks: Sequence[Fork]) -> list[int | None]:
    """Wait for all; when one fails, kill the others. Their exit codes."""
    while any(fork.poll() is None for fork in forks):
        if any(fork.returncode for fork in forks):
            for fork in forks:
                fork.kill()
        time.sleep(0.01)
    return [fork.returncode for fork in forks]
