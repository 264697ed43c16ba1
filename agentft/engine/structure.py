"""Who sees whom in a row of packs, in the forms that attention wants: nodes, a dense mask, a block mask for kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from agentft.engine.cascade import VarlenCall, cascade_calls
from agentft.engine.collation import Batch

__all__ = ["Structure"]


class Structure:
    """The structure of one batch, computed on demand and once for all layers.

    `nodes`: (tokens, parent) of each. `ends`, `positions` `[L]`: see `Batch`. Windows are in positions: with one of
    `w`, a token sees itself and the `w - 1` before it in its own sample.
    """

    def __init__(self, nodes: Sequence[tuple[int, int]], ends: Tensor, positions: Tensor) -> None:
        self.nodes = tuple(nodes)
        self.ends = ends
        self.positions = positions
        self._masks: dict[int | None, Tensor] = {}
        self._blocks: dict[int | None, Any] = {}
        self._calls: list[VarlenCall] = []
        reach: list[int] = []
        for tokens, parent in self.nodes:
            reach.append(tokens + (reach[parent] if parent >= 0 else 0))
        self._longest = max(reach)

    @classmethod
    def of(cls, batch: Batch) -> Structure:
        """That of a batch on its device."""
        return cls(batch["nodes"], batch["ends"], batch["position_ids"][0])

    def needs(self, window: int | None) -> bool:
        """Whether a window hides anything here."""
        return window is not None and window < self._longest

    def dense(self, window: int | None = None) -> Tensor:
        """`[1, 1, L, L]`, True where the row may see the column."""
        if window not in self._masks:
            order = torch.arange(len(self.ends), device=self.ends.device)
            mask = (order[:, None] >= order[None, :]) & (order[:, None] < self.ends[None, :])
            if window is not None:
                mask &= self.positions[:, None] - self.positions[None, :] < window
            self._masks[window] = mask[None, None]
        return self._masks[window]

    def calls(self) -> list[VarlenCall]:
        """FlashAttention calls, see `cascade_calls`."""
        self._calls = self._calls or cascade_calls(self.nodes, self.ends.device)
        return self._calls

    def blocks(self, window: int | None = None) -> Any:
        """flex_attention's `BlockMask`, `[1, 1, L, L]` in blocks of 128."""
        if window not in self._blocks:
            from torch.nn.attention.flex_attention import create_block_mask

            ends, positions, length = self.ends, self.positions, len(self.ends)

            def sees(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:  # noqa: ARG001
                return (row >= column) & (row < ends[column])

            def sees_near(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
                return sees(batch, head, row, column) & (positions[row] - positions[column] < window)

            chosen = sees if window is None else sees_near
            self._blocks[window] = create_block_mask(chosen, None, None, length, length, device=str(ends.device))
        return self._blocks[window]
