"""Decoding a batch of prompts that begin alike: the shared start is computed and kept once, not once a row.

Attention of a row over `[shared prefix, own tokens]` is one softmax over two blocks of scores. The prefix's keys and
values stay single (`[1, heads, prefix, dim]`), so a step reads them once for the whole batch. Rows leave the batch as
they end. A model whose attention is not the plain kind (sliding windows, soft caps, recurrence) gets prefix 0 and the
library's own attention: slower, same loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from agentft.models import Sampling

__all__ = ["ATTENTION", "Prefix", "can_share", "compute_prefix", "decode"]

ATTENTION = "agentft_shared_prefix"
PLAIN = frozenset({"llama", "qwen2", "qwen3", "mistral", "smollm3"})
# Scores of one block of rows while prefilling: above this the batch is attended in slices.
SCORES_AT_ONCE = 2**27

OnTokens = Callable[[int, list[int]], bool]
"""(row, all its new tokens) -> whether the row has ended."""


@dataclass(frozen=True)
class Prefix:
    """A computed prefix: its tokens, and for each layer its keys and values, `[heads, tokens, dim]` each."""

    tokens: tuple[int, ...]
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    def cut(self, length: int) -> Prefix:
        """The first `length` tokens of it."""
        layers = tuple((keys[:, :length], values[:, :length]) for keys, values in self.layers)
        return Prefix(self.tokens[:length], layers)


def can_share(model: Any) -> bool:
    """Whether the model's attention is the plain kind that a shared prefix is exact for."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        config.model_type in PLAIN and kinds == {"full_attention"} and not getattr(config, "use_sliding_window", False)
    )


def compute_prefix(model: Any, tokens: Sequence[int]) -> Prefix:
    """Run the prefix once."""
    ids = torch.tensor([list(tokens)], device=model.device)
    cache = DynamicCache()
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Prefix(tuple(tokens), tuple((layer.keys[0], layer.values[0]) for layer in cache.layers))


def decode(
    model: Any, prompts: Sequence[Sequence[int]], prefix: Prefix | None, sampling: Sampling, on_tokens: OnTokens
) -> list[list[int]]:
    """Sample until every row has ended or has `max_new_tokens`.

    Args:
        prompts: whole prompts; with a prefix each begins with its tokens and has at least one more.
        on_tokens: called after each step for each row that is still going.

    Returns:
        The new tokens of each row, the one that ended it included.
    """
    device = model.device
    start = len(prefix.tokens) if prefix else 0
    rest = [list(prompt[start:]) for prompt in prompts]
    width = max(map(len, rest))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rest], device=device)
    real = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rest], device=device)
    positions = start + (real.long().cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    shared: dict[str, Any] = {"shared_prefix": prefix.layers} if prefix else {}
    said: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    pick = _picker(sampling, torch.Generator(device=device).manual_seed(sampling.seed))
    for _ in range(sampling.max_new_tokens):
        mask = _mask(real, ids.shape[1]) if prefix else real.long()
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1, **shared,
        )  # fmt: skip
        tokens = pick(output.logits[:, -1].float())
        going = []
        for index, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            said[row].append(token)
            if not on_tokens(row, said[row]):
                going.append(index)
        if not going:
            break
        positions = positions[going, -1:] + 1
        ids = tokens[going, None]
        real = torch.cat([real[going], real.new_ones(len(going), 1)], dim=1)
        if len(going) < len(rows):
            cache.batch_select_indices(torch.tensor(going, device=device))
            rows = [rows[index] for index in going]
    return said


def _picker(sampling: Sampling, generator: torch.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """logits `[rows, vocabulary]` -> tokens `[rows]`."""
    if sampling.temperature <= 0:
        return lambda logits: logits.argmax(dim=-1)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k > 0:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))

    def pick(logits: torch.Tensor) -> torch.Tensor:
        probabilities = warpers(None, logits).softmax(dim=-1)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    return pick


def _mask(real: torch.Tensor, queries: int) -> torch.Tensor:
    """`[rows, 1, queries, own tokens]`, True = may look; a padding row looks at itself so that no row is empty."""
    keys = real.shape[1]
    causal = torch.ones(queries, keys, dtype=torch.bool, device=real.device).tril(keys - queries)
    return causal[None, None] & real[:, None, None, :]


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query `[rows, heads, queries, dim]` -> `[rows, queries, heads, dim]`."""
    prefix = kwargs.pop("shared_prefix", None)
    if prefix is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return plain
    shared = prefix[module.layer_idx]
    query = query * (kwargs.get("scaling") or query.shape[-1] ** -0.5)
    per_row = query.shape[1] * query.shape[2] * (key.shape[2] + shared[0].shape[1])
    step = max(1, SCORES_AT_ONCE // per_row)
    slices = [slice(at, at + step) for at in range(0, query.shape[0], step)]
    blocks = [_two_blocks(query[s], key[s], value[s], attention_mask[s], shared) for s in slices]
    return torch.cat(blocks).transpose(1, 2), None


def _two_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    shared: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """One softmax over the shared prefix's scores and the row's own; `query` comes scaled."""
    keys, values = shared
    rows, heads, queries, dim = query.shape
    groups = heads // keys.shape[0]
    grouped = query.reshape(rows, keys.shape[0], groups * queries, dim)
    together = grouped.transpose(0, 1).reshape(keys.shape[0], -1, dim)
    first = (together @ keys.transpose(1, 2)).view(keys.shape[0], rows, groups * queries, -1).transpose(0, 1)
    own = grouped @ key.transpose(2, 3)
    hidden = ~mask.expand(rows, 1, queries, -1).repeat(1, 1, groups, 1)
    own = own.masked_fill(hidden, torch.finfo(own.dtype).min)
    weights = torch.cat([first, own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    split = first.shape[-1]
    of_prefix = weights[..., :split].transpose(0, 1).reshape(keys.shape[0], -1, split) @ values
    of_own = weights[..., split:] @ value
    mixed = of_prefix.view(keys.shape[0], rows, groups * queries, dim).transpose(0, 1) + of_own
    return mixed.reshape(rows, heads, queries, dim)


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
