"""`agentft train` as users run it: results on stdout, notes on stderr, exit codes, Ctrl-C, a full disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentft.commands import run
from agentft.errors import InputError
from agentft.runs import RunFolder
from agentft.training.recipe import Recipe
from tests.commands.run import REPOSITORY
from tests.engine.samples import write_rows
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, to work in."""
    write_rows(tmp_path / "rows.jsonl", 8, quiet=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_prints_its_result_and_the_curve(tiny: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = run(["train", "--model", str(tiny), "--data", "rows.jsonl", "pack_tokens=512", "lr=0.01", "epochs=2"])

    out, err = capfd.readouterr()
    assert code == 0, err
    assert "rows: 9 = 9 kept + 0 rejected, 1 of the kept without a supervised token" in out
    assert "┤" in out
    assert out.splitlines()[-1] == "runs/rows-1/adapter"
    assert "next: agentft chat --adapter runs/rows-1 (or agentft eval SUITE" in err
    assert "step 1/" in err
    assert "warning: 1 turn correctly makes no call" in err
    assert "warning: 8 turns answer after a tool's result" in err
    waits = ("loading PyTorch and transformers", "reading ", "loading ")
    assert [line.startswith(wait) for line, wait in zip(err.splitlines(), waits, strict=False)][:2] == [True, True]


def test_json_is_one_document_and_quiet_is_quiet(tiny: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "recipe.toml").write_text('data = "rows.jsonl"\npack_tokens = 512\nmax_steps = 1\nlearn = "balanced"\n')

    code = run(["train", "recipe.toml", "--model", str(tiny), "--json", "--quiet", "--output", "out"])

    out, err = capfd.readouterr()
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["run"] == "out"
    assert (document["rows"], document["trained"], document["rejected"], document["steps"]) == (9, 9, 0, 1)


def test_every_option_of_the_recipe_reaches_the_run(
    tiny: Path, here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes: list[Recipe] = []

    def train(recipe: Recipe, *_: object, **__: object) -> None:
        recipes.append(recipe)
        raise InputError("no run is wanted")

    monkeypatch.setattr("agentft.training.run.train", train)
    held = str(write_rows(here / "held.jsonl", 3))
    values = {"method": "full", "learn": "balanced", "format": "hermes", "eval_data": held, "output": "out", "seed": 7}
    given = [part for key, value in values.items() for part in (f"--{key.replace('_', '-')}", str(value))]

    assert run(["train", "--model", str(tiny), "--data", "rows.jsonl", "--data", "held.jsonl", *given, "--quiet"]) == 2

    assert capfd.readouterr().err == "error: no run is wanted\n"
    assert {key: getattr(recipes[0], key) for key in values} == values
    assert (recipes[0].model, recipes[0].data) == (str(tiny), (str(here / "rows.jsonl"), held))


@pytest.mark.parametrize("way", ["gpus", "hostfile"])
def test_several_processes_are_started(
    way: str, tiny: Path, here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "hosts").write_text("localhost slots=2\n")
    given = {"gpus": ["--gpus", "all"], "hostfile": ["--hostfile", "hosts"]}[way]
    monkeypatch.setattr("agentft.training.launch.may_have_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    started: list[tuple[int, list[str]]] = []

    def launch(processes: int, arguments: list[str], hosts: list[str], *_: object) -> int:
        started.append((processes, hosts))
        return 0

    monkeypatch.setattr("agentft.training.launch.launch", launch)
    assert run(["train", "--model", str(tiny), "--data", "rows.jsonl", "--quiet", *given]) == 0
    assert started == [(2, ["localhost"] * 2 if way == "hostfile" else [])]
    assert not (here / "runs").exists()


def test_a_detached_run_is_left_to_a_process_of_its_own(
    tiny: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[tuple[list[str], Path]] = []
    monkeypatch.setattr("agentft.commands.runs.detach", lambda arguments, folder: left.append((arguments, folder.path)))
    command = ["train", "--model", str(tiny), "--data", "rows.jsonl", "--detach"]
    assert run(command) == 0
    assert left == [([*command, "--output", "runs/rows-1"], Path("runs/rows-1"))]


def test_a_dry_run_as_json(tiny: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = run(["train", "--model", str(tiny), "--data", "rows.jsonl", "--dry-run", "--json"])

    document = json.loads(capfd.readouterr().out)
    assert code == 0
    assert (document["rows"], document["trained"], document["rows_without_supervised_tokens"]) == (9, 8, 1)
    assert 0 < document["supervised_share"] < 1
    assert document["steps"] == document["packing"]["packs"]
    assert len(document["longest"]) == 5
    assert not (here / "runs").exists()


def test_a_dry_run_refuses_what_the_run_would_refuse(tiny: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["train", "--model", str(tiny), "--data", "rows.jsonl", "--output", "full", "--dry-run"]
    Path("full").mkdir()
    assert run([*options, "max_steps=1"]) == 0
    Path("full", "notes.txt").write_text("mine")
    assert run(options) == 2
    assert "full already exists and is not empty" in capfd.readouterr().err
    assert [path.name for path in Path("full").iterdir()] == ["notes.txt"]


def test_a_dry_run_as_text(tiny: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--model", str(tiny), "--data", "rows.jsonl", "--dry-run"]) == 0

    out = capfd.readouterr().out
    assert "rows: 9 = 9 kept + 0 rejected" in out
    assert "longest samples:" in out
    few = ["pack_tokens=256", "epochs=2", "max_steps=1"]
    assert run(["train", "--model", str(tiny), "--data", "rows.jsonl", "--dry-run", *few]) == 0
    assert re.search(r"^steps: 1 over 0\.\d+ epochs$", capfd.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "none.jsonl"], "none.jsonl does not exist"),
        ([], "no data given"),
        (["--data", "rows.jsonl", "epoch=1"], "did you mean 'epochs'"),
        (["none.toml"], "none.toml: cannot be read (No such file or directory); give a TOML file"),
        (["--data", "rows.jsonl", "--output", "taken"], "taken already exists and is not empty"),
        (["--data", "rows.jsonl", "learning_rate=1"], "there is no key 'learning_rate'; did you mean 'lr'?"),
        (
            ["--data", "rows.jsonl", "--lr", "1"],
            "no such option: --lr; settings are written KEY=VALUE",
        ),
        (
            ["rows.jsonl"],
            "rows.jsonl is a data file, not a recipe (TOML); write --data rows.jsonl (agentft data: one file)",
        ),
        (["--data", "rows.jsonl", "--model", "smollm2-135"], "no model 'smollm2-135'; did you mean 'smollm2-135m'?"),
        (["--data", "rows.jsonl", "--model", "./gone"], "./gone: there is no such folder"),
        (["--resume", "last"], "there is no run in runs/"),
        (["--resume", "last", "--data", "rows.jsonl"], "--resume takes all settings from the run"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    tiny: Path, here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (here / "taken").mkdir()
    (here / "taken" / "x").touch()
    model = [] if {"--resume", "--model"} & set(arguments) else ["--model", str(tiny)]

    code = run(["train", *arguments, *model])

    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_wrong_setting_is_refused_before_anything_heavy_is_imported(here: Path) -> None:
    heavy = ("torch", "transformers", "peft", "accelerate", "numpy", "datasets", "rich.progress")
    wrong = [["learning_rate=1"], ["epochs=0"], ["method=qlra"], ["--lr", "1"], ["--output", "rows.jsonl"], ["x=1"]]
    code = (
        "import sys\nfrom agentft.commands import run\n"
        f"assert [run(['train', '--data', 'rows.jsonl', *one]) for one in {wrong}] == [2] * {len(wrong)}\n"
        "assert run(['train', '--data', 'gone.jsonl']) == 2\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("option", "code", "message"),
    [
        ("0", 2, "--gpus '0' is not a number from 1 or `all`"),
        ("two", 2, "--gpus 'two' is not a number from 1 or `all`"),
        ("2", 3, "--gpus 2: PyTorch finds no GPU here; several processes on a CPU: AGENTFT_PROCESSES=2"),
    ],
)
def test_gpus_that_are_not_here_are_refused(
    option: str, code: int, message: str, here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert run(["train", "--data", "rows.jsonl", "--gpus", option]) == code
    assert capfd.readouterr().err == f"error: {message}\n"
    assert not (here / "runs").exists()


def test_strict_exits_1(tiny: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Path("rows.jsonl").open("a", encoding="utf-8") as file:
        file.write("{not json\n")
    assert run(["train", "--model", str(tiny), "--data", "rows.jsonl", "--strict"]) == 1
    assert "1 of 10 rows were rejected (invalid-json 1)" in capfd.readouterr().err


def test_an_output_that_cannot_be_written_is_one_line(
    tiny: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "file").touch()

    code = run(["train", "--model", str(tiny), "--data", "rows.jsonl", "--output", "file/run", "--quiet"])

    assert code == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_a_full_disk_is_one_line(tiny: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (here / "run").mkdir()
    before = RunFolder.__init__

    def on_a_full_disk(folder: RunFolder, path: Path) -> None:
        before(folder, path)
        folder.metrics = Path("/dev/full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "__init__", on_a_full_disk)
        code = run(["train", "--model", str(tiny), "--data", "rows.jsonl", "--learn", "balanced", "--quiet"])

    assert RunFolder.__init__ is before
    err = capfd.readouterr().err
    assert code == 2
    assert "the disk is full" in err
    assert err.count("\n") == 1


INTERRUPTED = """
import os, signal, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
from agentft.commands import run

steps = []

def press(*_):
    steps.append(1)
    if len(steps) == 2:
        os.kill(os.getpid(), signal.SIGINT)

register_optimizer_step_post_hook(press)
sys.exit(run(sys.argv[1:]))
"""
"""`agentft`, with Ctrl-C in the second step, however fast the machine is."""


@pytest.mark.slow
def test_resume_after_a_move_names_the_recipe_and_its_key(
    tiny: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    old = here / "old"
    shutil.copytree(tiny, old / "tiny")
    shutil.copy("rows.jsonl", old)
    given = ["--model", "old/tiny", "--data", "old/rows.jsonl", "--output", "old/run", "max_steps=1", "-q"]
    assert run(["train", *given]) == 0
    recipe = old.rename(here / "new") / "run" / "recipe.toml"
    for key, name in (("data", "rows.jsonl"), ("model", "tiny")):
        capfd.readouterr()
        assert run(["train", "--resume", "new/run"]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"error: new/run/recipe.toml: {old / name}")
        assert f"`{key}` must be a " in line
        assert "--model" not in line
        recipe.write_text(recipe.read_text().replace(str(old / name), str(here / "new" / name)))
    assert run(["train", "--resume", "new/run"]) == 0


def test_ctrl_c_saves_and_resume_continues(tiny: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", INTERRUPTED, "train", "--model", str(tiny), "--data", "rows.jsonl"]
    settings = ["pack_tokens=256", "epochs=20", "save_steps=1000", "--learn", "balanced"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    child = subprocess.run([*command, *settings], capture_output=True, text=True, check=False, env=environment)

    assert child.returncode == 130, child.stderr
    assert "finishing this step and saving" in child.stderr
    assert "agentft train --resume runs/rows-1" in child.stderr
    assert "rows: 9 = 9 kept + 0 rejected" in child.stdout
    metrics = here / "runs" / "rows-1" / "metrics.jsonl"
    steps = metrics.read_text().count("\n")
    assert [entry.name for entry in (here / "runs/rows-1/checkpoints").iterdir()] == [f"checkpoint-{steps}"]

    assert run(["train", "--resume", "last", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["interrupted"] is False
    assert metrics.read_text().count("\n") == document["steps"] > steps
