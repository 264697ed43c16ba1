"""LoRA layers without peft's casts, scaling and extra additions.

peft casts the input to fp32, computes the adapter's output from it, scales it and adds it to the base layer's output.
Here one function has a handwritten forward and backward pass: it computes in the layer's dtype, folds the scale into B,
fuses the addition into the matmul (`addmm_`), and keeps only the input and the rank-r product for the backward pass.
The adapters stay fp32. In fp32 the result equals peft's up to rounding. 4-bit weights are dequantised for each matmul
and not kept. A 7B model's step has hundreds of these matmuls, so Python overhead is kept small, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["FusedLora", "bf16_copies", "fuse_lora"]


def fuse_lora(model: Any) -> int:
    """Replace the forward pass of the plain LoRA layers of `model` by `FusedLora`; return how many there are.

    Layers with 8-bit weights, with dropout, and variants such as DoRA are left to peft.
    """
    from peft.tuners.lora import LoraLayer

    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and _is_plain(layer)]
    for layer in layers:
        layer.forward = FusedLora(layer)
    return len(layers)


@contextmanager
def bf16_copies(products: Sequence[FusedLora]) -> Iterator[None]:
    """Make bf16 copies of all adapter weights once. The adapters must not change inside this context."""
    adapters = [tensor for product in products for tensor in product.adapters()]
    copies = [torch.empty_like(tensor, dtype=torch.bfloat16) for tensor in adapters]
    if copies:
        torch._foreach_copy_(copies, [tensor.detach() for tensor in adapters])
        torch._foreach_mul_(copies[1::2], [product.scale for product in products])
    for number, product in enumerate(products):
        product.copies = copies[2 * number], copies[2 * number + 1]
    try:
        yield
    finally:
        for product in products:
            product.copies = None


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


class FusedLora:
    """Replaces a LoRA layer's `forward`. `copies`: bf16 copies of A and of the scaled B, see `bf16_copies`."""

    def __init__(self, layer: Any) -> None:
        self.copies: tuple[Tensor, Tensor] | None = None
        self.scale = float(layer.scaling["default"])
        self._layer = layer
        self._packed: _Packed | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """`[..., in]` -> `[..., out]`."""
        layer = self._layer
        if layer.disable_adapters or layer.merged:
            return type(layer).forward(layer, inputs)
        down, up = self.adapters()
        copies = self.copies if inputs.dtype == torch.bfloat16 else None
        if copies is None:
            copies = down.detach().to(inputs.dtype), (up.detach() * self.scale).to(inputs.dtype)
        output: Tensor = _LoraFunction.apply(inputs, down, up, self, copies)
        return output

    def adapters(self) -> tuple[Tensor, Tensor]:
        """A `[r, in]` and B `[out, r]`, fp32."""
        return self._layer.lora_A["default"].weight, self._layer.lora_B["default"].weight

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """The base layer's bias."""
        bias = self._layer.get_base_layer().bias
        return None if bias is None else bias.to(dtype)

    def weight(self, dtype: torch.dtype) -> Tensor:
        """The base layer's weight `[out, in]`, dequantised if it is 4-bit."""
        weight = self._layer.get_base_layer().weight
        state = getattr(weight, "quant_state", None)
        if state is None:
            return weight
        if self._packed is None or self._packed.state is not state:
            self._packed = _packed(weight, state)
        return _unpacked(self._packed).to(dtype)


class _Packed(NamedTuple):
    """A 4-bit matrix as plain tensors, because attribute access on bitsandbytes' own class is slow."""

    state: Any
    bits: Tensor
    scales: Tensor
    offset: Tensor | None


def _packed(weight: Any, state: Any) -> _Packed:
    bits = weight.data.as_subclass(Tensor)
    return _Packed(state, bits, state.absmax, state.offset if state.nested else None)


def _unpacked(packed: _Packed) -> Tensor:
    """Bit for bit the result of `bitsandbytes.functional.dequantize_4bit`."""
    state, ops = packed.state, torch.ops.bitsandbytes
    scales = packed.scales
    if packed.offset is not None:
        steps = state.state2
        scales = ops.dequantize_blockwise.default(scales, steps.absmax, steps.code, steps.blocksize, torch.float32)
        scales.add_(packed.offset)
    unpacked: Tensor = ops.dequantize_4bit.default(
        packed.bits, scales, state.blocksize, state.quant_type, state.shape, state.dtype
    )
    return unpacked


class _LoraFunction(torch.autograd.Function):  # type: ignore[misc]
    """`x W' + b + s (x A') B'` for inputs `[..., in]`; W `[out, in]` and b are frozen, A is `[r, in]`, B `[out, r]`.

    `copies` are A and sB in the dtype of the inputs; A and B themselves are arguments so that they get gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, _down: Tensor, _up: Tensor, product: FusedLora, copies: tuple[Tensor, Tensor]
    ) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        narrow = rows @ copies[0].t()
        ctx.save_for_backward(rows, narrow)
        ctx.product, ctx.copies = product, copies
        output = nn.functional.linear(rows, product.weight(rows.dtype), product.bias(rows.dtype))
        output.addmm_(narrow, copies[1].t())
        # Not `view`: some models (Gemma 3n) change the result in place, which autograd forbids for views.
        return torch.ops.aten._unsafe_view.default(output, [*inputs.shape[:-1], output.shape[-1]])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        rows, narrow = ctx.saved_tensors
        (down, up), product = ctx.copies, ctx.product
        outputs = gradient.reshape(-1, gradient.shape[-1])
        narrowed = outputs @ up
        d_inputs = None
        if ctx.needs_input_grad[0]:
            d_inputs = (outputs @ product.weight(outputs.dtype)).addmm_(narrowed, down)
            d_inputs = d_inputs.view(*gradient.shape[:-1], -1)
        d_down, d_up = _fp32_product(narrowed.t(), rows), _fp32_product(outputs.t(), narrow).mul_(product.scale)
        return d_inputs, d_down, d_up, None, None


def _fp32_product(one: Tensor, two: Tensor) -> Tensor:
    """The matrix product in fp32; a GPU writes fp32 directly, without a cast afterwards."""
    if one.is_cuda and one.dtype != torch.float32:
        return torch.mm(one, two, out_dtype=torch.float32)
    return (one @ two).float()
