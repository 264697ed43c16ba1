"""NEFTune: noise on the input embeddings while training.

Source: Jain et al. 2023, "NEFTune: Noisy Embeddings Improve Instruction Finetuning", arXiv:2310.05914.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["EmbeddingNoise"]


class EmbeddingNoise:
    """A forward hook that adds uniform noise of at most `alpha / sqrt(length * d)` to each embedding `[..., d]`.

    `lengths`: the tokens of each row, which padding does not count to. Without it, transformers' hook would give the
    samples of a padded batch too little noise. Nothing is added outside training.
    """

    def __init__(self, alpha: float, lengths: Tensor | None = None) -> None:
        self.alpha = alpha
        self.lengths = lengths

    def __call__(self, module: Any, _inputs: Any, output: Tensor) -> Tensor:
        """`[rows, length, d]`, with noise while `module` is training."""
        if not module.training:
            return output
        rows, length, width = output.shape
        counts = torch.full((rows,), length) if self.lengths is None else self.lengths
        most = self.alpha / (counts.to(output.device, torch.float32) * width).sqrt()
        noise = torch.empty_like(output, dtype=torch.float32).uniform_(-1, 1)
        return output + (noise * most[:, None, None]).to(output.dtype)
