"""A fork that is killed leaves no lock taken for the tests after it."""

from __future__ import annotations

import io
import os
import signal
import time

import pytest
from tqdm import tqdm

from tests.shared_locks import leave_shared_locks


@pytest.mark.timeout(120)
def test_a_killed_fork_holds_no_lock_of_this_process() -> None:
    list(tqdm(range(2), file=io.StringIO()))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        leave_shared_locks()
        tqdm.get_lock().acquire()
        os.write(writing, b"x")
        time.sleep(600)
        os._exit(0)
    os.read(reading, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for end in (reading, writing):
        os.close(end)

    list(tqdm(range(2), file=io.StringIO()))
