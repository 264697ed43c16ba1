"""LoRA's products without what peft does around them: casts, scalings and additions, which cost time.

peft computes an adapter's part in fp32 from a copy of the input in fp32, scales it and adds it to the layer's own
output. Here one function has forward and backward by hand: in the layer's number type, the scale folded into B, the
addition done by the product (`addmm_`), and only the layer's input and the narrow product kept for the backward pass.
The adapters themselves stay fp32. In fp32 the result is peft's up to rounding. 4-bit weights are unpacked for each
product and not kept.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["use_lean_products"]


def use_lean_products(model: Any) -> int:
    """Compute the plain LoRA layers of `model` leanly; how many there are.

    Left to peft: layers on 8-bit weights, with dropout, and variants such as DoRA.
    """
    from peft.tuners.lora import LoraLayer

    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and _is_plain(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    return len(layers)


def _is_plain(layer: Any) -> bool:
    base = layer.get_base_layer()
    return (
        (type(base) is nn.Linear or type(base).__name__ == "Linear4bit")
        and not any(parameter.requires_grad for parameter in base.parameters())
        and layer.active_adapters == ["default"]
        and isinstance(layer.lora_dropout["default"], nn.Identity)
        and not layer.lora_variant
        and not layer.lora_bias["default"]
    )


def _forward(layer: Any, inputs: Tensor) -> Tensor:
    if layer.disable_adapters or layer.merged:
        return type(layer).forward(layer, inputs)
    base, down, up = layer.get_base_layer(), layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return _LoraProduct.apply(inputs, base.weight, base.bias, down, up, layer.scaling["default"])


def _unpacked(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`[out, in]`, out of 4 bits if it is packed in them."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, state).to(dtype)


class _LoraProduct(torch.autograd.Function):  # type: ignore[misc]
    """`x W' + b + s (x A') B'` for inputs `[..., in]`; W `[out, in]` and b are frozen, A is `[r, in]`, B `[out, r]`."""

    @staticmethod
    def forward(  # noqa: PLR0917 - what `apply` is given
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        down, up = down.to(rows.dtype), (up * scale).to(rows.dtype)
        narrow = rows @ down.t()
        ctx.save_for_backward(rows, down, up, narrow)
        ctx.weight, ctx.scale = weight, scale
        whole, added = _unpacked(weight, rows.dtype), None if bias is None else bias.to(rows.dtype)
        return nn.functional.linear(rows, whole, added).addmm_(narrow, up.t()).view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        rows, down, up, narrow = ctx.saved_tensors
        outputs = gradient.reshape(-1, gradient.shape[-1])
        narrowed = outputs @ up
        of_inputs = None
        if ctx.needs_input_grad[0]:
            whole = _unpacked(ctx.weight, outputs.dtype)
            of_inputs = (outputs @ whole).addmm_(narrowed, down).view(*gradient.shape[:-1], -1)
        of_down = (narrowed.t() @ rows).float()
        of_up = (outputs.t() @ narrow).float() * ctx.scale
        return of_inputs, None, None, of_down, of_up, None
