"""What makes a GPU's step faster or leaner, each lever alone: none changes what is computed beyond rounding."""

from __future__ import annotations

import importlib.util
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
    """Norms, rotary positions and gated layers by Liger's kernels, for the families that it knows."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

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
    """In layers that keep their activations, do not keep the product of gate and up, which is quick to have again.

    Layers without an `mlp` of `gate_proj`, `up_proj` and `down_proj` with SiLU are left alone. `gated` is
    `silu(gate) * up`; None: Liger's. Returns how many layers do it.
    """
    product = gated or _liger_product()
    layers = [
        layer
        for layer in getattr(model.get_decoder(), "layers", ())
        if not layer.gradient_checkpointing and _is_silu(layer)
    ]
    for layer in layers:
        layer.mlp.forward = partial(_frugal_mlp, layer.mlp, product)
    return len(layers)


def _liger_product() -> Callable[[Tensor, Tensor], Tensor]:
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    chosen: Callable[[Tensor, Tensor], Tensor] = LigerSiLUMulFunction.apply
    return chosen


def _is_silu(layer: Any) -> bool:
    mlp = getattr(layer, "mlp", None)
    parts = all(hasattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj"))
    # Liger puts its own class, which knows no other activation, in the place of the family's for all later models.
    return parts and (
        isinstance(getattr(mlp, "act_fn", None), nn.SiLU | SiLUActivation) or type(mlp).__name__ == "LigerSwiGLUMLP"
    )


def _frugal_mlp(mlp: Any, product: Callable[[Tensor, Tensor], Tensor], inputs: Tensor) -> Tensor:
    gate, up = mlp.gate_proj(inputs), mlp.up_proj(inputs)
    whole = product(gate, up)
    place, size = whole.data_ptr(), whole.numel()  # not itself, which these functions would keep

    def pack(kept: Tensor) -> Tensor | torch.Size:
        return kept.shape if kept.data_ptr() == place and kept.numel() == size else kept

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        if not isinstance(kept, torch.Size):
            return kept
        # The product's own backward pass, which may write over gate and up, comes after that of the layer on top of it.
        with torch.no_grad():
            return product(gate.detach(), up.detach()).view(kept)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        output: Tensor = mlp.down_proj(whole)
    return output


class HostEmbedding(nn.Module):  # type: ignore[misc]
    """A frozen embedding whose table stays in the host's memory; only the rows that are looked up travel.

    The table is no parameter, so nothing moves it. Rows are gathered in locked memory, from where they travel three
    times as fast. `tokens`: the next call's on the host, if its caller has them, or a GPU would be waited for.
    """

    def __init__(self, table: Tensor, device: torch.device) -> None:
        super().__init__()
        self.table = table.detach().to("cpu")
        self.device = device
        self.tokens: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """`[...]` -> `[..., d]` on the device."""
        places = (tokens.to("cpu") if self.tokens is None else self.tokens).flatten()
        self.tokens = None
        shape, locked = (len(places), self.table.shape[1]), self.device.type == "cuda"
        rows = torch.empty(shape, dtype=self.table.dtype, pin_memory=locked)
        torch.index_select(self.table, 0, places, out=rows)
        return rows.to(self.device, non_blocking=True).view(*tokens.shape, -1)


def embed_on_host(model: Any) -> int:
    """Keep the table of input embeddings in the host's memory, if it is not the head's too; the bytes that it frees."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    table = embedding.weight
    if type(embedding) is not nn.Embedding or table.requires_grad or (head is not None and head.weight is table):
        return 0
    model.set_input_embeddings(HostEmbedding(table, table.device))
    return int(table.numel()) * int(table.element_size())
