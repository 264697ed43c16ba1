"""The frozen head and the cross-entropy in one function, chunk by chunk: only one chunk of logits exists at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["frozen_head", "head_losses"]

CHUNK_BYTES = 1 << 28
"""Bytes of the fp32 logits of one chunk."""
CHUNK_ROWS = 128
"""Chunks have a multiple of this many rows, so that there are few shapes."""


def frozen_head(model: Any) -> nn.Linear | None:
    """The head of `model`, if it is frozen and logits are its product without scaling or capping; else None."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    bent = any(getattr(config, name, None) for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"))
    plain = type(head) is nn.Linear and not any(parameter.requires_grad for parameter in head.parameters())
    return head if plain and not bent else None


def head_losses(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    """The cross-entropy `[R]` in nats, fp32, of `targets` `[R]` after the states `hidden` `[R, d]`."""
    return _HeadLosses.apply(hidden, head.weight, head.bias, targets)


class _HeadLosses(torch.autograd.Function):  # type: ignore[misc]
    """The gradient of each row is computed with its loss, and scaled in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        step = max(CHUNK_BYTES // (4 * len(weight)) // CHUNK_ROWS, 1) * CHUNK_ROWS
        for start in range(0, len(hidden), step):
            end = start + step
            logits = nn.functional.linear(hidden[start:end], weight, bias).float()
            known = targets[start:end, None]
            right = logits.gather(1, known)[:, 0]
            total = logits.logsumexp(dim=1)
            losses[start:end] = total - right
            if slopes is not None:
                shares = logits.sub_(total[:, None]).exp_()
                shares.scatter_(1, known, shares.gather(1, known) - 1)
                torch.matmul(shares.to(weight.dtype), weight, out=slopes[start:end])
        ctx.slopes = slopes
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        slopes, ctx.slopes = ctx.slopes, None
        return (None if slopes is None else slopes * gradient[:, None].to(slopes.dtype)), None, None, None
