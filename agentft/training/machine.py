"""The machine's properties (native dtypes, free memory, speed) and torch settings that depend on it."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from agentft.engine.speed import has_liger
from agentft.models.hf import native_bf16
from agentft.training.planner import USUAL_LAUNCH

__all__ = ["Machine", "Moment", "deterministic", "gpus_unused", "measure_machine", "measure_rate", "peak_memory"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The properties that `auto` settings depend on.

    `bf16`: whether it multiplies bf16 natively. `liger`: whether Liger's kernels are installed and usable. `free`:
    free bytes of GPU memory. `rate`, `fp32_rate`: operations a second of a large matmul in bf16 and in fp32.
    `bandwidth`: bytes a second of a copy within its memory. These four are 0 without a GPU. `launch`: seconds to launch
    the kernels of a tiny layer's forward and backward passes.
    """

    device: Literal["cpu", "cuda"]
    bf16: bool
    liger: bool
    free: float = 0.0
    rate: float = 0.0
    fp32_rate: float = 0.0
    bandwidth: float = 0.0
    launch: float = USUAL_LAUNCH


def measure_machine() -> Machine:
    """Measure this machine. On a GPU, this multiplies large matrices and launches small kernels for a moment."""
    if not torch.cuda.is_available():
        return Machine("cpu", native_bf16(), has_liger())
    free = float(torch.cuda.mem_get_info()[0])
    rate, fp32_rate, bandwidth = measure_rate(torch.bfloat16), measure_rate(torch.float32), _measure_bandwidth()
    launch = _measure_launch()
    torch.cuda.empty_cache()
    return Machine("cuda", native_bf16(), has_liger(), free, rate, fp32_rate, bandwidth, launch)


def gpus_unused() -> int:
    """The number of visible GPUs beside the first."""
    return max(int(torch.cuda.device_count()) - 1, 0)


def measure_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a large matmul in this dtype."""
    device, size = ("cuda", 8_192) if torch.cuda.is_available() else ("cpu", 1_536)
    one, two = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return float(2 * size**3 / _best_time(lambda: torch.matmul(one, two), device))


def _measure_bandwidth() -> float:
    """Bytes a second that a copy within the GPU's memory reads and writes."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return float(2 * source.numel()) / _best_time(lambda: target.copy_(source), "cuda")


def _measure_launch() -> float:
    """Seconds to launch a tiny layer's forward and backward passes, on average over many."""
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.SiLU()) for _ in range(100))).cuda()
    row = torch.zeros(4, 16, device="cuda")
    return _best_time(lambda: layers(row).sum().backward(), "cuda") / len(layers)


def _best_time(work: Callable[[], object], device: str) -> float:
    best = float("inf")
    for _ in range(6):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return best


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


class Moment:
    """When the device has done all that was launched so far."""

    def __init__(self, device: torch.device) -> None:
        self._event: Any = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        self._time = time.monotonic()
        if self._event is not None:
            self._event.record()

    def since(self, earlier: Moment) -> float:
        """Seconds since an earlier moment of the same device, once both have come."""
        if self._event is None:
            return self._time - earlier._time
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event)) / 1000


def peak_memory() -> int:
    """Peak memory in bytes: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
