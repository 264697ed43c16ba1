"""This machine: what it computes fast, how much memory is free, and settings of torch that belong to it."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator

import torch

__all__ = ["deterministic", "peak_memory"]


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """On the CPU, sum in the same order in every run (rows repeat in the head's gradient)."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def peak_memory() -> int:
    """Peak bytes: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
