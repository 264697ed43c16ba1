"""Handles packs that do not fit into memory: splits the pack and all later packs of its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from agentft.engine.collation import Batch, collate
from agentft.engine.packing import Sample, pack_in_order
from agentft.errors import InputError
from agentft.training.events import Note, OnEvent

__all__ = ["SHAPE_MULTIPLE", "PackLimit"]

SHAPE_MULTIPLE = 128
"""Tokens and targets of a batch are padded to a multiple of this, to keep the number of compiled shapes small."""


class PackLimit:
    """The maximum number of tokens in a pack, once memory has run out.

    Args:
        samples: the samples that `Batch.owners` indexes into.
        share: whether the packs share prefixes.
        alone: whether this is the only process. Of several, one cannot split its pack while the others wait.
        on_event: receives a warning when the limit falls.
    """

    def __init__(self, samples: Sequence[Sample], *, share: bool, alone: bool, on_event: OnEvent) -> None:
        self._samples = samples
        self._share = share
        self._alone = alone
        self._on_event = on_event
        self._tokens = 0  # 0: no limit yet

    def split(self, batch: Batch) -> list[Batch]:
        """The batch itself, or its samples in packs within the limit."""
        if not self._tokens or batch["tokens"] <= self._tokens:
            return [batch]
        packs = pack_in_order(self._samples, _members(batch), self._tokens, share=self._share)
        return [collate([pack], self._samples, SHAPE_MULTIPLE) for pack in packs]

    def lower(self, failed: Batch) -> None:
        """Halve the limit, after `failed` ran out of memory.

        Raises:
            InputError: `failed` is a single sample, or there are other processes.
        """
        tokens = failed["tokens"]
        if len(_members(failed)) == 1 or not self._alone:
            raise InputError(
                f"{tokens:,} tokens do not fit into memory, although the plan predicted they would; lower "
                "max_length or pack_tokens, or train with method = qlora and checkpointing = on"
            )
        self._tokens = tokens // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._on_event(
            Note(
                f"a pack of {tokens:,} tokens did not fit into memory, contrary to the plan; splitting packs "
                f"to {self._tokens:,} tokens from here on. Set pack_tokens = {self._tokens} to avoid this",
                warning=True,
            )
        )


def _members(batch: Batch) -> list[int]:
    """The batch's samples, in the order of their targets."""
    return list(dict.fromkeys(batch["owners"].tolist()))
