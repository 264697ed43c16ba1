"""DeepSpeed's configuration: what is filled in, what is refused before torch is loaded, and the memory per card."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import InputError, MissingError
from agentft.training import sharding
from agentft.training.recipe import Recipe
from agentft.training.sharding import (
    Sharding,
    Way,
    complete_settings,
    doubts,
    is_weights_sharded,
    settle,
    sharding_of,
    ways_of,
)

FULL = Recipe(method="full", batch=6, clip=0.5, lr=1e-4, weight_decay=0.1, dtype="bf16", schedule="linear")
TUTORIAL: dict[str, Any] = {
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto", "initial_scale_power": 16},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_max_lr": "auto", "total_num_steps": "auto"}},
    "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto", "overlap_comm": False},
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}


def changed(key: str, value: Any) -> dict[str, Any]:
    settings = json.loads(json.dumps(TUTORIAL))
    place, parts = settings, key.split(".")
    for part in parts[:-1]:
        place = place.setdefault(part, {})
    place[parts[-1]] = value
    return dict(settings)


def test_a_short_form_is_completed_from_the_recipe() -> None:
    assert complete_settings(replace(FULL, deepspeed="zero3-offload"), 4) == {
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "offload_optimizer": {"device": "cpu", "pin_memory": True},
            "offload_param": {"device": "cpu", "pin_memory": True},
        },
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.5,
        "steps_per_print": 1 << 30,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": True},
    }
    assert "offload_param" not in complete_settings(replace(FULL, deepspeed="zero2-offload"), 4)["zero_optimization"]
    assert complete_settings(replace(FULL, deepspeed="zero1", dtype="fp32"), 4)["bf16"] == {"enabled": False}


def test_a_file_of_a_tutorial_is_completed_and_kept_in_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(TUTORIAL))
    recipe = settle(replace(FULL, deepspeed=str(file)))
    file.unlink()

    assert settle(recipe) == recipe
    filled = complete_settings(recipe, 2)
    assert filled["zero_optimization"] == {"stage": 3, "overlap_comm": False}
    assert filled["gradient_accumulation_steps"] == 3
    assert not {"optimizer", "scheduler", "fp16", "train_batch_size"} & filled.keys()
    assert "auto" not in json.dumps(filled)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("gradient_clipping", 1.0, r"gradient_clipping = 1.0, but the recipe has clip = 0.5, which makes it 0.5"),
        ("train_batch_size", 8, r"train_batch_size = 8, but the recipe has batch = 6"),
        ("train_micro_batch_size_per_gpu", 4, r"= 4, but the recipe has packs, of which .* one at a time"),
        ("bf16.enabled", False, r"bf16.enabled = false, but the recipe has dtype = bf16, which makes it true"),
        ("fp16.enabled", True, r"fp16.enabled = true, but the recipe has dtype = bf16"),
        ("optimizer.type", "Lamb", r'optimizer.type = "Lamb", but the recipe has optimizer = adamw'),
        ("optimizer.params.lr", 1e-3, r"lr = 0.001, but the recipe has lr = 0.0001"),
        ("optimizer.params.weight_decay", 0.0, r"= 0.0, but the recipe has weight_decay = 0.1"),
        ("optimizer.params.betas", [0.9, 0.95], r"AdamW's usual betas"),
        ("optimizer.params.eps", 1e-6, r"AdamW's usual eps"),
        ("scheduler.type", "WarmupLR", r'"WarmupLR", but the recipe has schedule = linear, .* "WarmupDecayLR"'),
        ("scheduler.params.warmup_num_steps", 100, r"= 100, but the recipe has warmup = 0.05"),
        ("scheduler.params.total_num_steps", 100, r'change one of them, or write "auto"$'),
        ("zero_optimization.stage", 0, r"stage = 0 shards nothing; .* --gpus alone"),
        ("zero_optimization.stage", "3", r'stage = "3" shards nothing'),
        ("curriculum_learning.enabled", True, r"curriculum_learning: DeepSpeed has removed .*: agentft orders"),
        ("zero_optimization.mics_shard_size", 8, r"zero_optimization.mics_shard_size: .*; remove the key$"),
        ("tensor_parallel.autotp_size", 2, r"tensor_parallel: not supported; remove the key: agentft gives"),
    ],
)
def test_a_contradiction_or_a_removed_key_is_one_line(key: str, value: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(changed(key, value)))
    with pytest.raises(InputError, match=message) as caught:
        settle(replace(FULL, deepspeed=str(file)))
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_what_the_recipe_leaves_open_contradicts_nothing_until_it_is_resolved(tmp_path: Path) -> None:
    text = json.dumps(changed("optimizer.params.lr", 1e-3) | {"bf16": {"enabled": True}})
    recipe = replace(FULL, lr=0.0, dtype="auto", deepspeed=text)
    assert settle(recipe) == recipe
    with pytest.raises(InputError, match=r"deepspeed: bf16.enabled = true, but the recipe has dtype = fp32"):
        complete_settings(replace(recipe, dtype="fp32"), 2)
    steps = json.dumps(changed("gradient_accumulation_steps", 2))
    complete_settings(replace(FULL, deepspeed=steps), 3)
    with pytest.raises(InputError, match=r"gradient_accumulation_steps = 2, but .* batch = 6 in 2 processes"):
        complete_settings(replace(FULL, deepspeed=steps), 2)


def test_a_value_equal_to_the_recipe_s_is_accepted() -> None:
    params = {"lr": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1}
    settings = changed("optimizer.params", params) | {"gradient_clipping": 0.5, "train_batch_size": 6}
    assert complete_settings(replace(FULL, deepspeed=json.dumps(settings)), 6)["gradient_accumulation_steps"] == 1


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(deepspeed="zero3"), "ZeRO-3.* does not shard 4-bit weights; --gpus alone .* --method lora can"),
        (Recipe(method="lora", dora="on", deepspeed="zero3"), "dora = on .*; use zero2"),
        (Recipe(method="full", optimizer="adamw_8bit", deepspeed="zero2"), "adamw_8bit: .*; use optimizer = adamw"),
        (Recipe(method="lora", host_embeddings="on", deepspeed="zero1"), "host_embeddings = on .*; use auto"),
        (Recipe(method="full", best="loss", eval_data="0.1", deepspeed="zero1"), "best = loss: .*; use best = off"),
        (Recipe(method="lora", add_tokens=("<x>",), deepspeed="zero1"), "add_tokens: not supported .*; use --gpus"),
        (Recipe(method="lora", lora_init="pissa", deepspeed="zero1"), "lora_init"),
        (Recipe(method="lora", modules_to_save=("lm_head",), deepspeed="zero1"), "modules_to_save"),
        (Recipe(method="full", score_suite=("basics",), deepspeed="zero3"), "score_suite: no process .*; use zero2"),
        (Recipe(deepspeed="zero4"), "no such file or form; did you mean 'zero"),
    ],
)
def test_what_cannot_work_is_refused_with_what_does(recipe: Recipe, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settle(recipe)


def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    for text, message in (("{", "is not JSON"), ("[]", "lacks `zero_optimization`"), ("{}", "lacks")):
        (tmp_path / "ds.json").write_text(text)
        with pytest.raises(InputError, match=message):
            settle(replace(FULL, deepspeed=str(tmp_path / "ds.json")))


def test_deepspeed_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "find_spec", lambda name: None)
    assert settle(FULL) == FULL
    with pytest.raises(MissingError, match=r"pip install 'agentft-suite\[deepspeed\]'"):
        settle(replace(FULL, deepspeed="zero2"))


def test_doubtful_combinations_are_named() -> None:
    assert list(doubts("full", Sharding(3, 4))) == []
    assert list(doubts("full", Sharding(2, 1, offload=True))) == []
    assert "shards nothing with one process" in next(doubts("full", Sharding(3, 1)))
    (text,) = doubts("qlora", Sharding(2, 2))
    assert "ZeRO-2 shards only the adapters' gradients" in text
    assert list(doubts("lora", Sharding(3, 2))) == []


def test_the_sharding_of_a_recipe() -> None:
    assert sharding_of(FULL) is None
    assert not is_weights_sharded(FULL)
    assert sharding_of(replace(FULL, deepspeed="zero2-offload"), 4) == Sharding(2, 4, offload=True)
    assert sharding_of(replace(FULL, deepspeed=json.dumps(TUTORIAL))) == Sharding(3)
    assert is_weights_sharded(replace(FULL, deepspeed="zero3"))


def test_a_card_holds_less_with_each_stage() -> None:
    billion = 1e9
    held = [Sharding(stage, 4).held(8 * billion, 0) / billion for stage in (1, 2, 3)]
    assert held == [32 + 16 + 16 + 1, 32 + 4 + 16 + 1, 32 + 4 + 4 + 2 + 1]
    assert Sharding(2, 4, offload=True).held(8 * billion, 0) / billion == 16 + 1
    assert Sharding(3, 4, offload=True).held(8 * billion, 0) / billion == 2 + 1
    assert Sharding(3, 4).held(0, 16 * billion) / billion == 4 + 2


def test_the_ways_to_use_several_cards_begin_with_the_fastest() -> None:
    full = ("", "zero2", "zero3", "zero2-offload", "zero3-offload")
    assert ways_of(Recipe(method="full"), 4) == full
    assert ways_of(Recipe(method="lora"), 2) == ("", "zero3", "zero3-offload")
    assert ways_of(Recipe(method="qlora"), 2) == ways_of(Recipe(method="full"), 1) == ("",)
    assert ways_of(replace(FULL, deepspeed="zero1"), 4) == ("zero1",)
    assert Way("").describe() == "--gpus alone: the fastest way for a model that fits"
    assert Way("zero3", ("", "zero2")).describe() == (
        "--deepspeed zero3: shards the weights, too; --gpus alone, zero2 would not fit"
    )
    assert Way("zero1").describe() == "--deepspeed zero1"


def test_refusals_come_before_torch_is_loaded(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    code = (
        "import sys; from agentft.commands import run; "
        f"code = run(['train', '--data', {str(rows)!r}, '--deepspeed', 'zero3']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: --deepspeed (ZeRO-3) and method = qlora")
