"""Waiting for what another thread or process does. A test on a slow machine passes late; it does not fail."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["PATIENCE", "wait_until"]

PATIENCE = 300.0
"""Seconds to wait for what must come: so many that only a fault uses them up."""


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until the condition is true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not true within {seconds:g} seconds"
        time.sleep(0.01)
