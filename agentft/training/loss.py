"""The loss: sum(w * ce) / sum(w), with the head and the cross-entropy on supervised rows only, in fp32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agentft.data.collation import Batch
from agentft.training.attention import TREE_ATTENTION
from agentft.training.head import frozen_head, head_losses
from agentft.training.structure import Structure

__all__ = ["target_losses", "weighted_loss"]


def target_losses(model: Any, batch: Batch) -> Tensor:
    """The cross-entropy `[R]` of each supervised target, in nats, fp32.

    A model that was loaded with our tree attention is given the structure, any other the dense mask.
    """
    seen = Structure.of(batch)
    wrapped = hasattr(model, "module")  # by what spreads it over processes, which must see the call itself
    causal = model.module if wrapped else model
    causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
    by_tree = causal.config._attn_implementation == TREE_ATTENTION
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"]}
    inputs |= {"structure": seen} if by_tree else {"attention_mask": seen.dense()}
    head = None if wrapped else frozen_head(causal)
    if head is not None:
        hidden = causal.get_decoder()(**inputs, use_cache=False).last_hidden_state
        return head_losses(hidden[0].index_select(0, batch["logits_to_keep"]), head, batch["targets"])
    logits = model(**inputs, logits_to_keep=batch["logits_to_keep"], use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), batch["targets"], reduction="none")


def weighted_loss(model: Any, batch: Batch, total: Tensor | float) -> Tensor:
    """This batch's part of the loss; `total` is the sum of the weights over the whole optimizer step."""
    return (target_losses(model, batch) * batch["weights"]).sum() / total
