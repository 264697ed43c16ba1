"""Recipes: defaults, TOML, overrides, and errors that name the key, the value and the place."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from agentft import commands as main
from agentft.engine.loss import LOSSES
from agentft.errors import InputError
from agentft.training import elsewhere
from agentft.training.recipe import (
    Recipe,
    check_places,
    hint_for,
    read_recipe,
    read_resolved,
    write_recipe,
)


def test_options_replace_overrides_and_overrides_replace_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('lr = 0.5\nepochs = 2\nlearn = "balanced"\ndata = "rows.jsonl"\n[weights]\nanswer = 0.5\n')
    (tmp_path / "rows.jsonl").write_text("")

    recipe = read_recipe(path, ["epochs=3", "lr=1", "schedule=linear", "weights.end=2"], {"learn": "calls", "seed": 7})

    assert (recipe.lr, recipe.epochs, recipe.learn, recipe.schedule, recipe.seed) == (1.0, 3, "calls", "linear", 7)
    assert recipe.data == (str(tmp_path / "rows.jsonl"),)
    assert recipe.weights == {"end": 2}


def test_unset_options_change_nothing() -> None:
    assert read_recipe(None, [], {"model": None, "data": [], "seed": None}) == Recipe()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learning_rate=1"], "the command line: there is no key 'learning_rate'; did you mean 'lr'?"),
        (["per_device_train_batch_size=1"], "did you mean 'batch'?"),
        (["lora-rank=1"], "did you mean 'lora_r'?"),
        (["rows.jsonl.gz"], "'rows.jsonl.gz' is not KEY=VALUE; write --data rows.jsonl.gz"),
        (["epoch=1"], "there is no key 'epoch'; did you mean 'epochs'"),
        (["epochs=two"], "the command line: `epochs` is 'two'; it must be a whole number"),
        (["epochs=1.5"], "`epochs` is 1.5; it must be a whole number"),
        (["epochs=true"], "`epochs` is True; it must be a whole number"),
        (["epochs=0"], "the command line: epochs = 0 is out of range; it must be at least 1"),
        (["lr=-1"], "lr = -1.0 is out of range; it must be at least 0 and at most 1"),
        (["lr=nan"], "lr = nan is out of range"),
        (["method=dora"], "`method` is 'dora', which is not valid; did you mean 'lora'?"),
        (["learn=all"], "unknown learn rule 'all'"),
        (["format=xml"], "unknown call format 'xml'"),
        (["weights.result=1"], "weights.result: this segment kind cannot be supervised"),
        (["weights=1"], "`weights` is 1; it must be a table"),
        (["data=3"], "`data` is 3; it must be a list"),
        (["lora_dropout=0.1"], "lora_dropout = 0.1: dropout is not supported, because rows with a common prefix"),
        (["lr"], "'lr' is not KEY=VALUE"),
        (["lr=1e-4", "epochs=2", "lr=2e-4"], "lr is given twice on the command line; give it once"),
        (["weights.end=0", "weights.end=1"], "weights.end is given twice on the command line"),
    ],
)
def test_bad_settings_are_errors_with_their_names(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_recipe(None, overrides)
    assert message in str(caught.value)


def test_bits_of_a_method_that_does_not_round_are_refused(tmp_path: Path) -> None:
    """A habit of other trainers, where LoRA with 4 bits is QLoRA. A file with all settings only has the default."""
    for method in ("lora", "full"):
        with pytest.raises(InputError, match=f"bits = 4 is for method = qlora, and the method is {method}"):
            read_recipe(None, ["bits=4"], {"method": method})
    path = tmp_path / "own.toml"
    path.write_text('method = "lora"\nbits = 4\n')
    with pytest.raises(InputError, match="bits = 4 is for method = qlora"):
        read_recipe(path)
    assert read_recipe(path, [], {"method": "qlora"}).bits == 4
    path.write_text(write_recipe(Recipe(method="lora")))
    assert read_recipe(path).method == "lora"
    with pytest.raises(InputError, match="bits = 4 is for method = qlora"):
        read_recipe(path, ["bits=4"])


def test_bad_files_are_errors_with_their_paths(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"none.toml: cannot be read \(No such file or directory\); give a TOML file, or the settings"
    ):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        read_recipe(tmp_path)
    path = tmp_path / "bad.toml"
    path.write_text("lr = \n")
    with pytest.raises(InputError, match=r"bad.toml: it is not TOML: .*line 1"):
        read_recipe(path)
    path.write_text("lerns = 1\n")
    with pytest.raises(InputError, match=r"bad.toml: there is no key 'lerns'; did you mean 'learn'"):
        read_recipe(path)


def test_the_written_recipe_documents_every_key_and_reads_back(tmp_path: Path) -> None:
    recipe = Recipe(data=("/a b/ü.jsonl", 'quo"te\\'), lr=1e-5, weights={"call": 2.0}, max_steps=3)
    text = write_recipe(recipe)
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")

    assert read_resolved(tmp_path / "recipe.toml") == recipe
    assert text.count("\n# ") == len(fields(Recipe))


@given(st.text(), st.floats(0, 1), st.lists(st.text()))
def test_any_text_and_number_round_trips_through_toml(name: str, rate: float, paths: list[str]) -> None:
    recipe = replace(Recipe(), model=name, lr=rate, data=tuple(paths))
    try:
        text = write_recipe(recipe)
        text.encode()
    except UnicodeEncodeError:
        return
    table: dict[str, Any] = tomllib.loads(text)
    assert (table["model"], table["lr"], table["data"]) == (name, rate, paths)


def test_model_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)

    assert read_recipe(None, ["model=mine"]).model == str(tmp_path / "mine")
    assert read_recipe(None, ["model=smollm2-135m"]).model == "smollm2-135m"


def test_a_pipe_of_the_shell_keeps_its_name() -> None:
    """Resolved, it is `/proc/1/fd/pipe:[2]`, which was said not to exist."""
    read, write = os.pipe()
    try:
        assert read_recipe(None, [f"data=/dev/fd/{read}"]).data == (f"/dev/fd/{read}",)
    finally:
        os.close(read)
        os.close(write)


def test_a_recipe_can_choose_every_loss() -> None:
    assert get_args(get_type_hints(Recipe)["loss"]) == tuple(LOSSES)


def test_every_name_of_another_trainer_stands_for_a_setting_or_has_advice() -> None:
    known = {entry.name for entry in fields(Recipe)}
    options: dict[str, Any] = typer.main.get_command(main.app).commands  # type: ignore[attr-defined]
    tables = tomllib.loads(Path(elsewhere.__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    for name, read in (("commands", elsewhere.THEIR_COMMANDS), ("options", elsewhere.THEIR_OPTIONS)):
        theirs = [name for row in tables.pop(name).values() for name in row.split()]
        assert len(theirs) == len(set(theirs)) == len(read)
    for name, advice in elsewhere.THEIR_OPTIONS.items():
        command, _, other = name.partition(":")
        ours = {option for parameter in options[command].params for option in parameter.opts}
        assert f"--{other}" not in ours
        assert set(re.findall(r"here: (--[\w-]+)", advice)) <= ours
    names = [name for table in tables.values() for row in table.values() for name in row.split()]
    assert set(tables["settings"]) <= known
    assert len(names) == len(set(names)) == len(elsewhere.ELSEWHERE) + len(elsewhere.INSTEAD)
    assert not known & set(names)
    found = {name: hint_for(name, "{}") for name in ("--learning-rate", "--max-stpes", "lora_r", "Optim", "quux")}
    assert list(found.values()) == ["lr", "max_steps", "lora_r", "optimizer", None]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("num_gpus", "for several GPUs: --gpus N"),
        ("gpus", "for several GPUs: --gpus N"),
        ("lora_target_modules", "LoRA adapts all linear layers"),
        ("target_module", "LoRA adapts all linear layers"),
        ("logging_steps", "every step is logged"),
        ("resume_from_checkpoint", "to continue a run: agentft train --resume RUN"),
        ("sequence_parallel_size", "agentft does not split sequences over GPUs"),
        ("load_in_4bit", "method=qlora rounds to NF4"),
        ("relora", "agentft trains with qlora, lora or full"),
        ("pretraining_dataset", "`agentft train` tunes on supervised rows only"),
        ("tokens", "did you mean 'add_tokens'?"),
        ("lora_lr_ratio", "did you mean 'lora_plus'?"),
        ("oft_block_size", "agentft trains with qlora, lora or full"),
        ("sampler", "rows are encoded before the first step"),
        ("betas", "Adam's betas and epsilon are fixed"),
        ("adam_beta1", "Adam's betas and epsilon are fixed"),
        ("flash_attn", "agentft has its own attention kernels"),
        ("push_to_hub", "agentft uploads nothing"),
        ("--launcher", "agentft starts its processes itself"),
        ("--do_train", "`agentft train` trains and nothing else"),
        ("steps", "did you mean 'max_steps'?"),
        ("test", "did you mean 'eval_data'?"),
        ("logs", "every step is logged"),
        ("timeout", "`agentft train --settings` prints all keys"),
        ("dataset_info_file_of_mine", "`agentft train --settings` prints all keys"),
    ],
)
def test_a_setting_that_only_others_have_is_refused_with_advice(name: str, advice: str) -> None:
    if name.startswith("--"):
        assert (hint_for(name) or "").startswith(advice)
        return
    with pytest.raises(InputError, match=re.escape(f"there is no key {name!r}; {advice}")):
        read_recipe(None, [f"{name}=2"])


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        (["sft", "--train_type", "lora"], "there is no command 'sft'; here that is: agentft train"),
        (["webui"], "here that is: agentft --help (a command line; there is no web page)"),
        (["data", "lint", "x"], "there is no command 'data lint'; here that is: agentft data inspect FILE --strict"),
        (["data", "split"], "here that is: agentft train --data FILE eval_data=0.05"),
        (["eval", "diff", "a", "b"], "here that is: agentft eval SUITE --baseline FOLDER, the folder of an earlier"),
        (["train", "template=qwen"], "prompts follow the chat template in the model's folder; format=native"),
        (["merge-lora"], "here that is: agentft export RUN --to merged"),
        (["dpo"], "here that is: nothing; `agentft train` tunes on supervised rows only"),
        (["eval", "basics", "--num_fewshot", "3"], "no such option: --num_fewshot; here: --shots N (see"),
        (["export", "last", "--quant_bits", "4"], "no such option: --quant_bits; here: weights are exported with 16"),
        (["train", "qwen.yaml"], "qwen.yaml is not a recipe (TOML); to write one: agentft train --settings"),
        (["train", "qwen_qlora.py", "--deepspeed", "deepspeed_zero2"], "qwen_qlora.py is not a recipe"),
        (["train", "--data", "x.jsonl", "--deepspeed", "deepspeed_zero3_offload"], "did you mean 'zero3-offload'?"),
        (["train", "--data", "x.jsonl", "--deepspeed", "deepspeed_zero2"], "did you mean 'zero2'?"),
        (["train", "--data", "x.jsonl", "report_to=none"], "omit it for none"),
    ],
)
def test_commands_of_other_tools_get_advice(
    typed: list[str], advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text("{}\n")
    assert main.run(typed) == 2
    assert advice in capsys.readouterr().err


def test_a_models_folder_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    check_places(Recipe(model="~/m", data=(str(rows),)))
    with pytest.raises(InputError, match="there is no such folder"):
        check_places(Recipe(model="~/n", data=(str(rows),)))


def test_an_override_is_judged_together_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('method = "lora"\ndata = "rows.jsonl"\n')
    recipe = read_recipe(path, ["lora_init=pissa"])
    assert (recipe.method, recipe.lora_init, recipe.data) == ("lora", "pissa", (str(tmp_path / "rows.jsonl"),))
    with pytest.raises(InputError, match=r"^the command line: lora_init = pissa"):
        read_recipe(None, ["lora_init=pissa"])
