"""`agentft train` in two processes on the CPU: the same curve as one, other numbers on resuming, a killed process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentft.runs import RunFolder
from tests.engine.samples import write_rows
from tests.tiny import save_tiny

ROOT = Path(__file__).parents[2]
SETTINGS = ["pack_tokens=320", "lr=0.01", "save_steps=2", "epochs=2", "dtype=fp32", "batch=2"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("inputs")
    model, rows = save_tiny(folder / "tiny"), write_rows(folder / "rows.jsonl", 12, quiet=2)
    return ["--model", str(model), "--data", str(rows), "--method", "lora"]


def start(arguments: list[str], processes: int, **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}
    environment["AGENTFT_PROCESSES"] = str(processes)
    command = [sys.executable, "-m", "agentft", "train", *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def train(arguments: list[str], processes: int) -> str:
    process = start(arguments, processes)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    return output + errors


def steps(folder: Path) -> list[dict[str, Any]]:
    return RunFolder(folder).read_metrics()


def wait_for_steps(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "metrics.jsonl").exists() and len((folder / "metrics.jsonl").read_text().splitlines()) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(process.communicate()[1])


@pytest.fixture(scope="module")
def alone(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone") / "run"
    train([*SETTINGS, *inputs, "--output", str(folder)], 1)
    return steps(folder)


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(inputs: list[str], alone: list[dict[str, Any]], tmp_path: Path) -> None:
    output = train([*SETTINGS, *inputs, "--output", str(tmp_path / "run"), "--json"], 2)

    assert json.loads(output[: output.index("}\n") + 2])["steps"] == len(alone)
    assert "2 processes; each step deals 2 packs to them" in output
    found = steps(tmp_path / "run")
    for key in ("loss", "grad_norm", "lr", "epoch", "samples", "tokens", "weight"):
        assert [step[key] for step in found] == pytest.approx([step[key] for step in alone], rel=1e-4), key
    assert [len(step["ranks"]) for step in found] == [2] * len(alone)
    assert all(0 <= use["idle"] <= 1 and use["memory"] > 1e7 for step in found for use in step["ranks"])
    assert not list((tmp_path / "run").glob(".*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(
    first: int, second: int, inputs: list[str], alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    process = start([*SETTINGS, *inputs, "--output", str(tmp_path / "run")], first)
    wait_for_steps(tmp_path / "run", 3, process)
    process.terminate()
    _, errors = process.communicate(timeout=200)
    if process.returncode != 0:  # it may have finished before the signal came
        assert process.returncode == 130, errors
        assert "continue with: agentft train --resume" in errors

    train(["--resume", str(tmp_path / "run")], second)

    assert [step["loss"] for step in steps(tmp_path / "run")] == pytest.approx([s["loss"] for s in alone], rel=1e-4)


def other_process(parent: int) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status, variables = (entry / "status").read_text(), (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"PPid:\t{parent}\n" in status and b"RANK=1" in variables:
                return int(entry.name)
    raise AssertionError("no second process")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process in /proc")
def test_a_killed_process_ends_the_run_with_one_error(
    inputs: list[str], alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    process = start([*SETTINGS, *inputs, "--output", str(tmp_path / "run")], 2)
    wait_for_steps(tmp_path / "run", 3, process)
    killed = other_process(process.pid)
    os.kill(killed, signal.SIGKILL)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2, errors
    assert time.monotonic() - began < 60
    assert re.findall(r"^(?:error:|Traceback).*", errors, re.M) == [
        f"error: process 1 of the run (pid {killed}) was killed by SIGKILL, perhaps by the system for lack of memory; "
        "the others were ended; continue from the last checkpoint with: agentft train --resume last"
    ]
    train(["--resume", str(tmp_path / "run")], 2)
    assert [step["loss"] for step in steps(tmp_path / "run")] == pytest.approx([s["loss"] for s in alone], rel=1e-4)
