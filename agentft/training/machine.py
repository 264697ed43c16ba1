"""The machine's properties (native dtypes, free memory, speed) and torch settings that depend on it."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from agentft.engine.speed import has_liger
from agentft.models.hf import native_bf16

__all__ = ["Machine", "deterministic", "measure_machine", "measure_rate", "peak_memory"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The properties that `auto` settings depend on.

    `bf16`: whether it multiplies bf16 natively. `liger`: whether Liger's kernels are installed and usable. `free`:
    free bytes of GPU memory. `rate`, `fp32_rate`: operations a second of a large matrix product in bf16 and in fp32.
    The last three are 0 without a GPU, because nothing depends on them there.
    """

    device: Literal["cpu", "cuda"]
    bf16: bool
    liger: bool
    free: float = 0.0
    rate: float = 0.0
    fp32_rate: float = 0.0


def measure_machine() -> Machine:
    """Measure this machine. On a GPU, this multiplies large matrices for a moment."""
    if not torch.cuda.is_available():
        return Machine("cpu", native_bf16(), has_liger())
    free = float(torch.cuda.mem_get_info()[0])
    rate, fp32_rate = measure_rate(torch.bfloat16), measure_rate(torch.float32)
    torch.cuda.empty_cache()
    return Machine("cuda", native_bf16(), has_liger(), free, rate, fp32_rate)


def measure_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a large matmul in this dtype."""
    device, size = ("cuda", 8_192) if torch.cuda.is_available() else ("cpu", 1_536)
    one, two = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        _wait(device)
        began = time.perf_counter()
        torch.matmul(one, two)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return float(2 * size**3 / best)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """On the CPU, use deterministic algorithms, because the head's gradient is a sum over repeated positions."""
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
    """Peak memory in bytes: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
