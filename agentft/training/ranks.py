"""The processes of a run: each has the whole model and a part of each step's packs; the gradients are summed.

Numbers and documents go over gloo from host to host, so that waiting for them does not wait for the GPU.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from agentft.errors import MissingError
from agentft.training.launch import PeerLostError, rank_here

__all__ = ["Ranks", "join_ranks", "needing_peers"]

_PATIENCE = timedelta(hours=6)
"""How long a process waits for the others, for example while the first one prepares the data or saves."""
_SMALL = 1 << 20
"""Gradients with fewer elements are summed in one message."""


class Ranks:
    """This process's place among the processes of its run. `host`: the group for the host's data; None if alone."""

    def __init__(self, rank: int = 0, size: int = 1, host: Any = None) -> None:
        self.rank, self.size = rank, size
        self._host = host
        self._waited = 0.0
        self._marks: deque[tuple[Any, Any]] = deque()

    def gather(self, values: Sequence[float]) -> Tensor:
        """`[size, n]`: each process's values, in fp64."""
        own = torch.tensor(values, dtype=torch.float64)
        if self.size == 1:
            return own[None]
        found = [torch.empty_like(own) for _ in range(self.size)]
        with self._timed(False):
            dist.all_gather(found, own, group=self._host)
        return torch.stack(found)

    def share(self, document: Any = None) -> Any:
        """The first process's document, in all processes."""
        box = [document]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0, group=self._host)
        return box[0]

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier(group=self._host)

    def align(self, tensors: Sequence[Tensor]) -> None:
        """Give `tensors` the first process's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum the gradients over the processes; a missing one counts as 0."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters]
        small = [gradient.view(-1) for gradient in gradients if gradient.numel() < _SMALL]
        with self._timed(gradients[0].is_cuda):
            for gradient in gradients:
                if gradient.numel() >= _SMALL:
                    dist.all_reduce(gradient)
            if small:
                joined = torch.cat(small)
                dist.all_reduce(joined)
                torch._foreach_copy_(small, joined.split([gradient.numel() for gradient in small]))

    def take_idle(self) -> float:
        """Seconds of a step in which this process waited for the others; each call answers for the next step.

        On a CPU it waits wherever they meet, on a GPU where the gradients are summed.
        """
        if self._marks:
            began, ended = self._marks.popleft()
            ended.synchronize()
            return float(began.elapsed_time(ended)) / 1000
        waited, self._waited = self._waited, 0.0
        return 0.0 if torch.cuda.is_available() else waited

    @contextmanager
    def _timed(self, on_gpu: bool) -> Iterator[None]:
        if on_gpu:
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            yield
            ended.record()
            self._marks.append((began, ended))
        else:
            start = time.monotonic()
            yield
            self._waited += time.monotonic() - start

    def leave(self) -> None:
        """End the connections, when all processes have finished."""
        if self.size > 1:
            self.wait()
            dist.destroy_process_group()
            _connect.cache_clear()


@contextmanager
def needing_peers() -> Iterator[None]:
    """Turn the failure of any library's collective call, after another process has ended, into an error of the run.

    Raises:
        PeerLostError: in place of an error of torch.distributed; gloo's have no class of their own.
    """
    try:
        yield
    except RuntimeError as error:
        why = str(error).strip().partition("\n")[0]
        if not isinstance(error, dist.DistError) and "/gloo/" not in why:
            raise
        raise PeerLostError(
            f"process {rank_here() or 0} of the run lost the others, one of which has ended ({why}); see its own "
            "error, then continue with: agentft train --resume RUN (its folder, or `last`)"
        ) from error


def join_ranks() -> Ranks:
    """This process's place in the run: connects to the others that the environment names (RANK, WORLD_SIZE, ...).

    Raises:
        MissingError: this machine has fewer GPUs than processes of the run.
    """
    return Ranks() if rank_here() is None else _connect()


@cache
def _connect() -> Ranks:
    backend = "gloo"
    if here := torch.cuda.device_count():
        backend = "nccl"
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= here > 1:
            raise MissingError(f"process {local} of this machine has no GPU: there are only {here}; start fewer")
        local = min(local, here - 1)  # srun can give each task its own GPU, which is then its only one
        os.environ["LOCAL_RANK"] = str(local)
        torch.cuda.set_device(local)
    dist.init_process_group(backend)
    return Ranks(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=_PATIENCE))
