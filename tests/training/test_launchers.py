"""`agentft train` under torchrun, DeepSpeed's launcher and SLURM's variables: real processes, the curve of one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from agentft.runs import RunFolder
from tests.engine.samples import write_rows
from tests.tiny import save_tiny

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SECONDS = 300.0
SETTINGS = ["--method", "lora", "pack_tokens=320", "lr=0.01", "dtype=fp32", "batch=2", "epochs=2", "save_steps=2"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("inputs")
    model, rows = save_tiny(folder / "tiny"), write_rows(folder / "rows.jsonl", 12)
    return ["--model", str(model), "--data", str(rows), *SETTINGS]


@pytest.fixture(scope="module")
def alone(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert run(["train", *inputs, "--output", str(folder)]) == 0
    return [step["loss"] for step in RunFolder(folder).read_metrics()]


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def start(command: Sequence[str], **variables: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}
    pipes: dict[str, Any] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *command], env=environment, start_new_session=True, **pipes)


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """Their outputs and errors; whatever happens, neither they nor their children outlive the test."""
    try:
        found = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert [process.returncode for process in processes] == [0] * len(processes), found
    return found


def check(folder: Path, alone: Sequence[float]) -> None:
    """One run folder, of two processes, with the losses of one."""
    steps = RunFolder(folder).read_metrics()
    assert [step["loss"] for step in steps] == pytest.approx(alone, rel=1e-4)
    assert [len(step["ranks"]) for step in steps] == [2] * len(alone)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert RunFolder(folder).status == "finished"
    assert (folder / "log.txt").read_text().count("finished after step") == 1


@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_launchers_start_the_processes_of_one_run(
    launcher: str, inputs: list[str], alone: list[float], tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "run"
    command = {
        "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port(), "-m"],
        "deepspeed": ["-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", free_port(), "--module"],
    }[launcher]
    ((output, errors),) = finish([start([*command, "agentft", "train", *inputs, "--output", str(folder)])])

    check(folder, alone)
    assert output.count("rows: 12 = 12 kept") == 1, "the first process alone tells"
    assert errors.count("2 processes; each step deals 2 packs to them") == 1


def slurm_task(number: int, port: str) -> Mapping[str, str]:
    """The variables of one of two tasks that srun starts on one machine."""
    task = {"JOB_ID": "7", "STEP_NUM_TASKS": "2", "NTASKS": "2", "PROCID": str(number), "LOCALID": str(number)}
    return {f"SLURM_{name}": value for name, value in task.items()} | {"MASTER_PORT": port}


def test_tasks_of_slurm_are_one_run(inputs: list[str], alone: list[float], tmp_path: Path) -> None:
    folder, port = tmp_path / "runs" / "run", free_port()
    command = ["-m", "agentft", "train", *inputs, "--output", str(folder)]
    (output, _), other = finish([start(command, **slurm_task(number, port)) for number in (0, 1)])

    check(folder, alone)
    assert "rows: 12 = 12 kept" in output
    assert other[0] == ""
