"""Every `auto` is resolved once, and the model's config is read once."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from agentft.errors import InputError, MissingError
from agentft.training import run
from agentft.training.machine import Machine
from agentft.training.planner import GIB, SLACK
from agentft.training.recipe import Recipe
from agentft.training.resolve import CPU_PACK, RANDOM_7B, plan_cards, read_architecture, resolve_recipe
from agentft.training.workload import even_workload
from tests.engine.samples import nested, write_rows
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer

CPU = Machine("cpu", bf16=False, liger=False)
H100 = Machine("cuda", bf16=True, liger=True, free=79 * GIB, rate=775e12, fp32_rate=50e12, bandwidth=2.96e12)
WORK = even_workload(100_000, 1, 700, shared=600, supervised=60)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models whose configs were read."""
    opened: list[str] = []
    before = AutoConfig.from_pretrained

    def counted(name: Any, *args: Any, **settings: Any) -> Any:
        opened.append(str(name))
        return before(name, *args, **settings)

    monkeypatch.setattr(AutoConfig, "from_pretrained", counted)
    return opened


def test_a_run_reads_the_config_once(
    tiny: str, tmp_path: Path, openings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # transformers' loader may read the config, too
    monkeypatch.setattr("agentft.training.encoder.load_tokenizer", lambda _: tiny_tokenizer())
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    recipe = Recipe(model=tiny, data=(str(rows),), output=str(tmp_path / "run"), method="lora", max_steps=1)

    run.train(recipe, lambda event: None)
    assert openings == [tiny]
    run.dry_run(recipe, lambda event: None)
    assert openings == [tiny, tiny]
    plan_cards(recipe, run.read_data(recipe).samples)
    assert openings == [tiny, tiny, tiny]


@pytest.mark.parametrize("method", ["qlora", "lora", "full"])
@pytest.mark.parametrize("machine", [CPU, H100], ids=["cpu", "cuda"])
def test_a_resolved_recipe_has_no_auto_and_resolves_to_itself(tiny: str, machine: Machine, method: Any) -> None:
    resolved = resolve_recipe(Recipe(model=tiny, method=method), nested(), machine)

    values = {entry.name: getattr(resolved.recipe, entry.name) for entry in fields(Recipe)}
    assert "auto" not in values.values()
    assert values["lr"] > 0
    assert values["pack_tokens"] > 0
    assert values["checkpoint_every"] > 0
    again = resolve_recipe(resolved.recipe, nested(), machine)
    assert again.recipe == resolved.recipe


def test_settings_on_a_cpu_are_simple(tiny: str) -> None:
    recipe = resolve_recipe(Recipe(model=tiny, method="lora"), nested(), CPU).recipe

    assert (recipe.dtype, recipe.liger, recipe.unpack, recipe.host_embeddings) == ("fp32", "off", "off", "off")
    assert (recipe.pack_tokens, recipe.checkpointing, recipe.lr) == (CPU_PACK, "off", 1e-3)
    assert resolve_recipe(Recipe(model=tiny, method="full"), nested(), CPU).recipe.lr == 1e-4
    assert resolve_recipe(Recipe(model=tiny), nested(), replace(CPU, bf16=True)).recipe.dtype == "bf16"


def test_a_large_model_gets_a_lower_learning_rate_and_checkpointing() -> None:
    seven = Recipe(model=RANDOM_7B, method="lora")
    architecture = read_architecture(seven)
    recipe = resolve_recipe(seven, WORK, CPU, architecture).recipe

    assert architecture.parameters == 7_615_283_200 + 333_312
    assert architecture.adapters * 16 == 40_370_176
    assert (recipe.lr, recipe.checkpointing) == (2e-4, "on")
    assert resolve_recipe(replace(seven, method="full"), WORK, CPU, architecture).recipe.lr == 2e-5


@pytest.mark.parametrize(("parameters", "rate"), [(499_999_983, 1e-3), (499_999_984, 2e-4)])
def test_adapters_count_towards_the_size_of_a_model(tiny: str, parameters: int, rate: float) -> None:
    architecture = replace(read_architecture(Recipe(model=tiny)), parameters=parameters, adapters=1)
    assert resolve_recipe(Recipe(model=tiny, method="lora"), WORK, CPU, architecture).recipe.lr == rate


def test_a_plan_fits_and_is_reported() -> None:
    resolved = resolve_recipe(Recipe(model=RANDOM_7B), WORK, replace(H100, free=8 * GIB))

    assert resolved.choice is not None
    assert resolved.choice.estimate.memory <= 8 * GIB - SLACK
    assert resolved.recipe.pack_tokens == resolved.choice.levers.pack
    (note,) = resolved.notes
    assert note.text.startswith("plan, the fastest settings that fit: ")
    assert not note.warning


def test_if_nothing_fits_the_settings_that_need_the_least_memory_are_used() -> None:
    resolved = resolve_recipe(Recipe(model=RANDOM_7B, method="lora"), WORK, replace(H100, free=4 * GIB))

    (note,) = resolved.notes
    assert note.warning
    assert "nothing fits into 4.0 GiB of free memory (the longest row has 700 tokens)" in note.text
    recipe = resolved.recipe
    assert (recipe.checkpointing, recipe.checkpoint_every, recipe.host_embeddings) == ("on", 1, "on")


def test_missing_liger_is_an_error_unless_liger_is_auto(tiny: str) -> None:
    with pytest.raises(MissingError, match="liger = on needs an NVIDIA GPU"):
        resolve_recipe(Recipe(model=tiny, liger="on"), nested(), CPU)
    assert resolve_recipe(Recipe(model=tiny, liger="off"), WORK, H100).recipe.liger == "off"
    assert resolve_recipe(Recipe(model=tiny), WORK, H100).recipe.liger == "on"


def test_a_row_longer_than_the_positions_of_the_model_is_refused(tmp_path: Path) -> None:
    """A model cannot read it when it is served, and one with learnt positions fails in the middle of a step."""
    short = tmp_path / "short"
    save_tiny(short)
    config = tiny_model().config
    config.max_position_embeddings = 60
    config.save_pretrained(short)
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    given: dict[str, Any] = {"model": str(short), "data": (str(rows),), "learn": "assistant"}
    with pytest.raises(InputError, match=r"a row has \d+ tokens, but .*short has positions for 60; with max_length=60"):
        run.dry_run(Recipe(**given), lambda event: None)
