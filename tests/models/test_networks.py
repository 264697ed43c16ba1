"""Models that cannot be trained or asked as they are: each is refused before it could answer with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from agentft.errors import InputError, MissingError
from agentft.export.merging import merge_run
from agentft.models.hf import HfEngine, quantisation
from agentft.models.tokenizers import load_base, load_tokenizer
from agentft.runs import FinishedRun
from agentft.training.loading import load_model
from agentft.training.recipe import Recipe
from agentft.training.resolve import read_architecture
from tests.tiny import SHAPE, save_tiny, tiny_model

ENCODERS = {
    "bert": (transformers.BertForMaskedLM, transformers.BertConfig, {}),
    "bert-classifier": (transformers.BertForSequenceClassification, transformers.BertConfig, {}),
    "roberta": (transformers.RobertaModel, transformers.RobertaConfig, {}),
    "distilbert": (transformers.DistilBertForMaskedLM, transformers.DistilBertConfig, {"dim": 32, "n_heads": 2}),
    "t5": (transformers.T5ForConditionalGeneration, transformers.T5Config, {"d_model": 16, "d_kv": 8, "num_heads": 2}),
    "vit": (transformers.ViTForImageClassification, transformers.ViTConfig, {}),
}


def not_implemented(*_: object) -> None:
    raise NotImplementedError


@pytest.mark.parametrize("name", ENCODERS)
def test_a_model_that_does_not_write_text_is_refused(name: str, tmp_path: Path) -> None:
    kind, config, more = ENCODERS[name]
    folder = save_tiny(tmp_path / "model")
    kind(config(**{**SHAPE, **more})).save_pretrained(folder)
    for load in (HfEngine.open, lambda where: read_architecture(Recipe(model=where))):
        with pytest.raises(InputError, match=r"is no causal language model, so it cannot write; use one"):
            load(str(folder))


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("kind", ["LlamaForSequenceClassification", "LlamaForTokenClassification", "LlamaModel"])
def test_a_reward_or_embedding_model_has_no_head_and_is_refused(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    config = tiny_model().config.__class__(**{**SHAPE, "tie_word_embeddings": False})
    getattr(transformers, kind)(config).save_pretrained(folder)
    with pytest.raises(InputError, match=r"lack 1 of the weights of LlamaForCausalLM \(lm_head.weight\).* random"):
        load_base(str(folder), str(folder))


def test_a_config_with_far_more_weights_than_the_files_is_refused_before_they_are_made(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    change_config(folder, num_hidden_layers=900, num_attention_heads=64, hidden_size=4096, intermediate_size=16384)
    with pytest.raises(
        InputError, match=r"config.json of .* describes [\d,]{15} weights, but its files hold [\d,]{7} b"
    ):
        HfEngine.open(str(folder))


def test_weights_that_are_in_no_file_are_never_random(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    lacking = {name: weight for name, weight in weights.items() if "up_proj" not in name}
    save_file(lacking, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack 2 of the weights .*layers.0.mlp.up_proj.weight\), which would be rand"):
        HfEngine.open(str(folder))
    cut = {name: weight[:5] if "up_proj" in name else weight.clone() for name, weight in weights.items()}
    save_file(cut, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"cannot be loaded .*: its files are damaged, or the installed transformers does not know"
    ):
        HfEngine.open(str(folder))


def test_a_config_that_is_no_object_is_damaged(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    (folder / "config.json").write_text("[]")
    with pytest.raises((InputError, MissingError), match=r"damaged|cannot be loaded"):
        HfEngine.open(str(folder))
    with pytest.raises((InputError, MissingError), match=r"damaged|cannot be loaded"):
        read_architecture(Recipe(model=str(folder)))


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq"])
def test_a_library_that_quantised_weights_need_is_named(method: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    change_config(folder, quantization_config={"quant_method": method, "bits": 4, "group_size": 128})
    with pytest.raises(MissingError, match=r"cannot be loaded \(.*(requires|not available)"):
        HfEngine.open(str(folder))


def test_weights_of_8_bits_are_read_with_their_scales(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    weights: dict[str, torch.Tensor] = {}
    for name, weight in tiny_model().state_dict().items():
        if name == "lm_head.weight":
            continue
        weights[name] = weight.clone()
        if "proj" in name:
            scale = weight.abs().max() / 448
            weights[name] = (weight / scale).to(torch.float8_e4m3fn)
            weights[f"{name}_scale_inv"] = scale.reshape(1, 1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    scheme = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    change_config(folder, quantization_config=scheme)
    with pytest.raises(InputError, match="are quantised already; use --method lora, or --bits 16"):
        load_base(str(folder), str(folder), quantization_config=quantisation(4, torch.float32))
    read = load_base(str(folder), str(folder), dtype=torch.float32, quantization_config=None).state_dict()
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.allclose(read[name], tiny_model().state_dict()[name], atol=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_an_adapter_of_a_base_with_4_bits_in_its_files_is_merged_into_unrounded_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such files are read with their own bits, whatever the run says: `--method lora`."""
    folder, ids = save_tiny(tmp_path / "model"), torch.tensor([[*range(3, 60)]])
    loading = quantisation(4, torch.bfloat16)
    load_base(str(folder), str(folder), quantization_config=loading).save_pretrained(folder)
    tuned = get_peft_model(load_base(str(folder), str(folder)), LoraConfig(target_modules=["up_proj"]))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    tuned.save_pretrained(tmp_path / "adapter")
    expected = tuned.eval()(ids).logits.float()
    for bits in (16, 32):
        engine = HfEngine.open(str(folder), tmp_path / "adapter", bits)
        assert not hasattr(engine._model.model.layers[0].mlp.up_proj.weight, "quant_state")
        assert (engine._model(ids).logits - expected).norm() < 0.02 * expected.norm()
    run = FinishedRun(tmp_path, str(folder), "hermes", tmp_path / "adapter", False, False, ())
    agreement = merge_run(run, ids.tolist(), tmp_path / "merged", load_tokenizer(str(folder)))
    assert agreement.relative < 0.02
    assert {one.dtype for one in load_file(tmp_path / "merged" / "model.safetensors").values()} == {torch.bfloat16}
    with monkeypatch.context() as patch:
        patch.setattr(type(tuned.get_base_model()), "dequantize", not_implemented)
        unmerged = HfEngine.open(str(folder), tmp_path / "adapter")._model(ids).logits
        assert (unmerged - expected).norm() < 0.02 * expected.norm()
        with pytest.raises(InputError, match="cannot be dequantised; export --to adapter"):
            merge_run(run, ids.tolist(), tmp_path / "other", load_tokenizer(str(folder)))
    with pytest.raises(InputError, match="are quantised, so they cannot be trained; use --method lora"):
        load_model(Recipe(model=str(folder), method="full", dtype="fp32"), str(folder))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")  # else pytest itself would raise it
def test_an_adapter_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    adapted = get_peft_model(tiny_model(), LoraConfig(target_modules=["up_proj"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(tmp_path / "adapter")
    assert HfEngine.open(str(folder), tmp_path / "adapter").name.startswith(str(folder))
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.1" not in name}
    save_file(kept, tmp_path / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"cannot be loaded \(.*missing adapter keys.*\): its files are damaged"):
        HfEngine.open(str(folder), tmp_path / "adapter")
