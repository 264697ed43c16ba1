"""The loss: sum(w * ce) / sum(w), with the head and the cross-entropy on supervised rows only, in fp32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agentft.data.collation import Batch, dense_mask
from agentft.training.attention import TREE_ATTENTION

__all__ = ["target_losses", "weighted_loss"]


def target_losses(model: Any, batch: Batch) -> Tensor:
    """The cross-entropy `[R]` of each supervised target, in nats, fp32.

    A model that was loaded with our tree attention is given the nodes, any other the dense mask.
    """
    by_tree = getattr(getattr(model, "config", None), "_attn_implementation", None) == TREE_ATTENTION
    structure = {"nodes": batch["nodes"]} if by_tree else {"attention_mask": dense_mask(batch["ends"])[None, None]}
    logits = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        **structure,
        logits_to_keep=batch["logits_to_keep"],
        use_cache=False,
    ).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), batch["targets"], reduction="none")


def weighted_loss(model: Any, batch: Batch, total: Tensor | float) -> Tensor:
    """This batch's part of the loss; `total` is the sum of the weights over the whole optimizer step."""
    return (target_losses(model, batch) * batch["weights"]).sum() / total
