"""The trackers of `report_to`: packages of the same interface stand in for the real ones, and nothing is sent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import AgentftError, InputError, MissingError
from agentft.runs import RunFolder
from agentft.training.events import Event, Finished, Measurement, Note, StepDone
from agentft.training.installed import TRACKERS, check_trackers
from agentft.training.recipe import Recipe, check_places, read_recipe
from agentft.training.trackers import PROJECT, Trackers

STEP = StepDone(7, 0.5, 1.25, 1e-3, 0.5, 3, 300, 400, 60, 60.0, 0.5, 3 * 2**29)

RECORDER = """
calls = []

class Run:
    def __getattr__(self, name):
        return lambda *values, **named: calls.append((name, values, named))

def init(**named):
    if FAILS == "start": raise RuntimeError("no login\\nsecond line")
    calls.append(("init", (), named))
    run = Run()
    if FAILS == "log": run.log = fail
    return run

def fail(*_, **__): raise OSError("unreachable")

config = Run()

# mlflow
def search_experiments(**named): return []
def create_experiment(**named):
    calls.append(("experiment", (), named)); return "1"
def start_run(**named): calls.append(("init", (), named))
def log_params(values): calls.append(("update", (values,), {}))
def log_metrics(values, **named): calls.append(("log", (values,), named))
def end_run(): calls.append(("finish", (), {}))
class utils:
    class validation: MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH = 500, 100

# tensorboard
class SummaryWriter(Run):
    def __init__(self, *values): calls.append(("init", values, {}))
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
    for name in {module for names in TRACKERS.values() for module in names}:
        sys.modules.pop(name, None)


def trackers_of(tmp_path: Path, *names: str) -> tuple[Trackers, list[Event]]:
    events: list[Event] = []
    recipe = Recipe(data=("rows.jsonl",), weights={"answer": 0.5}, model="https://me:hunter2@hub/x", report_to=names)
    (tmp_path / "run").mkdir()
    return Trackers(recipe, RunFolder(tmp_path / "run"), events.append), events


FINISHED = Finished(None, ())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_tracker_gets_settings_and_figures(name: str, tmp_path: Path, stand_in: Any) -> None:
    calls = stand_in(name)
    trackers, events = trackers_of(tmp_path, name)
    trackers(STEP)
    trackers(Measurement(8, {"eval_score": 0.5}, 2.0))
    trackers(FINISHED)
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
    assert calls[0][2]["settings"] == {"console": "off", "disable_git": True, "disable_code": True, "silent": True}


def test_tensorboard_writes_into_the_run_folder(tmp_path: Path, stand_in: Any) -> None:
    calls = stand_in("tensorboardX")
    trackers, _ = trackers_of(tmp_path, "tensorboard")
    trackers(STEP)

    assert calls[0] == ("init", (str(tmp_path / "run" / "tensorboard"),), {})
    assert ("add_scalar", ("loss", 1.25), {"global_step": 7}) in calls


def test_a_tracker_that_cannot_start_ends_the_run_before_it_begins(tmp_path: Path, stand_in: Any) -> None:
    stand_in("trackio", "start")
    with pytest.raises(AgentftError, match=r"^report_to: trackio cannot start \(RuntimeError: no login\); set it up"):
        trackers_of(tmp_path, "trackio")


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
    with pytest.raises(InputError, match=r"^report_to: 'wandbb' is no tracker .omit it for none.; did you mean 'wandb'\?$"):
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
