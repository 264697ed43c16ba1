"""What a fork that may be killed must not hold."""

from __future__ import annotations

import threading

from tqdm import tqdm

__all__ = ["leave_shared_locks"]


def leave_shared_locks() -> None:
    """To be called in a fork: a progress bar of tqdm holds a lock that all forks share, and a killed one for ever."""
    tqdm.set_lock(threading.RLock())
