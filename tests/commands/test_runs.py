"""`agentft train --detach` and `agentft runs`, with a terminal that goes away."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path

import pytest

from agentft.commands import run
from agentft.files import lock_folder, lock_holder
from agentft.runs import RunFolder
from tests.engine.samples import write_rows
from tests.models.test_opening import make_run
from tests.tiny import save_tiny
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


def test_runs_are_listed_with_their_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["runs", "list"]) == 0
    assert capfd.readouterr().out == "no run in runs/\n"
    made = RunFolder(make_run(Path("runs"), "a"))
    made.metrics.write_text('{"step": 3, "loss": 1.25}\n')
    made.data.write_text('{"steps": 8}')
    with lock_folder(made.path, "trained"):
        assert run(["runs", "list", "--json"]) == 0
        (found,) = json.loads(capfd.readouterr().out)
        expected = {"run": "runs/a", "status": "running", "process": os.getpid(), "step": 3, "loss": 1.25, "steps": 8}
        assert found == expected
    assert lock_holder(made.path) is None, "the lock is free, whatever process its file names"
    assert run(["runs", "show", "a"]) == 0
    assert capfd.readouterr().out == "runs/a: finished, step 3 of 8, loss 1.250\n"
    assert run(["runs", "show", "a", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == expected | {"status": "finished", "process": None, "measured": []}
    assert run(["runs", "stop", "last"]) == 2
    assert capfd.readouterr().err == "error: runs/a is not running; it is finished\n"


@pytest.mark.slow
def test_a_detached_run_outlives_its_terminal_and_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    model, rows = save_tiny(tmp_path / "tiny"), write_rows(tmp_path / "rows.jsonl", 12)
    command = [sys.executable, "-m", "agentft", "train", "--detach", "--model", str(model), "--data", str(rows)]
    settings = ["--method", "lora", "epochs=2000", "pack_tokens=320", "dtype=fp32"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*command, *settings])  # noqa: S606
    folder = RunFolder(Path("runs/rows-1"))
    wait_until(lambda: folder.holder() is not None)
    os.close(terminal)  # the terminal hangs up: SIGHUP to its session
    os.waitpid(child, 0)
    before = len(folder.read_metrics())
    wait_until(lambda: len(folder.read_metrics()) >= before + 2 or folder.holder() is None)

    assert folder.holder() is not None, folder.output.read_text()
    capfd.readouterr()  # of libraries that this process has imported
    assert run(["runs", "stop", "last"]) == 0
    found = capfd.readouterr().out
    assert found.startswith("runs/rows-1: unfinished, step ")
    assert found.endswith("; continue with: agentft train --resume runs/rows-1\n")
    assert folder.holder() is None
    step = folder.read_metrics()[-1]["step"]
    assert (folder.checkpoints / f"checkpoint-{step}").is_dir()
    assert "continue with: agentft train --resume runs/rows-1" in folder.output.read_text()
    assert run(["runs", "attach", "last"]) == 0
    assert "reading " in capfd.readouterr().err
