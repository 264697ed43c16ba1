"""Training methods: what each trains and saves, and that serving gives training's logits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from agentft.engine.noise import EmbeddingNoise
from agentft.engine.packing import epoch_packs
from agentft.errors import InputError
from agentft.export.merging import merge_run
from agentft.models.hf import HfEngine
from agentft.runs import FinishedRun
from agentft.training.encoder import open_encoder
from agentft.training.events import Event, StepDone
from agentft.training.loading import load_model
from agentft.training.loop import TrainingLoop
from agentft.training.machine import Machine
from agentft.training.optimizer import make_optimizer
from agentft.training.recipe import Recipe
from agentft.training.resolve import CPU_PACK, plan_cards, resolve_recipe
from agentft.training.state import save_result
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer
from tests.training.test_loop import SAMPLES, STEM

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
IDS = torch.tensor([[*STEM, 30, 40, 41]])
EMBEDDING = "base_model.model.model.embed_tokens"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "untied"
    model = tiny_model()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 0.9)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def recipe_of(model: Path, **settings: Any) -> Recipe:
    given: dict[str, Any] = {"method": "lora", "lr": 0.01, "warmup": 0.0, "dtype": "fp32", "sharing": "on"}
    given |= {"lora_r": 4, "lora_alpha": 8, "unpack": "off", "host_embeddings": "off"}
    return Recipe(model=str(model), **(given | settings))


def trained(recipe: Recipe) -> tuple[Any, list[float]]:
    model = load_model(recipe, recipe.model)
    events: list[Event] = []
    packs = epoch_packs(SAMPLES, 64, 0, 0, share=recipe.sharing == "on") * 4
    TrainingLoop(model, recipe, SAMPLES, packs, on_event=events.append).run()
    return model.eval(), [event.loss for event in events if isinstance(event, StepDone)]


def logits(model: Any) -> torch.Tensor:
    model.get_base_model().set_attn_implementation("sdpa")
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS.to(model.device)).logits.float().cpu()
    return found


def served(recipe: Recipe, model: Any, folder: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor], HfEngine]:
    """The logits of the saved adapter on the original base, the saved tensors, and the engine."""
    folder.mkdir()
    save_result(model, folder)
    if recipe.add_tokens:
        tokenizer: Any = open_encoder(recipe).tokenizer
        tokenizer.save_pretrained(str(folder))
    engine = HfEngine.open(recipe.model, folder, 16, rounded=recipe.bits * (recipe.method == "qlora"))
    with torch.no_grad():
        found = engine._model(input_ids=IDS.to(engine._model.device)).logits.float().cpu()
    return found, load_file(folder / "adapter_model.safetensors"), engine


def run_of(recipe: Recipe, path: Path) -> FinishedRun:
    """The run whose adapter `served` saved."""
    return FinishedRun(path, recipe.model, "msagent", path / "adapter", False, recipe.method == "qlora", ())


@pytest.mark.parametrize(
    "settings",
    [
        {"rslora": "on"},
        {"lora_init": "pissa"},
        {"lora_init": "pissa", "rslora": "on"},
        {"modules_to_save": ("embed_tokens",)},
        {"add_tokens": ("<call>", "<end>")},
        {"add_tokens": ("<call>",), "modules_to_save": ("lm_head",)},
        {"lora_init": "pissa", "modules_to_save": ("embed_tokens",)},
        {"lora_init": "pissa", "add_tokens": ("<call>",)},
        {"neftune_alpha": 5.0, "sharing": "off"},
        {"optimizer": "muon"},
        pytest.param({"method": "qlora"}, marks=pytest.mark.slow),
        pytest.param({"method": "qlora", "lora_init": "loftq"}, marks=pytest.mark.slow),
        pytest.param({"method": "qlora", "add_tokens": ("<call>",)}, marks=pytest.mark.slow),
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_serving_gives_the_logits_of_training(
    settings: dict[str, Any], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentft.models.hf.native_bf16", lambda: False)
    recipe = recipe_of(tiny, **settings)
    model, losses = trained(recipe)

    expected = logits(model)
    found, saved, _ = served(recipe, model, tmp_path / "adapter")

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert losses[-1] < losses[0]
    assert all(tensor.dtype == torch.float32 for tensor in saved.values())
    rank = 8 if recipe.lora_init == "pissa" else 4
    assert {tensor.shape[0] for name, tensor in saved.items() if "lora_A" in name} == {rank}
    assert not (tmp_path / "adapter" / "start").exists()


@pytest.mark.parametrize(
    ("settings", "kind"), [({}, "Linear4bit"), ({"bits": 8}, "Linear8bitLt"), ({"unpack": "on"}, "Linear")]
)
def test_frozen_weights_are_kept_as_the_recipe_says(settings: dict[str, Any], kind: str, tiny: Path) -> None:
    model = load_model(recipe_of(tiny, method="qlora", **settings), str(tiny))
    assert type(model.base_model.model.model.layers[0].self_attn.q_proj.base_layer).__name__ == kind


def test_rank_stabilised_lora_scales_by_the_root_of_the_rank(tiny: Path) -> None:
    layer = load_model(recipe_of(tiny, rslora="on"), str(tiny)).base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == layer.forward.scale == 8 / 4**0.5


def test_pissa_starts_at_the_original_function_from_the_principal_components(tiny: Path) -> None:
    torch.manual_seed(0)
    model = load_model(recipe_of(tiny, lora_init="pissa"), str(tiny)).eval()
    base = tiny_model().eval()

    with torch.no_grad():
        torch.testing.assert_close(logits(model), base(input_ids=IDS).logits, rtol=1e-4, atol=1e-4)
    layer, whole = model.base_model.model.model.layers[0].self_attn.q_proj, base.model.layers[0].self_attn.q_proj
    taken = whole.weight - layer.base_layer.weight
    singular = torch.linalg.svdvals(whole.weight)
    torch.testing.assert_close(torch.linalg.svdvals(taken)[:4], singular[:4], rtol=1e-2, atol=1e-3)
    assert torch.linalg.svdvals(taken)[4] < 1e-3


@pytest.mark.slow
def test_loftq_starts_nearer_to_the_original_weights_than_rounding(tiny: Path) -> None:
    from bitsandbytes.functional import dequantize_4bit

    model = load_model(recipe_of(tiny, method="qlora", lora_init="loftq"), str(tiny))
    base = dict(tiny_model().named_parameters())
    for name, layer in model.base_model.model.named_modules():
        if hasattr(layer, "lora_A") and len(layer.lora_A):
            rounded = dequantize_4bit(layer.base_layer.weight.data, layer.base_layer.weight.quant_state).float()
            lost = base[f"{name}.weight"] - rounded
            start = layer.get_delta_weight("default")
            best = torch.linalg.svdvals(lost)[4:].square().sum().sqrt()
            assert best <= (lost - start).norm() * 1.0001 < lost.norm()
            assert (lost - start).norm() < best * 1.02, "the scale of the adapters is part of it"


def test_doras_magnitudes_are_fp32_and_move(tiny: Path) -> None:
    model, _ = trained(recipe_of(tiny, dora="on", dtype="bf16"))
    magnitudes = [(name, value) for name, value in model.named_parameters() if "magnitude" in name]
    assert len(magnitudes) == 14
    assert all(value.dtype == torch.float32 for _, value in magnitudes)
    fresh = dict(load_model(recipe_of(tiny, dora="on", dtype="bf16"), str(tiny)).named_parameters())
    assert all((value - fresh[name]).abs().max() > 1e-4 for name, value in magnitudes)


def test_a_tied_head_follows_the_trained_embeddings(tiny: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny, modules_to_save=("embed_tokens",), dtype="bf16")
    model, losses = trained(recipe)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert head.weight is embedding.weight
    assert embedding.weight.dtype == torch.float32
    assert (embedding.weight - tiny_model().model.embed_tokens.weight).abs().max() > 1e-3
    _, saved, engine = served(recipe, model, tmp_path / "adapter")
    assert f"{EMBEDDING}.weight" in saved
    made = engine._model
    torch.testing.assert_close(made.lm_head.weight, made.model.embed_tokens.weight)
    torch.testing.assert_close(made.lm_head.weight.float(), embedding.weight, rtol=1e-2, atol=1e-2)
    assert losses[-1] < 3.5, "embeddings learn more than adapters alone, which reach 4.2"


def test_added_tokens_of_an_untied_model_get_rows_in_embeddings_and_head(
    untied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentft.models.hf.native_bf16", lambda: False)
    recipe = recipe_of(untied, add_tokens=("<call>", "<end>"))
    model, _ = trained(recipe)
    expected = logits(model)
    found, saved, engine = served(recipe, model, tmp_path / "adapter")

    rows = {name: tuple(tensor.shape) for name, tensor in saved.items() if "token" in name}
    assert sorted(rows.values()) == [(2, 64), (2, 64)]
    assert expected.shape[-1] == 402
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert engine.tokenizer("<call>x<end>", add_special_tokens=False)["input_ids"][0] == 400
    merge_run(run_of(recipe, tmp_path), [IDS[0].tolist()], tmp_path / "merged", engine.tokenizer)
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=IDS).logits, expected, rtol=0.05, atol=0.1)


def test_a_known_token_and_an_unknown_module_are_refused(tiny: Path) -> None:
    with pytest.raises(InputError, match=re.escape("already has '<|im_end|>'")):
        open_encoder(recipe_of(tiny, add_tokens=("<call>", "<|im_end|>")))
    with pytest.raises(InputError, match="LlamaForCausalLM has no module 'embed'"):
        load_model(recipe_of(tiny, modules_to_save=("embed",)), str(tiny))


def test_noise_is_bounded_by_the_length_of_each_row_and_only_for_training() -> None:
    noise, module = EmbeddingNoise(5.0, torch.tensor([4, 100])), torch.nn.Identity()
    torch.manual_seed(0)
    drawn = noise(module, None, torch.zeros(2, 100, 16))
    for row, tokens in enumerate((4, 100)):
        most = 5.0 / (tokens * 16) ** 0.5
        assert 0.98 * most < drawn[row].abs().max() <= most
    assert drawn[0].min() < 0 < drawn[0].max()
    noise.lengths = None
    assert noise(module, None, torch.zeros(1, 25, 16)).abs().max() <= 5.0 / (25 * 16) ** 0.5
    assert noise(module.eval(), None, torch.zeros(1, 4, 16)).abs().max() == 0


def test_noise_reaches_the_loss_and_uses_the_length_of_each_sample(tiny: Path) -> None:
    recipe = recipe_of(tiny, neftune_alpha=5.0, sharing="off")
    model, losses = trained(recipe)
    _, without = trained(recipe_of(tiny, sharing="off"))
    assert losses[0] != without[0]
    lengths = model.get_base_model().embedding_noise.lengths
    assert set(lengths.tolist()) == {23, 128 - 2 * 23}, "the padding is a row of its own"


CPU = Machine("cpu", bf16=False, liger=False)
GPU = Machine("cuda", bf16=True, liger=False, free=2**33, rate=1e14, fp32_rate=1e13, bandwidth=1e12)


def test_noise_switches_sharing_off_and_says_so(tiny: Path) -> None:
    given = {"sharing": "auto", "host_embeddings": "auto"}
    resolved = resolve_recipe(recipe_of(tiny, neftune_alpha=5.0, **given), SAMPLES, CPU)
    assert resolved.recipe.sharing == "off"
    assert [note.text for note in resolved.notes] == [
        "neftune_alpha: the noise is drawn for each sample, so samples do not share prefixes, which takes longer"
    ]


def test_fast_paths_that_a_method_rules_out_are_off(tiny: Path) -> None:
    auto = {"unpack": "auto", "host_embeddings": "auto"}
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"add_tokens": ("<call>",)}, "host_embeddings", "add_tokens"),
        ({"modules_to_save": ("embed_tokens",)}, "host_embeddings", "modules_to_save"),
    ]
    for settings, switch, named in cases:
        resolved = resolve_recipe(recipe_of(tiny, **(auto | settings)), SAMPLES, GPU)
        assert getattr(resolved.recipe, switch) == "off"
        assert any(note.text.endswith(f"it may be off for {named}") for note in resolved.notes)


@pytest.mark.parametrize(
    ("settings", "named"), [({"method": "qlora", "bits": 8}, "bits=8"), ({"dora": "on"}, "dora=on")]
)
def test_what_the_planner_cannot_predict_gets_the_settings_with_the_least_memory(
    tiny: Path, settings: dict[str, Any], named: str
) -> None:
    auto = {"unpack": "auto", "host_embeddings": "auto", "checkpointing": "auto", "pack_tokens": 0}
    resolved = resolve_recipe(recipe_of(tiny, **(auto | settings)), SAMPLES, GPU)
    chosen = resolved.recipe
    assert resolved.choice is None
    assert (chosen.unpack, chosen.checkpointing, chosen.checkpoint_every) == ("off", "on", 1)
    assert (chosen.host_embeddings, chosen.pack_tokens) == ("on", CPU_PACK)
    [note] = [note for note in resolved.notes if "no plan" in note.text]
    assert note.warning
    assert f"cannot predict {named}; using the settings that need the least memory" in note.text
    with pytest.raises(InputError, match=f"cannot predict {named}; measure it: `agentft bench train {named}`"):
        plan_cards(recipe_of(tiny, **(auto | settings)), SAMPLES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "full", "dora": "on"}, "dora = 'on' is for adapters"),
        ({"method": "full", "lora_plus": 2.0}, "lora_plus = 2.0 is for adapters"),
        ({"method": "full", "modules_to_save": ("lm_head",)}, "is for adapters"),
        ({"method": "full", "lora_r": 8}, "lora_r = 8 is for adapters"),
        ({"method": "full", "lora_alpha": 8}, "lora_alpha = 8 is for adapters"),
        ({"method": "full", "host_embeddings": "on"}, "is for frozen embeddings"),
        ({"method": "lora", "unpack": "on"}, "unpack = on keeps 4-bit weights dequantised, and there are none"),
        ({"checkpointing": "off", "checkpoint_every": 2}, "checkpoint_every needs checkpointing"),
        ({"eval_rows": 9}, "eval_rows = 9 needs held-out rows"),
        ({"bits": 6}, "bits = 6 is not supported; use 4 or 8"),
        ({"method": "lora", "bits": 8}, "bits = 8 needs method = qlora"),
        ({"bits": 8, "unpack": "on"}, "unpack = on keeps 4-bit weights"),
        ({"lora_init": "pissa"}, "which quantised weights do not allow"),
        ({"lora_init": "loftq", "method": "lora"}, "it needs method = qlora with bits = 4"),
        ({"lora_init": "loftq", "bits": 8}, "it needs method = qlora with bits = 4"),
        ({"lora_init": "loftq", "unpack": "on"}, "needs the 4-bit weights"),
        ({"lora_init": "loftq", "dora": "on"}, "which lora_init = loftq changes"),
        ({"neftune_alpha": 5.0, "sharing": "on"}, "omit sharing = on"),
        ({"add_tokens": ("<call>",), "host_embeddings": "on"}, "is for frozen embeddings"),
        ({"optimizer": "muon", "lora_plus": 4.0}, "not muon"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(**settings)


def test_lora_plus_multiplies_the_rate_of_the_b_matrices(tiny: Path) -> None:
    recipe = recipe_of(tiny, lora_plus=4.0)
    model = load_model(recipe, str(tiny))
    rates = {id(one): group["lr"] for group in make_optimizer(model, recipe).param_groups for one in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(0.04 if "lora_B" in name else 0.01), name


def test_only_the_last_layers_are_adapted(tiny: Path) -> None:
    for layers, adapted in ((1, {1}), (0, {0, 1})):
        model = load_model(recipe_of(tiny, lora_layers=layers), str(tiny))
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        assert {int(name.partition(".layers.")[2].partition(".")[0]) for name in names} == adapted


def test_the_gradient_is_clipped(tiny: Path) -> None:
    """With plain SGD a step moves the weights by the clipped norm times the rate."""
    for clip in (0.01, 0.0):
        recipe = recipe_of(tiny, optimizer="sgd", schedule="constant", clip=clip, max_steps=1)
        model = load_model(recipe, str(tiny))
        before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
        events: list[Event] = []
        TrainingLoop(model, recipe, SAMPLES, epoch_packs(SAMPLES, 64, 0, 0)[:1], on_event=events.append).run()
        after = dict(model.named_parameters())
        moved = sum(float((after[name].detach() - old).square().sum()) for name, old in before.items())
        norm = next(event.grad_norm for event in events if isinstance(event, StepDone))
        assert norm > 0.02
        assert moved**0.5 == pytest.approx(0.01 * (clip or norm), rel=1e-3)
