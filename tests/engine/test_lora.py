"""`FusedLora` gives the same output and gradients as peft, and leaves variants that it does not support to peft."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from agentft.engine.lora import FusedLora, bf16_copies, fuse_lora
from tests.tiny import tiny_model

# peft reads a deprecated property of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


class Biased(nn.Module):  # type: ignore[misc]
    """Two layers, the first with a bias like Qwen's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 20)
        self.second = nn.Linear(20, 8, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        hidden *= 1.0  # in place, as Gemma 3n scales it: the output must not be a view
        result: Tensor = self.second(torch.tanh(hidden))
        return result


def adapted(model: Any, **settings: Any) -> Any:
    """The model with adapters whose B is not 0; otherwise the adapters would have no effect."""
    torch.manual_seed(3)
    tuned = get_peft_model(copy.deepcopy(model), LoraConfig(r=4, lora_alpha=8, **settings))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return tuned


def run(model: Any, inputs: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The output, the gradient of the inputs, and the gradients of the adapters."""
    fed = inputs.clone().requires_grad_()
    output = model(fed)
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    assert fed.grad is not None
    return output, fed.grad, [p.grad for p in model.parameters() if p.grad is not None]


def check_equal(plain: Any, lean: Any, inputs: Tensor, *, gradients: int, atol: float) -> None:
    expected, found = run(plain, inputs), run(lean, inputs)
    assert len(found[2]) == gradients
    for mine, theirs in zip((found[0], found[1], *found[2]), (expected[0], expected[1], *expected[2]), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=atol)


def test_output_and_gradients_equal_pefts() -> None:
    plain = adapted(Biased(), target_modules=["first", "second"])
    lean = copy.deepcopy(plain)
    assert fuse_lora(lean) == 2
    inputs = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1))

    check_equal(plain, lean, inputs, gradients=4, atol=1e-6)


def test_4_bit_layers_equal_pefts() -> None:
    import bitsandbytes

    torch.manual_seed(0)
    packed = nn.Sequential(bitsandbytes.nn.Linear4bit(64, 128, compute_dtype=torch.float32, quant_type="nf4"))
    packed[0].load_state_dict(nn.Linear(64, 128).state_dict())
    packed.is_loaded_in_4bit = True
    plain = adapted(packed.to("cpu"), target_modules=["0"])
    lean = copy.deepcopy(plain)
    assert fuse_lora(lean) == 1
    inputs = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))

    check_equal(plain, lean, inputs, gradients=2, atol=1e-5)


def test_every_projection_of_a_model_is_replaced_and_its_inputs_need_no_gradient() -> None:
    plain = adapted(tiny_model(), target_modules="all-linear", task_type="CAUSAL_LM")
    lean = copy.deepcopy(plain)
    assert fuse_lora(lean) == 7 * tiny_model().config.num_hidden_layers
    ids = torch.arange(3, 40)[None]

    losses = [model(input_ids=ids, labels=ids).loss for model in (plain, lean)]
    for loss in losses:
        loss.backward()

    torch.testing.assert_close(losses[1], losses[0])
    slopes = [torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in (plain, lean)]
    assert (slopes[1] - slopes[0]).norm() <= 1e-5 * slopes[0].norm()


def test_adapters_can_be_switched_off() -> None:
    lean = adapted(Biased(), target_modules=["first", "second"])
    fuse_lora(lean)
    inputs = torch.ones(2, 12)
    with lean.disable_adapter():
        off = lean(inputs)
    assert torch.equal(
        off, lean.base_model.model.second.base_layer(torch.tanh(lean.base_model.model.first.base_layer(inputs)))
    )
    assert not torch.allclose(off, lean(inputs))


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True, "bias": "none"}])
def test_variants_are_left_to_peft(settings: dict[str, Any]) -> None:
    assert fuse_lora(adapted(Biased(), target_modules=["first"], **settings)) == 0


@pytest.mark.parametrize("scale", [2.0, 0.7])
def test_bf16_copies_equal_casts_and_last_for_one_step(scale: float) -> None:
    model = adapted(Biased(), target_modules=["first", "second"]).bfloat16()
    fuse_lora(model)
    products = [part.forward for part in model.modules() if isinstance(getattr(part, "forward", None), FusedLora)]
    for product in products:
        product.scale = scale
    inputs = torch.randn(3, 5, 12, dtype=torch.bfloat16)
    expected = run(model, inputs)
    model.zero_grad()
    with bf16_copies(products):
        found = run(model, inputs)
    model.zero_grad()

    assert len(products) == 2
    for mine, plain in zip((found[0], found[1], *found[2]), (expected[0], expected[1], *expected[2]), strict=True):
        torch.testing.assert_close(mine, plain, rtol=0 if scale == 2.0 else 0.02, atol=0 if scale == 2.0 else 0.02)
    with torch.no_grad():
        model.base_model.model.first.lora_B["default"].weight.mul_(2)
    assert not torch.equal(run(model, inputs)[0], found[0])
