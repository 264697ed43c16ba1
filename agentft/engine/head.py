"""The frozen LM head and the cross-entropy in one function, which holds only one chunk of logits at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["frozen_head", "head_losses"]

CHUNK_BYTES = 1 << 28
"""Size of one chunk of fp32 logits, in bytes."""
CHUNK_ROWS = 128
"""The rows of a chunk are a multiple of this, to keep the number of shapes small."""


def frozen_head(model: Any) -> nn.Linear | None:
    """The LM head of `model` if it is a frozen linear layer whose outputs are neither scaled nor capped; else None."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    adjusted = any(getattr(config, name, None) for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"))
    plain = type(head) is nn.Linear and not any(parameter.requires_grad for parameter in head.parameters())
    return head if plain and not adjusted else None


def head_losses(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    """The cross-entropy `[R]`, in nats, fp32, of `targets` `[R]` given the hidden states `[R, d]`."""
    return _HeadLosses.apply(hidden, head.weight, head.bias, targets)


class _HeadLosses(torch.autograd.Function):  # type: ignore[misc]
    """Computes each row's gradient together with its loss; the backward pass only scales it."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradients = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        step = max(CHUNK_BYTES // (4 * len(weight)) // CHUNK_ROWS, 1) * CHUNK_ROWS
        for start in range(0, len(hidden), step):
            end = start + step
            logits = nn.functional.linear(hidden[start:end], weight, bias).float()
            target = targets[start:end, None]
            total = logits.logsumexp(dim=1)
            losses[start:end] = total - logits.gather(1, target)[:, 0]
            if gradients is not None:
                probabilities = logits.sub_(total[:, None]).exp_()
                probabilities.scatter_(1, target, probabilities.gather(1, target) - 1)
                torch.matmul(probabilities.to(weight.dtype), weight, out=gradients[start:end])
        ctx.gradients = gradients
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        gradients, ctx.gradients = ctx.gradients, None
        return (None if gradients is None else gradients * gradient[:, None].to(gradients.dtype)), None, None, None
