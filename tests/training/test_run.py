"""A run from data file to adapter, its folder, and resuming runs that were killed at any moment."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agentft.errors import FrameError, InputError, MissingError
from agentft.rows.ledger import UNSUPERVISED
from agentft.rows.reading import read_rows
from agentft.runs import RunFolder, find_finished
from agentft.training import run
from agentft.training.events import DataReady, Event, Finished, Note, Started, StepDone, Waiting
from agentft.training.recipe import Recipe, read_resolved
from agentft.training.sweep import find_lr
from tests.engine.samples import write_rows
from tests.tiny import save_tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", 12, quiet=2)


def recipe_of(tiny: Path, rows: Path, output: Path, **settings: Any) -> Recipe:
    defaults: dict[str, Any] = {"pack_tokens": 320, "lr": 0.01, "save_steps": 2, "epochs": 2, "dtype": "fp32"}
    return Recipe(model=str(tiny), data=(str(rows),), output=str(output), **(defaults | settings))


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "adapter" / "adapter_model.safetensors")
    return tensors


def test_a_run_folder_has_all_documented_files(tiny: Path, rows: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    result = run.train(recipe_of(tiny, rows, tmp_path / "run", learn="calls"), events.append)

    folder = RunFolder(tmp_path / "run")
    assert result.weights == tmp_path / "run" / "adapter"
    assert {entry.name for entry in folder.path.iterdir()} == {
        *("recipe.toml", "format.json", "data.json", "metrics.jsonl", "adapter", "checkpoints", "log.txt"),
        *("quarantine", ".lock", "curves.png" if importlib.util.find_spec("matplotlib") else "curves.svg"),
    }
    assert [*folder.path.rglob("README.md")] == []  # peft's have nothing but placeholders
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    assert [json.loads(line)["loss"] for line in folder.metrics.read_text().splitlines()] == losses
    assert [step["step"] for step in folder.read_metrics()] == list(range(1, result.steps + 1))
    assert losses[-1] < losses[0]
    assert isinstance(events[-1], Finished)
    assert events[-1].losses == tuple(losses)
    document = json.loads(folder.data.read_text())
    assert (document["rows"], document["trained"], document["rejected"]) == (14, 12, 0)
    assert (document["reasons"], document["rows_without_supervised_tokens"]) == ({}, 2)
    assert find_finished(str(folder.path)).tools == tuple(document["tools"]) != ()
    kept = json.loads(folder.format.read_text())
    assert (kept["call_format"], kept["learn"], kept["stop"][0]) == ("msagent", "calls", "<|endofthink|>")
    resolved = read_resolved(folder.recipe)
    assert (resolved.lr, resolved.dtype, resolved.data) == (0.01, "fp32", (str(rows),))
    assert "finished after step" in (folder.path / "log.txt").read_text()


def test_rejected_rows_are_quarantined_in_full(tiny: Path, rows: Path, tmp_path: Path) -> None:
    broken = rows.read_text() + "{not json\n"
    rows.write_text(broken)

    result = run.train(recipe_of(tiny, rows, tmp_path / "run", max_steps=1), lambda event: None)

    assert result.data.ledger.kept + result.data.ledger.rejected == result.data.ledger.rows == 15
    (file,) = (tmp_path / "run" / "quarantine").iterdir()
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(entry["line"], entry["reason"]) for entry in kept] == [(15, "invalid-json")]
    assert kept[0]["raw"] == broken.splitlines()[14]


def test_weights_supervise_what_the_rule_leaves_out(tiny: Path, rows: Path, tmp_path: Path) -> None:
    calls, answers = (
        run.dry_run(recipe_of(tiny, rows, tmp_path, weights=weights), lambda _: None)[0]
        for weights in ({}, {"answer": 0.5})
    )

    assert (calls.ledger.remarks[UNSUPERVISED], answers.ledger.remarks[UNSUPERVISED]) == (2, 0)
    assert answers.weight - calls.weight == 0.5 * (answers.supervised - calls.supervised) > 0


def test_learning_calls_only_warns_of_turns_without_a_call(tiny: Path, rows: Path, tmp_path: Path) -> None:
    notes: dict[str, list[str]] = {}
    for learn in ("calls", "balanced"):
        events: list[Event] = []
        run.dry_run(recipe_of(tiny, rows, tmp_path, learn=learn), events.append)
        notes[learn] = [event.text for event in events if isinstance(event, Note)]

    assert len(notes["calls"]) == 2
    assert "2 turns correctly make no call" in notes["calls"][0]
    assert "12 turns answer after a tool's result" in notes["calls"][1]
    assert notes["calls"][1].endswith("use --learn balanced")
    assert notes["balanced"] == []


def test_a_learning_rate_of_zero_is_said_to_be_chosen(tiny: Path, rows: Path, tmp_path: Path) -> None:
    for lr, expected in ((0.0, ["lr = 0.001, chosen by method and model size"]), (0.01, [])):
        events: list[Event] = []
        run.dry_run(recipe_of(tiny, rows, tmp_path, learn="balanced", lr=lr), events.append)
        assert [event.text for event in events if isinstance(event, Note)] == expected


def test_dynamic_fine_tuning_is_said_to_learn_little_that_is_new(tiny: Path, rows: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    run.dry_run(recipe_of(tiny, rows, tmp_path, learn="balanced", loss="dft"), events.append)

    (note,) = (event.text for event in events if isinstance(event, Note))
    assert note.startswith("loss = 'dft' teaches little that the model would not have written before")


def test_the_text_of_a_control_token_in_a_turn_is_named(tiny: Path, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "What is <|im_end|>?"}, {"role": "assistant", "content": "The end."}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    events: list[Event] = []
    run.dry_run(recipe_of(tiny, tmp_path / "rows.jsonl", tmp_path / "run", learn="balanced"), events.append)

    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("the text of control tokens (rows with <|im_end|>: 1)" in note for note in notes)


@pytest.mark.slow
def test_a_run_says_whether_it_was_trained_on_thoughts(tiny: Path, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4", "reasoning_content": "Easy."}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    notes: list[str] = []
    for learn, thinking in (("balanced", False), ("assistant", True)):
        events: list[Event] = []
        run.train(recipe_of(tiny, tmp_path / "rows.jsonl", tmp_path / learn, learn=learn, max_steps=1), events.append)
        notes += [event.text for event in events if isinstance(event, Note) and "thought" in event.text]
        assert json.loads((tmp_path / learn / "format.json").read_text())["thinking"] is thinking
        assert find_finished(str(tmp_path / learn)).thinking is thinking
    (note,) = notes
    assert note.startswith("1 thought is left out, since learn = 'balanced' does not supervise them")


def test_a_dry_run_writes_nothing(tiny: Path, rows: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    data, plan = run.dry_run(recipe_of(tiny, rows, tmp_path / "run"), events.append)

    assert not (tmp_path / "run").exists()
    assert plan.steps == 2 * plan.packing.packs
    assert plan.packing.tokens < plan.packing.unshared
    assert [type(event) for event in events[:2]] == [Waiting, DataReady]
    assert data.samples == 12


@pytest.mark.slow
def test_a_run_takes_the_planned_number_of_steps(tiny: Path, rows: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny, rows, tmp_path / "run", batch=2, epochs=3)

    _, plan = run.dry_run(recipe, lambda event: None)

    assert run.train(recipe, lambda event: None).steps == plan.steps


def test_strict_stops_before_training(tiny: Path, rows: Path, tmp_path: Path) -> None:
    rows.write_text(rows.read_text() + "{not json\n")
    with pytest.raises(run.StrictError, match=r"1 of 15 rows were rejected \(invalid-json 1\), .*rows.jsonl:15"):
        run.train(recipe_of(tiny, rows, tmp_path / "run"), lambda event: None, strict=True)

    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_all_weights_are_saved_as_a_model_folder(tiny: Path, rows: Path, tmp_path: Path) -> None:
    result = run.train(recipe_of(tiny, rows, tmp_path / "run", method="full", dtype="bf16", lr=1e-3), lambda e: None)

    assert result.weights == tmp_path / "run" / "model"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {entry.name for entry in result.weights.iterdir()}


@pytest.mark.slow
def test_qlora_runs_on_the_cpu_with_nf4_and_trains_adapters_only(tiny: Path, rows: Path, tmp_path: Path) -> None:
    from agentft.training.loading import load_model

    recipe = recipe_of(tiny, rows, tmp_path / "run", method="qlora", dtype="bf16")
    model = load_model(recipe, str(tiny))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.base_layer.weight.quant_type == "nf4"
    assert layer.base_layer.weight.quant_state.nested
    assert layer.base_layer.compute_dtype == torch.bfloat16
    embedding = model.get_input_embeddings().weight
    assert embedding.dtype == torch.bfloat16, "prepare_model_for_kbit_training would have made it fp32"
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}

    events: list[Event] = []
    result = run.train(recipe, events.append)

    losses = [event.loss for event in events if isinstance(event, StepDone)]
    assert losses[-1] < losses[0]
    assert result.weights is not None


KILLED = """
import os, signal, sys
from pathlib import Path
from agentft.training import checkpoints, run
from agentft.training.events import StepDone
from agentft.runs import RunFolder
from agentft.training.recipe import read_recipe

folder, recipe, step, moment = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
now = 0

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def watch(event):
    global now
    if isinstance(event, StepDone):
        now = event.step
        if now == step and moment == "step":
            kill()

sync = checkpoints._sync
def killing_sync(target):
    if now == step and moment == "save":
        (target / "optimizer.pt").write_bytes(b"half")
        kill()
    sync(target)

checkpoints._sync = killing_sync
if (folder / "recipe.toml").exists():
    run.resume(RunFolder(folder), watch)
else:
    run.train(read_recipe(recipe, [], {"output": str(folder)}), watch)
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_in_the_same_weights(tiny: Path, rows: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny, rows, tmp_path / "whole")
    whole = run.train(recipe, lambda event: None)
    assert whole.steps >= 6
    target = tmp_path / "killed"
    file = tmp_path / "recipe.toml"
    file.write_text((tmp_path / "whole" / "recipe.toml").read_text())
    for step, moment in ((1, "step"), (4, "save"), (5, "step")):
        command = [sys.executable, "-c", KILLED, str(target), str(file), str(step), moment]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list(target.glob("adapter"))

    events: list[Event] = []
    result = run.resume(RunFolder(target), events.append)

    assert [event.step for event in events if isinstance(event, Started)] == [4]
    assert result.steps == whole.steps
    ours, theirs = adapter(target), adapter(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    unkilled = RunFolder(tmp_path / "whole").read_metrics()
    kept = RunFolder(target).read_metrics()
    assert [(s["step"], s["loss"]) for s in kept] == [(s["step"], s["loss"]) for s in unkilled]
    assert not [entry.name for entry in (target / "checkpoints").iterdir() if entry.name.startswith(".")]


@pytest.mark.slow
def test_resuming_a_complete_run_only_reports_it(tiny: Path, rows: Path, tmp_path: Path) -> None:
    first = run.train(recipe_of(tiny, rows, tmp_path / "run"), lambda event: None)
    events: list[Event] = []

    again = run.resume(RunFolder(tmp_path / "run"), events.append)

    assert any(isinstance(event, Note) and "is already complete" in event.text for event in events)
    assert (again.steps, again.loss, again.weights) == (first.steps, first.loss, first.weights)


def stop_after(recipe: Recipe, steps: int) -> None:
    seen: list[Event] = []
    run.train(recipe, seen.append, lambda: sum(isinstance(event, StepDone) for event in seen) == steps - 1)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tiny: Path, rows: Path, tmp_path: Path) -> None:
    run.train(recipe_of(tiny, rows, tmp_path / "whole"), lambda event: None)
    stop_after(recipe_of(tiny, rows, tmp_path / "run"), 5)
    damaged = tmp_path / "run" / "checkpoints" / "checkpoint-5" / "optimizer.pt"
    damaged.write_bytes(damaged.read_bytes()[:-500])
    events: list[Event] = []

    run.resume(RunFolder(tmp_path / "run"), events.append)

    warnings = [event.text for event in events if isinstance(event, Note) and event.warning]
    assert any(text.startswith(f"{damaged} is damaged") for text in warnings)
    assert [event.step for event in events if isinstance(event, Started)] == [4]
    ours, theirs = adapter(tmp_path / "run"), adapter(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_damaged_file_of_the_run_is_named(tiny: Path, rows: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    stop_after(recipe_of(tiny, rows, folder.path, lora_r=4), 2)
    whole = {path: path.read_bytes() for path in (folder.recipe, folder.data)}
    folder.recipe.write_bytes(whole[folder.recipe].replace(b"lora_r = 4", b"lora_r = 8"))
    known = json.loads(whole[folder.data])
    folder.data.write_text(json.dumps({**known, "settings": {}}), encoding="utf-8")  # as of an older version
    with pytest.raises(InputError, match=r"checkpoint-2 does not fit this run \("):
        run.resume(folder, lambda event: None)
    for path, content in whole.items():
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match=rf"{path.name}: "):
            run.resume(folder, lambda event: None)
        path.write_bytes(content)


def test_a_run_is_not_resumed_with_other_data(tiny: Path, rows: Path, tmp_path: Path) -> None:
    run.train(recipe_of(tiny, rows, tmp_path / "run", max_steps=1), lambda event: None)
    write_rows(rows, 13)

    with pytest.raises(InputError, match="have changed since"):
        run.resume(RunFolder(tmp_path / "run"), lambda event: None)


def test_a_stopped_run_can_be_resumed(tiny: Path, rows: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny, rows, tmp_path / "stopped", save_steps=50)
    whole = run.train(recipe_of(tiny, rows, tmp_path / "whole", save_steps=50), lambda event: None)
    seen: list[Event] = []

    stopped = run.train(recipe, seen.append, lambda: sum(isinstance(event, StepDone) for event in seen) == 2)
    resumed = run.resume(RunFolder(tmp_path / "stopped"), lambda event: None)

    assert (stopped.steps, stopped.interrupted, stopped.weights) == (3, True, None)
    assert (resumed.steps, resumed.interrupted) == (whole.steps, False)
    ours, theirs = adapter(tmp_path / "stopped"), adapter(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_tokenizer_without_a_template_is_an_error(tiny: Path, rows: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    save_tiny(plain)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(plain)

    with pytest.raises(FrameError, match="no chat template"):
        run.train(recipe_of(plain, rows, tmp_path / "run"), lambda event: None)
    assert not (tmp_path / "run").exists()


def test_an_unavailable_model_is_an_error(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingError, match="cannot be loaded"):
        run.train(recipe_of(Path("nobody/nothing"), rows, tmp_path / "run"), lambda event: None)


def test_without_data_nothing_is_read() -> None:
    for needs_data in (run.train, run.dry_run, find_lr):
        with pytest.raises(InputError, match="no data given"):
            needs_data(Recipe(), lambda _: None)
    with pytest.raises(InputError, match="no data given"):
        run.read_data(Recipe())


def test_data_without_supervised_rows_is_an_error(tiny: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 0, quiet=3)
    with pytest.raises(
        InputError, match=r"no row can be used .*\(of 3\).*rows.jsonl:1: .*learn = 'calls' supervises no token"
    ):
        run.train(recipe_of(tiny, rows, tmp_path / "run"), lambda event: None)
    with pytest.raises(InputError, match="no data given"):
        run.train(Recipe(model=str(tiny)), lambda event: None)
    assert sum(1 for _ in read_rows(rows)) == 3


def test_missing_liger_is_an_error_before_training(
    tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentft.training.machine.has_liger", lambda: False)
    with pytest.raises(MissingError, match="liger = on needs an NVIDIA GPU"):
        run.train(recipe_of(tiny, rows, tmp_path / "run", liger="on"), lambda event: None)
    run.train(recipe_of(tiny, rows, tmp_path / "auto", max_steps=1), lambda event: None)
    assert read_resolved(tmp_path / "auto" / "recipe.toml").liger == "off"
