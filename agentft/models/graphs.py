"""Decoding steps of a fixed shape, replayed from a CUDA graph.

A step of a small model is a thousand kernels of a few microseconds each, so that a GPU waits for Python. Recorded once
as a graph, a step is one launch. For that, its tensors stay where they are: keys and values have room for more tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

__all__ = ["ROOM", "FixedSteps", "fits_graph"]

ROOM = 256
"""How many more tokens of each row there is room for; then the steps are recorded again."""


def fits_graph(model: Any) -> bool:
    """Whether this model's steps can be recorded: it is on an NVIDIA GPU, and none of its kernels waits for the CPU."""
    kinds = getattr(model.config, "rope_parameters", None) or {}
    return (
        model.device.type == "cuda"
        and not getattr(model, "is_quantized", False)
        and isinstance(model.get_input_embeddings(), torch.nn.Embedding)  # a table in host memory is read by the CPU
        and kinds.get("rope_type", "default") in {"default", "linear", "llama3", "yarn"}
    )


class _FixedLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """The keys and values of a layer, `[rows, key heads, room, dim]`; new ones are written at `column`."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int, column: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = (
            torch.nn.functional.pad(known, (0, 0, 0, room - known.shape[2])) for known in (keys, values)
        )
        self._room = room
        self._column = column
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is left to do."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the keys and values of one new token, and return all of them with the room behind them."""
        self.keys.index_copy_(2, self._column, key_states)
        self.values.index_copy_(2, self._column, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002
        """(room, 0)."""
        return self._room, 0

    def get_seq_length(self) -> int:
        """The room; masks and positions are given by the caller."""
        return self._room

    def get_max_length(self) -> int:
        """The room."""
        return self._room


class FixedSteps:
    """Steps of one token for each row, after the tokens in `cache`, until `full`.

    Args:
        model: a causal model of transformers.
        cache: the layers' keys `[rows, key heads, tokens, dim]` and values so far.
        is_token: `[rows, tokens]`, False for padding.
        options: further arguments of the model.
    """

    def __init__(self, model: Any, cache: Any, is_token: torch.Tensor, options: dict[str, Any]) -> None:
        rows, known = is_token.shape
        room = known + ROOM
        device = is_token.device
        self._left = ROOM
        self._column = torch.tensor([known], device=device)
        self._ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._positions = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._mask = torch.nn.functional.pad(is_token, (0, room - known))[:, None, None]
        self.cache = Cache([_FixedLayer(layer.keys, layer.values, room, self._column) for layer in cache.layers])
        self._options = options
        self._model = model
        self._logits = torch.empty(0)
        self._replay: Callable[[], None] = self._run
        if device.type == "cuda":
            self._replay = self._record()

    @property
    def full(self) -> bool:
        """Whether there is no room for another token."""
        return self._left == 0

    def step(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Run one new token of each row, `[rows, 1]` at these positions; return the logits `[rows, vocabulary]`, fp32.

        The logits are overwritten by the next step.
        """
        self._ids.copy_(ids)
        self._positions.copy_(positions)
        self._replay()
        self._column.add_(1)
        self._left -= 1
        return self._logits

    def _run(self) -> None:
        """The step itself. Run twice, it writes the same."""
        self._mask.index_fill_(3, self._column, True)
        output = self._model(
            input_ids=self._ids,
            position_ids=self._positions,
            attention_mask=self._mask,
            cache=self.cache,
            use_cache=True,
            **self._options,
        )
        self._logits = output.logits[:, -1].float()

    def _record(self) -> Callable[[], None]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._run()  # what is set up on first use must not be recorded
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        replay: Callable[[], None] = graph.replay
        return replay
