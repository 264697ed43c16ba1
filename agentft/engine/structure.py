"""The attention structure of a packed row: as nodes, as a dense mask, and as a block mask for flex_attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from agentft.engine.cascade import VarlenCall, cascade_calls
from agentft.engine.collation import Batch

__all__ = ["Structure"]


class Structure:
    """The attention structure of one batch. Each form is computed on first use and shared by all layers.

    `nodes`: (tokens, parent) of each node. `ends`, `positions` `[L]`: see `Batch`. With a sliding window of `w`, a
    token attends to itself and to the `w - 1` tokens before it in its own sample.
    """

    def __init__(self, nodes: Sequence[tuple[int, int]], ends: Tensor, positions: Tensor) -> None:
        self.nodes = tuple(nodes)
        self.ends = ends
        self.positions = positions
        self._masks: dict[int | None, Tensor] = {}
        self._blocks: dict[int | None, Any] = {}
        self._calls: list[VarlenCall] = []
        lengths: list[int] = []  # from the root to the end of each node
        for tokens, parent in self.nodes:
            lengths.append(tokens + (lengths[parent] if parent >= 0 else 0))
        self._longest_sample = max(lengths)

    @classmethod
    def of(cls, batch: Batch) -> Structure:
        """The structure of a batch, on the batch's device."""
        return cls(batch["nodes"], batch["ends"], batch["position_ids"][0])

    def to(self, device: Any, non_blocking: bool = False) -> Structure:
        """The same structure on another device; accelerate calls it as it calls a tensor's."""
        ends, positions = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.ends, self.positions))
        return Structure(self.nodes, ends, positions)

    def needs(self, window: int | None) -> bool:
        """Whether a window hides any token of this batch."""
        return window is not None and window < self._longest_sample

    def dense(self, window: int | None = None) -> Tensor:
        """`[1, 1, L, L]`, True where the row's token attends to the column's."""
        if window not in self._masks:
            order = torch.arange(len(self.ends), device=self.ends.device)
            mask = (order[:, None] >= order[None, :]) & (order[:, None] < self.ends[None, :])
            if window is not None:
                mask &= self.positions[:, None] - self.positions[None, :] < window
            self._masks[window] = mask[None, None]
        return self._masks[window]

    def calls(self) -> list[VarlenCall]:
        """The FlashAttention calls, see `cascade_calls`."""
        self._calls = self._calls or cascade_calls(self.nodes, self.ends.device)
        return self._calls

    def blocks(self, window: int | None = None) -> Any:
        """flex_attention's `BlockMask`, `[1, 1, L, L]` in blocks of 128."""
        if window not in self._blocks:
            from torch.nn.attention.flex_attention import create_block_mask

            ends, positions, length = self.ends, self.positions, len(self.ends)

            def attends(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:  # noqa: ARG001
                return (row >= column) & (row < ends[column])

            def attends_in_window(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
                return attends(batch, head, row, column) & (positions[row] - positions[column] < window)

            mask = attends if window is None else attends_in_window
            self._blocks[window] = create_block_mask(mask, None, None, length, length, device=str(ends.device))
        return self._blocks[window]
