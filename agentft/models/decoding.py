"""Batched decoding of prompts with a common prefix, which is computed and stored once instead of once for each row.

Attention of a row over `[shared prefix, own tokens]` is one softmax over two blocks of scores. The prefix's keys and
values are not repeated for each row, so a step reads them once for all rows that share it. Finished rows are removed
from the batch from time to time. Models with other kinds of attention (sliding windows, soft caps, recurrence) use
the same loop without a prefix and with transformers' own attention, which is slower. On a GPU, steps are replayed from
a CUDA graph, and finished rows stay in the batch: removing them would need a new graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from agentft.engine.shared_prefix import attend_after
from agentft.models import Sampling
from agentft.models.graphs import FixedSteps, fits_graph

__all__ = ["ATTENTION", "OnPiece", "OnTokens", "Prefix", "Start", "can_share", "compute_prefix", "decode", "read_logs"]

ATTENTION = "agentft_shared_prefix"
PLAIN = frozenset({"llama", "qwen2", "qwen3", "mistral", "smollm3"})
# Maximum number of attention scores computed at once during prefill; larger batches are split.
SCORES_AT_ONCE = 2**27
ROWS = 16
PIECE = 256  # tokens of a prompt that are read before its reader may stop

OnTokens = Callable[[int, list[int]], bool]
"""(row, all its new tokens) -> whether the row is finished."""
OnPiece: TypeAlias = Callable[[], None] | None
"""Called after each piece of a long prompt, which it may abandon by raising; None: prompts are read at once."""


@dataclass(frozen=True)
class Prefix:
    """A computed prefix: its tokens, and each layer's keys and values, `[heads, tokens, dim]` each."""

    tokens: tuple[int, ...]
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    def cut(self, length: int) -> Prefix:
        """The prefix's first `length` tokens."""
        layers = tuple((keys[:, :length], values[:, :length]) for keys, values in self.layers)
        return Prefix(self.tokens[:length], layers)


@dataclass(frozen=True)
class Start:
    """The cached prefix of a prompt: the part shared between rows, then the row's own tokens (possibly none)."""

    shared: Prefix
    own: Prefix


def can_share(model: Any) -> bool:
    """Whether a shared prefix is exact for this model: it has full attention without windows, caps or recurrence."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        config.model_type in PLAIN and kinds == {"full_attention"} and not getattr(config, "use_sliding_window", False)
    )


def compute_prefix(model: Any, tokens: Sequence[int], on_piece: OnPiece = None) -> Prefix:
    """Compute a prefix."""
    cache = DynamicCache()
    for ids in torch.tensor([list(tokens)], device=model.device).split(PIECE if on_piece else len(tokens), dim=1):
        model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
        if on_piece is not None:
            on_piece()
    return Prefix(tuple(tokens), tuple((layer.keys[0], layer.values[0]) for layer in cache.layers))


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    starts: Sequence[Start],
    sampling: Sampling,
    on_tokens: OnTokens,
    *,
    on_piece: OnPiece = None,
) -> tuple[list[list[int]], list[Prefix]]:
    """Sample until every row is finished or has `max_new_tokens`.

    Args:
        prompts: complete prompts.
        starts: one for each prompt, which must start with its tokens and have at least one more. Prompts with the same
            shared prefix must be adjacent. If empty, the model's own attention is used.
        on_tokens: called after each step for each active row.
        on_piece: for a single prompt only.

    Returns:
        The new tokens of each row, including its last one; and the keys and values that each row computed after its
        shared prefix, for a later `Start` (empty without `starts`).
    """
    batch = _Batch(model, prompts, starts)
    if on_piece is not None:
        batch.read_ahead(on_piece)
    generated: list[list[int]] = [[] for _ in prompts]
    owns: dict[int, Prefix] = {}
    pick = _picker(sampling, torch.Generator(device=model.device).manual_seed(sampling.seed))
    active = list(range(len(prompts)))
    for number in range(1, sampling.max_new_tokens + 1):
        logits = batch.step()
        if sampling.repetition_penalty != 1:
            seen = [[*prompts[row], *generated[row]] for row in batch.rows]
            logits = _penalised(logits, seen, sampling.repetition_penalty)
        tokens = pick(logits)
        new, before, active = tokens.tolist(), active, []
        for index in before:
            row = batch.rows[index]
            generated[row].append(new[index])
            if not on_tokens(row, generated[row]) and number < sampling.max_new_tokens:
                active.append(index)
            elif starts:
                owns[row] = batch.computed(index, [*prompts[row], *generated[row][:-1]])
        if not active:
            break
        kept = list(range(len(new))) if batch.fixed else _kept(len(new), active)
        batch.advance(kept, tokens)
        active = [kept.index(index) for index in active]
    return generated, [owns[row] for row in range(len(owns))]


def read_logs(
    model: Any, rows: Sequence[Sequence[int]], starts: Sequence[Start], counts: Sequence[int]
) -> list[list[float]]:
    """The log-probability of each of a row's last `counts[i]` tokens given all before it, in one pass.

    `starts` as in `decode`; none may reach into these tokens.
    """
    logits = _Batch(model, rows, starts).logits(torch.arange(-max(counts) - 1, 0))
    found = []
    for row, count, own in zip(rows, counts, logits, strict=True):
        logs = own[-count - 1 : -1].float().log_softmax(dim=-1)
        tokens = torch.tensor(row[-count:], device=logs.device)
        found.append(logs.gather(1, tokens[:, None])[:, 0].tolist())
    return found


def _kept(rows: int, active: list[int]) -> list[int]:
    """The rows that stay in the batch: the active ones, and finished ones up to a multiple of `ROWS`.

    oneDNN compiles its bf16 products for each new number of rows, which costs more than some useless rows.
    """
    spare = min(rows, -(-len(active) // ROWS) * ROWS) - len(active)
    finished = [index for index in range(rows) if index not in set(active)]
    return sorted(active + finished[:spare])


class _Batch:
    """The rows in the batch: their caches, masks, positions and next input tokens.

    `rows[i]`: the prompt of row i in the tensors. `_ids`: `[rows, new]`. `_is_token`: `[rows, own tokens]`.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], starts: Sequence[Start]) -> None:
        self._model = model
        self._starts = list(starts)
        self.fixed = bool(starts) and fits_graph(model)
        self._steps: FixedSteps | None = None
        self._cache: Any = DynamicCache(config=model.config)
        self.rows = list(range(len(prompts)))
        device = model.device
        owns = [len(start.own.tokens) for start in starts] or [0] * len(prompts)
        known = [len(start.shared.tokens) + len(start.own.tokens) for start in starts] or owns
        new = [torch.tensor(prompt[length:]) for prompt, length in zip(prompts, known, strict=True)]
        self._ids = _pad_left(new).to(device)
        fresh = _pad_left([torch.ones(len(row), dtype=torch.bool) for row in new]).to(device)
        self._positions = torch.tensor(known, device=device)[:, None] + (fresh.long().cumsum(1) - 1).clamp(min=0)
        cached = _pad_left([torch.ones(own, dtype=torch.bool) for own in owns]).to(device)
        self._is_token = torch.cat([cached, fresh], dim=1)
        # A tensor selects the last states as a contiguous copy; with a strided slice, the LM-head matmul takes seconds.
        self._last = torch.tensor([-1], device=device)
        for layer in range(len(starts[0].own.layers) if any(owns) else 0):
            computed = zip(*(start.own.layers[layer] for start in starts), strict=True)
            padded = [_pad_left([row.transpose(0, 1) for row in rows]).transpose(1, 2) for rows in computed]
            self._cache.update(*padded, layer)

    def read_ahead(self, on_piece: Callable[[], None]) -> None:
        """Run the new tokens of a single row, except the last piece of them."""
        while (rest := self._ids.shape[1] - PIECE) > 0:
            whole = self._ids, self._positions, self._is_token
            self._ids, self._positions = self._ids[:, :PIECE], self._positions[:, :PIECE]
            self._is_token = self._is_token[:, :-rest]
            self.logits(self._last)
            self._ids, self._positions, self._is_token = whole[0][:, PIECE:], whole[1][:, PIECE:], whole[2]
            on_piece()

    def step(self) -> torch.Tensor:
        """Run the new tokens; return the logits `[rows, vocabulary]` of the next token, fp32."""
        if self._steps is not None:
            return self._steps.step(self._ids, self._positions)
        return self.logits(self._last)[:, -1].float()

    def logits(self, kept: torch.Tensor) -> torch.Tensor:
        """Run the new tokens; return the logits `[rows, kept, vocabulary]` after the tokens at these places."""
        attention: dict[str, Any] = {"attention_mask": self._is_token.long()}
        if self._starts:
            mask = _mask(self._is_token, self._ids.shape[1])
            attention = {"attention_mask": mask, "shared_prefix": self._groups()}
        output = self._model(
            input_ids=self._ids,
            position_ids=self._positions,
            cache=self._cache,
            use_cache=True,
            logits_to_keep=kept.to(self._ids.device),
            **attention,
        )
        logits: torch.Tensor = output.logits
        return logits

    def _groups(self) -> list[tuple[Prefix, int]]:
        """The shared prefixes, each with the number of rows that begin with it."""
        prefixes = (start.shared for start in self._starts)
        return [(next(group), 1 + sum(1 for _ in group)) for _, group in groupby(prefixes, key=id)]

    def computed(self, index: int, tokens: Sequence[int]) -> Prefix:
        """The part of `tokens` that row `index` of the tensors has computed after its shared prefix."""
        real = self._is_token[index]
        known = len(real)
        layers = tuple(
            (layer.keys[index][:, :known][:, real], layer.values[index][:, :known][:, real])
            for layer in self._cache.layers
        )
        return Prefix(tuple(tokens[len(self._starts[index].shared.tokens) :]), layers)

    def advance(self, kept: list[int], tokens: torch.Tensor) -> None:
        """Keep these rows of the tensors, and append their new tokens."""
        if self.fixed and (self._steps is None or self._steps.full):
            options = {"shared_prefix": self._groups(), "logits_to_keep": self._last}
            self._steps = FixedSteps(self._model, self._cache, self._is_token, options)
            self._cache = self._steps.cache
        self._positions = self._positions[:, -1:] + 1
        self._ids = tokens[:, None]
        self._is_token = torch.cat([self._is_token, self._is_token.new_ones(len(tokens), 1)], dim=1)
        if len(kept) < len(self.rows):
            self._positions, self._ids = self._positions[kept], self._ids[kept]
            self._is_token = self._is_token[kept]
            self._cache.batch_select_indices(torch.tensor(kept, device=tokens.device))
            self.rows = [self.rows[index] for index in kept]
            self._starts = [self._starts[index] for index in kept] if self._starts else []


def _pad_left(rows: list[torch.Tensor]) -> torch.Tensor:
    """`[rows, longest, ...]` of tensors `[length, ...]`, padded with zeros on the left."""
    return pad_sequence(rows, batch_first=True, padding_side="left")


def _picker(sampling: Sampling, generator: torch.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a sampling function: logits `[rows, vocabulary]` -> tokens `[rows]`."""
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


def _penalised(logits: torch.Tensor, seen: Sequence[Sequence[int]], penalty: float) -> torch.Tensor:
    """The logits with those of each row's seen tokens made smaller (Keskar et al. 2019, section 4.1)."""
    logits = logits.clone()
    for row, tokens in enumerate(seen):
        places = torch.tensor(sorted(set(tokens)), device=logits.device)
        scores = logits[row, places]
        logits[row, places] = torch.where(scores < 0, scores * penalty, scores / penalty)
    return logits


def _mask(real: torch.Tensor, queries: int) -> torch.Tensor:
    """`[rows, 1, queries, own tokens]`, True where a query attends to a row's own token."""
    keys = real.shape[1]
    causal = torch.ones(queries, keys, dtype=torch.bool, device=real.device).tril(keys - queries)
    return causal[None, None] & real[:, None, None, :]


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query `[rows, heads, queries, dim]` -> `[rows, queries, heads, dim]`."""
    groups: list[tuple[Prefix, int]] | None = kwargs.pop("shared_prefix", None)
    if groups is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return plain
    query = query * (kwargs.get("scaling") or query.shape[-1] ** -0.5)
    blocks = []
    start = 0
    for prefix, rows in groups:
        shared = prefix.layers[module.layer_idx]
        per_row = query.shape[1] * query.shape[2] * (key.shape[2] + shared[0].shape[1])
        step = max(1, SCORES_AT_ONCE // per_row)
        for at in range(start, start + rows, step):
            s = slice(at, min(at + step, start + rows))
            blocks.append(attend_after(query[s], key[s], value[s], attention_mask[s], shared))
        start += rows
    return torch.cat(blocks).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
