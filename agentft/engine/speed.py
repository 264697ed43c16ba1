"""Independent optimisations of time or memory on a GPU. None changes results beyond rounding."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

__all__ = ["HostEmbedding", "embed_on_host", "has_liger", "recompute_gates", "use_liger"]


def has_liger() -> bool:
    """Whether Liger's kernels can be used here."""
    return torch.cuda.is_available() and importlib.util.find_spec("liger_kernel") is not None


def use_liger(model: Any) -> None:
    """Use Liger's kernels for norms, rotary embeddings and gated MLPs, for the model families that Liger supports."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    logging.getLogger("liger_kernel").setLevel(logging.ERROR)  # it warns of backends for other accelerators
    _apply_liger_kernel_to_instance(
        model=model,
        rope=True,
        rms_norm=True,
        swiglu=True,
        geglu=True,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
    )


def recompute_gates(model: Any, gated: Callable[[Tensor, Tensor], Tensor] | None = None) -> int:
    """In layers without checkpointing, recompute `silu(gate) * up` in the backward pass instead of keeping it.

    Layers without an `mlp` of `gate_proj`, `up_proj` and `down_proj` with SiLU do not change. `gated` computes
    `silu(gate) * up`; None: Liger's kernel. Returns the number of layers that recompute.
    """
    product = gated or _liger_product()
    layers = [
        layer
        for layer in getattr(model.get_decoder(), "layers", ())
        if not layer.gradient_checkpointing and _is_silu(layer)
    ]
    for layer in layers:
        layer.mlp.forward = partial(_recomputing_mlp, layer.mlp, product)
    return len(layers)


def _liger_product() -> Callable[[Tensor, Tensor], Tensor]:
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    product: Callable[[Tensor, Tensor], Tensor] = LigerSiLUMulFunction.apply
    return product


def _is_silu(layer: Any) -> bool:
    mlp = getattr(layer, "mlp", None)
    parts = all(hasattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj"))
    # Liger replaces the family's MLP class for all later models; its class supports SiLU only.
    return parts and (
        isinstance(getattr(mlp, "act_fn", None), nn.SiLU | SiLUActivation) or type(mlp).__name__ == "LigerSwiGLUMLP"
    )


def _recomputing_mlp(mlp: Any, product: Callable[[Tensor, Tensor], Tensor], inputs: Tensor) -> Tensor:
    gate, up = mlp.gate_proj(inputs), mlp.up_proj(inputs)
    gated = product(gate, up)
    pointer, size = gated.data_ptr(), gated.numel()  # the closures must not keep `gated` itself alive

    def pack(saved: Tensor) -> Tensor | torch.Size:
        return saved.shape if saved.data_ptr() == pointer and saved.numel() == size else saved

    def unpack(saved: Tensor | torch.Size) -> Tensor:
        if not isinstance(saved, torch.Size):
            return saved
        # gate and up are still intact: the product's backward pass, which may overwrite them, runs after down_proj's.
        with torch.no_grad():
            return product(gate.detach(), up.detach()).view(saved)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        output: Tensor = mlp.down_proj(gated)
    return output


class HostEmbedding(nn.Module):  # type: ignore[misc]
    """A frozen embedding whose table stays in host memory; only the rows that are looked up are copied to the GPU.

    The table is not a parameter, so `model.to` does not move it. Rows are gathered in pinned memory, which makes the
    copy three times as fast. `tokens`: the next call's tokens on the host, if known; otherwise the call waits for the
    GPU to copy them.
    """

    def __init__(self, table: Tensor, device: torch.device) -> None:
        super().__init__()
        self.table = table.detach().to("cpu")
        self.num_embeddings = len(table)
        self.device = device
        self.tokens: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """`[...]` -> `[..., d]` on the device."""
        ids = (tokens.to("cpu") if self.tokens is None else self.tokens).flatten()
        self.tokens = None
        shape, pinned = (len(ids), self.table.shape[1]), self.device.type == "cuda"
        rows = torch.empty(shape, dtype=self.table.dtype, pin_memory=pinned)
        torch.index_select(self.table, 0, ids, out=rows)
        return rows.to(self.device, non_blocking=True).view(*tokens.shape, -1)


def embed_on_host(model: Any) -> int:
    """Keep frozen input embeddings in host memory unless they are tied to the LM head; return the freed bytes."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    table = embedding.weight
    if type(embedding) is not nn.Embedding or table.requires_grad or (head is not None and head.weight is table):
        return 0
    model.set_input_embeddings(HostEmbedding(table, table.device))
    return int(table.numel()) * int(table.element_size())
