"""Packs for other training loops: a collator for transformers' Trainer, TRL's SFTTrainer or a loop of your own.

The rows of a batch become one row of prefix trees, and the model gets the attention that keeps them apart. Loss and
gradient equal those of the rows one by one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, TypeAlias

import torch

from agentft.engine.collation import collate
from agentft.engine.packing import MIN_SHARED, Sample, Tree, common_prefix, epoch_packs, make_pack
from agentft.engine.structure import Structure
from agentft.engine.tree_attention import TREE_ATTENTION, unshareable

__all__ = ["PackCollator", "pack_rows"]

Row: TypeAlias = Mapping[str, Any]
"""`input_ids` and `labels` of one length, with -100 for context; where an optional `attention_mask` is 0, padding."""

IGNORED = -100
"""The label of a context token."""


class PackCollator:
    """Turns rows into one packed row of model inputs, and gives `model` the tree attention.

    The call takes rows, or lists of rows as `pack_rows` makes them. It returns `input_ids`, `position_ids` `[1, L]`,
    the `structure` for the attention, and the targets twice: as `shift_labels`, each beside its logits, and as
    `labels`, one place later, which is what Trainer looks for.

    Args:
        model: a causal model of transformers, with or without adapters.
        supervised_logits: the model computes logits for supervised positions only, through `logits_to_keep`. False:
            for all L, and each position predicts at most one target, as TRL's SFTTrainer needs, which itself leaves out
            the others.

    Raises:
        ValueError: the model's layers cannot keep the samples of a row apart.
    """

    def __init__(self, model: Any, *, supervised_logits: bool = True) -> None:
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        if reason := unshareable(causal):
            raise ValueError(f"{type(causal).__name__} {reason}; train it without packing")
        causal.set_attn_implementation(TREE_ATTENTION)
        self._config = causal.config
        self._supervised_logits = supervised_logits

    def __call__(self, rows: Sequence[Row | Sequence[Row]]) -> dict[str, Any]:
        """The model inputs of these rows.

        Raises:
            ValueError: no token is supervised; a label is not its token; the model's attention was changed.
        """
        if self._config._attn_implementation != TREE_ATTENTION:
            raise ValueError(
                f"the model's attention is now {self._config._attn_implementation}, which would let packed samples see "
                f"each other; call model.set_attn_implementation({TREE_ATTENTION!r})"
            )
        flat = [row for item in rows for row in ([item] if isinstance(item, Mapping) else item)]
        samples = [sample for number, row in enumerate(flat) if (sample := _sample(number, row)) is not None]
        if not samples:
            raise ValueError("no row of this batch has a supervised token (all labels are -100); leave out such rows")
        batch = collate([make_pack(samples, [self._tree(samples)])], samples)
        sources, targets = batch["logits_to_keep"], batch["targets"]
        inputs: dict[str, Any] = {key: batch[key] for key in ("input_ids", "position_ids")}
        if self._supervised_logits:
            inputs["logits_to_keep"] = sources
        else:
            targets = torch.full_like(batch["input_ids"][0], IGNORED).index_copy(0, sources, targets)
        # One longer than the logits: a loss that shifts labels itself meets a different length, and fails.
        labels = torch.cat([targets.new_full((1,), IGNORED), targets])[None]
        return inputs | {"structure": Structure.of(batch), "labels": labels, "shift_labels": targets[None]}

    def _tree(self, samples: Sequence[Sample]) -> Tree:
        """The samples, each next to the one with which it shares most."""
        order = sorted(range(len(samples)), key=lambda index: samples[index].tokens)
        tree: Tree = []
        for index in order:
            shared = common_prefix(samples[tree[-1][0]], samples[index]) if tree else 0
            if not self._supervised_logits:  # a shared position would predict one target for each sample
                shared = min(shared, samples[index].places[0] - 1)
            tree.append((index, shared if shared >= MIN_SHARED else 0))
        return tree


def pack_rows(rows: Iterable[Row], tokens: int, seed: int = 0) -> list[list[Row]]:
    """Group rows into packs of at most `tokens` computed tokens; a longer row gets its own pack.

    Each pack is one item for `PackCollator`. Rows that share a prefix are in the same pack, as far as they fit.

    Raises:
        ValueError: a row has no supervised token, or a label is not its token.
    """
    kept = list(rows)
    samples: list[Sample] = []
    for number, row in enumerate(kept):
        sample = _sample(number, row)
        if sample is None:
            raise ValueError(f"row {number} has no supervised token (all labels are -100); leave out such rows")
        samples.append(sample)
    return [[kept[index] for index, _ in pack.members] for pack in epoch_packs(samples, tokens, seed, 0)]


def _sample(number: int, row: Row) -> Sample | None:
    """The row, cut after its last supervised token; None if it has none after its first token."""
    tokens, labels = _numbers(row["input_ids"]), _numbers(row["labels"])
    if len(tokens) != len(labels):
        raise ValueError(f"row {number} has {len(tokens)} input_ids, but {len(labels)} labels")
    if (mask := row.get("attention_mask")) is not None:
        inside = _numbers(mask)
        tokens, labels = list(compress(tokens, inside)), list(compress(labels, inside))
    places = [place for place in range(1, len(tokens)) if labels[place] != IGNORED]
    for place in places:
        if labels[place] != tokens[place]:
            raise ValueError(f"row {number}, label {place}: {labels[place]}, not {tokens[place]}; do not shift labels")
    if not places:
        return None
    weights = array("d", [1.0] * len(places))
    return Sample(number, f"row {number}", array("i", tokens[: places[-1] + 1]), array("i", places), weights)


def _numbers(values: Any) -> list[int]:
    return values.tolist() if hasattr(values, "tolist") else list(values)
