"""The loss: sum(w * loss) / sum(w), in fp32, with LM head and cross-entropy on supervised positions only.

To add a loss, write a function of the targets' cross-entropies here, with a line in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from agentft.engine.collation import Batch
from agentft.engine.head import frozen_head, head_losses
from agentft.engine.structure import Structure
from agentft.engine.tree_attention import TREE_ATTENTION

__all__ = ["LOSSES", "target_losses", "weighted_loss"]


def target_losses(model: Any, batch: Batch) -> Tensor:
    """The cross-entropy `[R]` of each supervised target, in nats, fp32.

    A model with our tree attention gets the `Structure`. Any other model gets a dense mask; or, if the samples share
    nothing, one row for each sample, so that recurrent layers do not mix them.
    """
    wrapped = hasattr(model, "module")  # DDP and DeepSpeed wrap the model, and must run its forward pass themselves
    causal = model.module if wrapped else model
    causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
    head = None if wrapped else frozen_head(causal)
    if causal.config._attn_implementation != TREE_ATTENTION and all(parent < 0 for _, parent in batch["nodes"]):
        if noise := getattr(causal, "embedding_noise", None):
            noise.lengths = torch.tensor([tokens for tokens, _ in batch["nodes"]])
        return _row_losses(model, batch, head)
    structure = Structure.of(batch)
    by_tree = causal.config._attn_implementation == TREE_ATTENTION
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"]}
    inputs |= {"structure": structure} if by_tree else {"attention_mask": structure.dense()}
    if head is not None:
        hidden = causal.get_decoder()(**inputs, use_cache=False).last_hidden_state
        return head_losses(hidden[0].index_select(0, batch["logits_to_keep"]), head, batch["targets"])
    logits = model(**inputs, logits_to_keep=batch["logits_to_keep"], use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), batch["targets"], reduction="none")


def _row_losses(model: Any, batch: Batch, head: torch.nn.Linear | None) -> Tensor:
    """One row for each sample. The padding is at the end, so no token of a sample depends on it."""
    lengths = [tokens for tokens, _ in batch["nodes"]]
    rows = pad_sequence(list(batch["input_ids"][0].split(lengths)), batch_first=True)
    inside = torch.arange(rows.shape[1]) < torch.tensor(lengths)[:, None]
    places = inside.flatten().nonzero()[:, 0].to(rows.device)[batch["logits_to_keep"]]
    if head is not None:
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        hidden = causal.get_decoder()(input_ids=rows, use_cache=False)[0]
        return head_losses(hidden.flatten(0, 1).index_select(0, places), head, batch["targets"])
    logits = model(input_ids=rows, use_cache=False).logits.flatten(0, 1).index_select(0, places)
    return torch.nn.functional.cross_entropy(logits.float(), batch["targets"], reduction="none")


def _cross_entropy(losses: Tensor) -> Tensor:
    return losses


def _dynamic(losses: Tensor) -> Tensor:
    """Dynamic fine-tuning: each target's cross-entropy times its probability, through which no gradient flows.

    Source: Wu et al. 2025, "On the Generalization of SFT", arXiv:2508.05629, equation 9.
    """
    return losses * (-losses.detach()).exp()


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"ce": _cross_entropy, "dft": _dynamic}
"""The cross-entropies `[R]` of the targets, in nats -> the losses `[R]` that are weighted."""


def weighted_loss(model: Any, batch: Batch, total: Tensor | float, loss: str = "ce") -> Tensor:
    """This batch's share of the loss; `total` is the sum of the weights in the whole optimizer step.

    `loss` is a key of LOSSES.
    """
    return (LOSSES[loss](target_losses(model, batch)) * batch["weights"]).sum() / total
