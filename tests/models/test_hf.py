"""The weights that a model is opened with."""

from __future__ import annotations

import gc
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from agentft.errors import InputError
from agentft.models.hf import HfEngine, dequantise, quantisation
from agentft.models.tokenizers import load_base
from tests.tiny import save_tiny, tiny_model

IDS = torch.arange(3, 40)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with its tokenizer, and in `adapter/` an adapter that changes its output."""
    from peft import LoraConfig, get_peft_model

    place = save_tiny(tmp_path_factory.mktemp("model"))
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads a deprecated property of transformers
        tuned = get_peft_model(tiny_model(), LoraConfig(target_modules="all-linear", init_lora_weights=False))
        tuned.save_pretrained(str(place / "adapter"))
    return place


def logits(folder: Path, bits: int, *, rounded: bool = False, adapter: bool = True) -> torch.Tensor:
    made: Any = HfEngine.open(str(folder), folder / "adapter" if adapter else None, bits, rounded=rounded)
    with torch.inference_mode():
        result: torch.Tensor = made._model(IDS).logits.float()
    return result


def test_rounded_weights_equal_4_bit_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentft.models.hf.native_bf16", lambda: False)
    # Where the CPU has AVX512-BF16, bitsandbytes multiplies in bf16 whatever the type of the inputs.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    packed, rounded, whole = (logits(folder, 4), logits(folder, 16, rounded=True), logits(folder, 16))
    torch.testing.assert_close(rounded, packed, rtol=1e-4, atol=1e-4)
    assert (whole - packed).abs().max() > 1e-2
    bare = logits(folder, 4, adapter=False)
    assert (bare - packed).abs().max() > 1e-2


def test_32_bits_compute_in_fp32_where_16_compute_in_bf16(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentft.models.hf.native_bf16", lambda: True)
    for bits, dtype in ((16, torch.bfloat16), (32, torch.float32)):
        model: Any = HfEngine.open(str(folder), folder / "adapter", bits, rounded=True)._model
        assert {part.dtype for part in model.parameters()} == {dtype}
        assert type(model.get_decoder().layers[0].mlp.up_proj) is torch.nn.Linear
    with pytest.raises(InputError, match="use 4, 8, 16 or 32"):
        HfEngine.open(str(folder), None, 12)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_weights_are_freed_once_they_are_dequantised(folder: Path, bits: int) -> None:
    """A 7B kept 3 GiB of them on the GPU, until the garbage collector came by."""
    settings = quantisation(bits, torch.float32)
    model = load_base(str(folder), str(folder), dtype=torch.float32, quantization_config=settings, device_map=None)
    gc.collect()
    gc.disable()
    try:
        packed = [
            weakref.ref(part) for part in model.modules() if hasattr(part, "weight") and "bit" in type(part).__name__
        ]
        assert packed
        model = dequantise(model)
        assert not any(part() for part in packed)
    finally:
        gc.enable()
    assert model.get_decoder().layers[0].mlp.up_proj.weight.dtype == torch.float32
