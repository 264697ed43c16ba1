"""Models that are more than a dense decoder: those that also see, and mixtures of experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    Gemma3Config,
    GptOssConfig,
    MambaConfig,
    PreTrainedConfig,
    Qwen3MoeConfig,
)

from agentft.errors import InputError
from agentft.models.hf import HfEngine
from agentft.training.loading import expert_notes, load_model
from agentft.training.planner import dimensions
from agentft.training.recipe import Recipe
from tests.tiny import SHAPE, tiny_tokenizer

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 28, "patch_size": 14}
TEXT: dict[str, Any] = SHAPE | {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}
SEEING = {"mm_tokens_per_image": 4, "image_token_index": 399, "boi_token_index": 398, "eoi_token_index": 397}


def saved(folder: Path, config: PreTrainedConfig) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path, **settings: Any) -> tuple[Recipe, Any]:
    given = {"method": "lora", "dtype": "fp32", "sharing": "off", "unpack": "off", "host_embeddings": "off"}
    recipe = Recipe(model=str(folder), **(given | settings))
    return recipe, load_model(recipe, str(folder))


@pytest.mark.parametrize("layers", [0, 1])
def test_only_the_part_that_reads_text_is_adapted(tmp_path: Path, layers: int) -> None:
    folder = saved(tmp_path / "model", Gemma3Config(text_config=TEXT, vision_config=VISION, **SEEING))
    _, model = loaded(folder, lora_layers=layers)
    adapted = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert adapted
    assert all(".language_model.layers." in name for name in adapted)
    assert model.get_base_model().config.get_text_config().use_cache, "a full run saves the config"


def test_the_context_of_a_model_that_sees_is_that_of_its_text(tmp_path: Path) -> None:
    text = TEXT | {"max_position_embeddings": 300}
    folder = saved(tmp_path / "model", Gemma3Config(text_config=text, vision_config=VISION, **SEEING))
    assert HfEngine.open(str(folder)).context == 300


def test_experts_without_an_adapter_are_named(tmp_path: Path) -> None:
    recipe, model = loaded(saved(tmp_path / "model", GptOssConfig(**SHAPE, num_local_experts=4)))
    (note,) = expert_notes(recipe, model)
    assert note.startswith("89% of the weights of the layers are not adapted by peft, such as layers.0.mlp.experts.")


def test_experts_that_are_not_quantised_are_named(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(**SHAPE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64)
    folder = saved(tmp_path / "model", config)
    assert not list(expert_notes(*loaded(folder)))
    recipe, model = loaded(folder, method="qlora", dtype="bf16")
    (note,) = expert_notes(recipe, model)
    assert note.startswith(
        "88% of the weights of the layers are not quantised by bitsandbytes, such as layers.0.mlp.exp"
    )
    assert any(part.dim() == 3 and part.dtype == torch.bfloat16 for part in model.parameters())


def test_the_output_of_mamba_layers_has_no_adapter(tmp_path: Path) -> None:
    mamba = {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1}
    _, model = loaded(saved(tmp_path / "model", FalconH1Config(**SHAPE, **mamba)))
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert {"in_proj", "q_proj", "o_proj", "down_proj"} <= adapted
    assert "out_proj" not in adapted


def test_a_model_without_attention_has_no_plan() -> None:
    with pytest.raises(InputError, match=r"\(mamba\) has no attention heads, which the planner does not cover"):
        dimensions(MambaConfig())
