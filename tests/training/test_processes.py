"""`agentft train` in two processes on the CPU: the same curve as one, other numbers on resuming, a killed process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from agentft.commands import run
from agentft.runs import RunFolder
from agentft.training import launch
from tests.engine.samples import write_rows
from tests.tiny import save_tiny
from tests.training.forks import Fork
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
SETTINGS = ["pack_tokens=320", "lr=0.01", "save_steps=2", "epochs=4", "dtype=fp32", "batch=2"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("inputs")
    model, rows = save_tiny(folder / "tiny"), write_rows(folder / "rows.jsonl", 12, quiet=2)
    return ["--model", str(model), "--data", str(rows), "--method", "lora"]


def start(arguments: list[str], processes: int, **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}
    environment["AGENTFT_PROCESSES"] = str(processes)
    command = [sys.executable, "-m", "agentft", "train", *arguments]
    pipes: dict[str, Any] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Its output and errors. Its ranks hold the pipes, too, so after the time limit they are killed with it."""
    try:
        return process.communicate(timeout=400)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def in_step(number: int, act: Callable[[], object]) -> None:
    """Call `act` in this process's step of this number."""
    numbers = count(1)

    def step(*_: object) -> None:
        if next(numbers) == number:
            act()

    register_optimizer_step_post_hook(step)


def terminate(leader: int) -> None:
    """Send SIGTERM to the process that leads the run, and go on once it has passed it on to this one."""
    handler: Any = signal.getsignal(signal.SIGTERM)
    came: list[object] = []
    signal.signal(signal.SIGTERM, lambda *given: came.append(handler(*given)))
    os.kill(leader, signal.SIGTERM)
    wait_until(lambda: came)


def start_fork(
    arguments: list[str], processes: int, log: Path, prepare: Callable[[int, int], object] = lambda *_: None
) -> Fork:
    """The same command in a fork, whose ranks are forks of it: nothing is imported again.

    `prepare` is called in each rank, with its number and the process that leads the run.
    """

    def work() -> int:
        leader = os.getpid()

        def start(environment: Mapping[str, str], command: Sequence[str], *_: object) -> Fork:
            def rank() -> int:
                prepare(int(environment["RANK"]), leader)
                return run(command)

            return Fork(environment, rank)

        vars(launch)["_start"] = start
        sys.stdout = sys.stderr = log.open("a", buffering=1)  # noqa: SIM115  (ends with the fork)
        if processes == 1:
            prepare(0, leader)
        return run(["train", *arguments])

    return Fork({launch.PROCESSES: str(processes)}, work)


def train(arguments: list[str], processes: int, log: Path) -> str:
    fork = start_fork(arguments, processes, log)
    fork.wait()
    assert fork.returncode == 0, log.read_text()
    return log.read_text()


def steps(folder: Path) -> list[dict[str, Any]]:
    return RunFolder(folder).read_metrics()


@pytest.fixture(scope="module")
def alone(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The curve of one process: this one, so that the libraries are imported before any fork."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert run(["train", *SETTINGS, *inputs, "--output", str(folder)]) == 0
    return steps(folder)


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(inputs: list[str], alone: list[dict[str, Any]], tmp_path: Path) -> None:
    process = start([*SETTINGS, *inputs, "--output", str(tmp_path / "run"), "--json"], 2)
    output, errors = finish(process)

    assert process.returncode == 0, errors
    assert json.loads(output)["steps"] == len(alone)
    assert "2 processes; each step deals 2 packs to them" in errors
    found = steps(tmp_path / "run")
    for key in ("loss", "grad_norm", "lr", "epoch", "samples", "tokens", "weight"):
        assert [step[key] for step in found] == pytest.approx([step[key] for step in alone], rel=1e-4), key
    assert [len(step["ranks"]) for step in found] == [2] * len(alone)
    assert all(0 <= use["idle"] <= 1 and use["memory"] > 1e7 for step in found for use in step["ranks"])
    assert not list((tmp_path / "run").glob(".*.partial"))


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_two_processes_give_the_held_out_loss_of_one(inputs: list[str], tmp_path: Path) -> None:
    losses = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        settings = [*SETTINGS, *inputs, "eval_data=0.25", "max_steps=2", "--output", str(folder)]
        train(settings, processes, tmp_path / "log")
        losses.append([line["eval_loss"] for line in RunFolder(folder).read_measured()])

    assert losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(
    first: int, second: int, inputs: list[str], alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    def prepare(rank: int, leader: int) -> None:
        if rank == 0:
            in_step(1, lambda: terminate(leader))

    fork = start_fork([*SETTINGS, *inputs, "--output", str(tmp_path / "run")], first, tmp_path / "log", prepare)
    fork.wait()
    assert fork.returncode == 130, (tmp_path / "log").read_text()
    assert "continue with: agentft train --resume" in (tmp_path / "log").read_text()
    assert 0 < len(steps(tmp_path / "run")) < len(alone)

    train(["--resume", str(tmp_path / "run")], second, tmp_path / "log")

    assert [step["loss"] for step in steps(tmp_path / "run")] == pytest.approx([s["loss"] for s in alone], rel=1e-4)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_one_error(
    inputs: list[str], alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    def prepare(rank: int, _: int) -> None:
        if rank == 1:
            in_step(3, lambda: os.kill(os.getpid(), signal.SIGKILL))

    fork = start_fork([*SETTINGS, *inputs, "--output", str(tmp_path / "run")], 2, tmp_path / "killed", prepare)
    fork.wait()

    errors = (tmp_path / "killed").read_text()
    assert fork.returncode == 2, errors
    (error,) = re.findall(r"^(?:error:|Traceback).*", errors, re.M)
    assert re.fullmatch(
        r"error: process 1 of the run \(pid \d+\) was killed by SIGKILL, perhaps by the system for lack of memory; "
        f"the others were ended; continue from the last checkpoint with: agentft train --resume {tmp_path / 'run'}",
        error,
    )
    assert len(steps(tmp_path / "run")) == 2 < len(alone)
    train(["--resume", str(tmp_path / "run")], 2, tmp_path / "log")
    assert [step["loss"] for step in steps(tmp_path / "run")] == pytest.approx([s["loss"] for s in alone], rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_the_first_process_scores_while_the_other_waits(inputs: list[str], tmp_path: Path) -> None:
    scores = [
        "score_suite=calculator",
        "score_cases=2",
        "score_steps=2",
        "max_steps=3",
        "--output",
        str(tmp_path / "run"),
    ]
    shown = train([*inputs, *SETTINGS, *scores], 2, tmp_path / "log")

    folder = RunFolder(tmp_path / "run")
    assert [(row["step"], row["eval_cases"]) for row in folder.read_measured()] == [(2, 2.0), (3, 2.0)]
    assert len(folder.read_metrics()) == 3
    assert "step 2: score " in shown
    assert {path.name for path in folder.evaluations.iterdir()} == {"step-2", "step-3"}
