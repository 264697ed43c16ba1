"""The trackers of `report_to`: packages of the same interface stand in for the real ones, and nothing is sent."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import AgentftError, InputError, MissingError
from agentft.runs import RunFolder
from agentft.training.events import Event, Finished, Measurement, Note, RunResult, StepDone
from agentft.training.installed import TRACKERS, check_trackers
from agentft.training.recipe import Recipe, check_places, read_recipe
from agentft.training.trackers import PROJECT, Trackers

STEP = StepDone(7, 0.5, 1.25, 1e-3, 0.5, 3, 300, 400, 60, 60.0, 0.5, 3 * 2**29)

RECORDER = """
calls = []

class Run:
    id = "7"
    info = type("Info", (), {"run_id": "7"})
    def __getattr__(self, name):
        return lambda *values, **named: calls.append((name, values, named))

def init(**named):
    if FAILS == "start": raise RuntimeError("no login\\nsecond line")
    calls.append(("init", (), named))
    print("a dashboard")
    run = Run()
    if FAILS == "log": run.log = fail
    return run

def fail(*_, **__): raise OSError("unreachable")

# trackio
def finish(): calls.append(("finish", (), {}))

config = Run()

# mlflow
def search_experiments(**named): return []
def create_experiment(**named):
    calls.append(("experiment", (), named)); return "1"
def start_run(**named): calls.append(("init", (), named)); return Run()
def log_params(values): calls.append(("update", (values,), {}))
def log_metrics(values, **named): calls.append(("log", (values,), named))
def end_run(status): calls.append(("finish", (), {"status": status}))
class utils:
    class validation: MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH = 500, 100

# tensorboard
class SummaryWriter(Run):
    def __init__(self, *values, **named): calls.append(("init", values, named))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs a recording package under a name; returns its list of calls."""

    def install(name: str, fails: str = "") -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        (tmp_path / "lib" / f"{name}.py").write_text(f"FAILS = {fails!r}\n{RECORDER}")
        calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = __import__(name).calls
        return calls

    (tmp_path / "lib").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    yield install
    for name in (*TRACKERS, "tensorboardX"):
        sys.modules.pop(name, None)


def trackers_of(tmp_path: Path, *names: str, done: int = 0) -> tuple[Trackers, list[Event]]:
    events: list[Event] = []
    recipe = Recipe(data=("rows.jsonl",), weights={"answer": 0.5}, model="https://me:hunter2@hub/x", report_to=names)
    (tmp_path / "run").mkdir(exist_ok=True)
    return Trackers(recipe, RunFolder(tmp_path / "run"), events.append, done), events


def ended(*, interrupted: bool) -> Finished:
    return Finished(RunResult(Path("run"), None, 1, 1.0, interrupted, None, 1.0), ())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_tracker_gets_settings_and_figures(name: str, tmp_path: Path, stand_in: Any) -> None:
    calls = stand_in(name)
    trackers, events = trackers_of(tmp_path, name)
    trackers(STEP)
    trackers(Measurement(8, {"eval_score": 0.5}, 2.0))
    trackers(ended(interrupted=False))
    trackers(STEP)

    kinds = [kind for kind, _, _ in calls if kind != "experiment"]
    assert kinds == ["init", "update", "log", "log", "finish"]
    (_, (settings,), _), (_, (figures,), at) = calls[-4], calls[-3]
    assert calls[-2] == ("log", ({"eval_score": 0.5},), {"step": 8})
    assert (settings["lora_r"], settings["weights"], settings["data"]) == (16, '{"answer": 0.5}', '["rows.jsonl"]')
    assert "hunter2" not in str(calls)
    assert at == {"step": 7}
    rest = {"tokens_per_second": 600.0, "memory_gib": 1.5}
    assert figures == {"loss": 1.25, "lr": 1e-3, "grad_norm": 0.5, "epoch": 0.5, **rest}
    assert events == []
    assert PROJECT in str(calls[:2])
    assert "run" in str(calls[:2])


def test_wandb_keeps_output_and_code_to_itself(tmp_path: Path, stand_in: Any) -> None:
    calls = stand_in("wandb")
    trackers_of(tmp_path, "wandb")
    assert calls[0][2]["dir"] == str(tmp_path / "run")
    quiet = {"disable_git": True, "disable_code": True, "x_disable_meta": True, "silent": True}  # meta: the command
    assert calls[0][2]["settings"] == {"console": "off", **quiet}


def test_tensorboard_writes_into_the_run_folder(tmp_path: Path, stand_in: Any) -> None:
    calls = stand_in("tensorboardX")
    trackers, _ = trackers_of(tmp_path, "tensorboard")
    trackers(STEP)

    assert calls[0] == ("init", (str(tmp_path / "run" / "tensorboard"),), {"purge_step": 1})
    assert ("add_scalar", ("loss", 1.25), {"global_step": 7}) in calls


def test_a_resumed_run_goes_on_in_the_trackers_runs(tmp_path: Path, stand_in: Any) -> None:
    found = {name: stand_in(name) for name in ("tensorboardX", "wandb", "mlflow", "trackio")}
    names = ("tensorboard", "wandb", "mlflow", "trackio")
    trackers_of(tmp_path, *names)
    for calls in found.values():
        calls.clear()
    trackers_of(tmp_path, *names, done=3)

    begun = {name: named for name, calls in found.items() for kind, _, named in calls if kind == "init"}
    assert begun["tensorboardX"] == {"purge_step": 4}  # TensorBoard forgets what came after the checkpoint
    assert (begun["wandb"]["id"], begun["wandb"]["resume"]) == ("7", "allow")
    assert begun["mlflow"]["run_id"] == "7"
    assert "id" not in begun["trackio"]  # it has only names
    settings = {name: [kind for kind, _, _ in calls].count("update") for name, calls in found.items()}
    assert settings == {"tensorboardX": 0, "wandb": 0, "mlflow": 0, "trackio": 1}  # MLflow refuses changed settings


@pytest.mark.parametrize("status", ["FINISHED", "KILLED", "FAILED"])
def test_trackers_learn_how_the_run_ended(status: str, tmp_path: Path, stand_in: Any) -> None:
    found = [stand_in("mlflow"), stand_in("wandb")]
    trackers, _ = trackers_of(tmp_path, "mlflow", "wandb")
    with closing(trackers):
        if status != "FAILED":
            trackers(ended(interrupted=status == "KILLED"))
    ends = [named for calls in found for kind, _, named in calls if kind == "finish"]
    assert ends == [{"status": status}, {"exit_code": int(status != "FINISHED")}]


def test_what_trackers_print_stays_out_of_the_results(
    tmp_path: Path, stand_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in("trackio")
    trackers_of(tmp_path, "trackio")
    assert capsys.readouterr().out == ""


def test_mlflow_does_not_report_its_use(tmp_path: Path, stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "")
    monkeypatch.delenv("DO_NOT_TRACK")
    stand_in("mlflow")
    trackers_of(tmp_path, "mlflow")
    assert os.environ["DO_NOT_TRACK"] == "true"


def test_a_tracker_that_cannot_start_ends_the_run_before_it_begins(tmp_path: Path, stand_in: Any) -> None:
    stand_in("trackio", "start")
    with pytest.raises(AgentftError, match=r"^report_to: trackio cannot start \(RuntimeError: no login\); set it up"):
        trackers_of(tmp_path, "trackio")


def test_a_tracker_that_cannot_start_again_does_not_keep_a_run_from_going_on(tmp_path: Path, stand_in: Any) -> None:
    """The recipe of a run cannot be changed, so there would be no way to go on."""
    stand_in("trackio", "start")
    calls = stand_in("wandb")
    trackers, events = trackers_of(tmp_path, "trackio", "wandb", done=3)
    trackers(STEP)
    assert [event.text for event in events if isinstance(event, Note)] == [
        "trackio cannot start and gets no figures (RuntimeError: no login)"
    ]
    assert "log" in [kind for kind, _, _ in calls]


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(tmp_path: Path, stand_in: Any) -> None:
    stand_in("trackio", "log")
    calls = stand_in("wandb")
    trackers, events = trackers_of(tmp_path, "trackio", "wandb")
    trackers(STEP)
    trackers(STEP)

    text = "trackio failed and gets no more figures (OSError: unreachable)"
    assert events == [Note(text, warning=True)]
    assert [kind for kind, _, _ in calls] == ["init", "update", "log", "log"]


def test_a_missing_tracker_is_named_with_its_remedy_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(
        InputError, match=r"^report_to: 'wandbb' is no tracker .omit it for none.; did you mean 'wandb'\?$"
    ):
        check_trackers(["wandbb"])
    recipe = read_recipe(None, ["report_to=trackio", f"data={tmp_path}/rows.jsonl"])
    assert recipe.report_to == ("trackio",)
    with pytest.raises(MissingError, match=r"^report_to: trackio is not installed; .* `pip install trackio`$"):
        check_places(recipe)


def test_a_folder_that_a_tracker_left_is_no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingError):
        check_trackers(["wandb"])
