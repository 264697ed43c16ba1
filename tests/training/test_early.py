"""Settings are checked against the files of the model before anything heavy is imported."""

from __future__ import annotations

import inspect
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from agentft.errors import InputError, MissingError
from agentft.training import early, launch
from agentft.training.early import check_early
from agentft.training.recipe import Recipe, Schedule
from tests.commands.run import REPOSITORY
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("early") / "model")


WRONG = [
    ({"modules_to_save": ("nosuch",)}, "has no module 'nosuch'; name modules such as embed_tokens and lm_head"),
    ({"modules_to_save": ("lm_heed",)}, "has no module 'lm_heed'; did you mean 'lm_head'?"),
    ({"modules_to_save": ("model.embed_token",)}, "did you mean 'embed_tokens'?"),
    ({"lora_layers": 3}, "lora_layers = 3: the model has 2 layers; give at most 2, or 0 for all"),
    ({"add_tokens": ("<new>", "<|im_end|>")}, "add_tokens: the tokenizer already has '<|im_end|>'"),
    ({"add_tokens": ("a",)}, "add_tokens: the tokenizer already has 'a'"),
    ({"schedule_args": {"cycles": 2.0}}, "schedule = cosine: no argument 'cycles'; it takes num_cycles"),
    ({"schedule": "linear", "schedule_args": {"power": 2.0}}, "no argument 'power'; it takes no arguments"),
    ({"modules_to_save": ("nosuch", "lm_heed")}, "has no module 'nosuch'; name modules such as"),
    ({"add_tokens": ("<|im_end|>", "a")}, "add_tokens: the tokenizer already has '<|im_end|>'"),
    ({"schedule": "cosine_with_min_lr", "schedule_args": {"num_cycles": 1.0}}, "add schedule_args.min_lr_rate=NUMBER"),
    (
        {"schedule": "cosine_warmup_with_min_lr", "schedule_args": {"num_cycles": 1.0}},
        "add schedule_args.min_lr_rate=NUMBER",
    ),
    ({"schedule": "cosine_with_min_lr"}, "needs an argument; add schedule_args.min_lr_rate=NUMBER"),
    (
        {"schedule": "warmup_stable_decay", "schedule_args": {"num_cycles": 1.0}},
        "add schedule_args.num_decay_steps=NUMBER",
    ),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_what_the_files_of_the_model_contradict_is_refused(
    settings: dict[str, object], message: str, model: Path
) -> None:
    with pytest.raises(InputError) as caught:
        check_early(Recipe(model=str(model), **settings))  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_what_the_model_has_passes(model: Path) -> None:
    check_early(Recipe(model=str(model), modules_to_save=("model.embed_tokens", "lm_head"), lora_layers=2))
    for schedule in ("cosine_with_min_lr", "cosine_warmup_with_min_lr"):
        check_early(Recipe(model=str(model), add_tokens=("<new>",), schedule=schedule, schedule_args={"min_lr": 0}))


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_the_arguments_of_schedules_are_those_of_transformers(schedule: str) -> None:
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    signature = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[schedule]).parameters
    ours = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    numbers = set(signature) - ours - {"warmup_type", "decay_type"}
    assert set(early.SCHEDULE_ARGS.get(schedule, ())) == numbers
    required = {name for name in numbers if signature[name].default is inspect.Parameter.empty}
    assert required <= set(early.NEEDED_ARGS.get(schedule, ())) <= numbers


def test_liger_needs_a_gpu_and_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []
    monkeypatch.setattr(early, "find_spec", lambda _: next(iter(found), None))
    for gpu, library in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr(early, "may_have_gpu", lambda gpu=gpu: gpu)
        found[:] = [object()] * library
        with pytest.raises(MissingError, match="liger = on needs an NVIDIA GPU"):
            check_early(Recipe(liger="on"))
    monkeypatch.setattr(early, "may_have_gpu", lambda: True)
    found[:] = [object()]
    check_early(Recipe(liger="on"))


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"model.safetensors": b"\xff" * 40},
        {"model.safetensors.index.json": b'{"weight_map": 5}'},
        {"model.safetensors.index.json": b'{"weight_map": {"model.layers.0.experts.1.w1.weight": "a"}}'},
        {
            "config.json": b'{"text_config": 3, "num_hidden_layers": "x"}',
            "tokenizer.json": b'{"model": [], "added_tokens": 1}',
        },
    ],
    ids=["none", "damaged", "of other types", "of other names", "of no sense"],
)
def test_what_cannot_be_read_early_is_left_to_the_model(files: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    check_early(Recipe(model=str(tmp_path), modules_to_save=("nosuch",), lora_layers=99, add_tokens=("a",)))


def test_the_names_of_the_weights_are_read_from_the_index_or_the_header(tmp_path: Path) -> None:
    header = json.dumps({"model.embed_tokens.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"model.norm.weight": "x"}}')
    check_early(Recipe(model=str(tmp_path), modules_to_save=("norm", "embed_tokens", "lm_head")))
    with pytest.raises(InputError, match="no module 'q_proj'"):
        check_early(Recipe(model=str(tmp_path), modules_to_save=("q_proj",)))


def test_a_machine_with_neither_devices_nor_a_driver_has_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nowhere(type(tmp_path)):  # type: ignore[misc]
        def glob(self, pattern: str) -> list[Path]:
            return found.get(pattern, [])

    found: dict[str, list[Path]] = {}
    drivers: list[str] = []
    monkeypatch.setattr(early, "Path", Nowhere)
    monkeypatch.setattr(early, "find_library", lambda _: next(iter(drivers), None))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("torch.cuda.device_count", lambda: pytest.fail("PyTorch is not asked"))
    with pytest.raises(MissingError, match="--gpus 4: PyTorch finds no GPU here"):
        launch.count_processes("4")
    found["dxg"] = [tmp_path]
    assert early.may_have_gpu()
    found.clear()
    drivers.append("libcuda")
    assert early.may_have_gpu()
    drivers.clear()
    monkeypatch.setattr("sys.platform", "win32")
    assert early.may_have_gpu()


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["train", "--data", "tests/rows/public_rows.jsonl", "modules_to_save=nosuch"], "has no module 'nosuch'"),
        (["data", "mask", "tests/rows/public_rows.jsonl", "--row", "99999"], "so there is no row 99999"),
    ],
)
def test_a_command_refuses_it_before_torch_is_imported(command: list[str], error: str, model: Path) -> None:
    program = [*command, "--model", str(model)]
    code = (
        f"import sys\nfrom agentft.commands import run\nassert run({program}) == 2\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert error in done.stderr
