"""`agentft train` is stopped: by Ctrl-C at a bad moment, and by a terminal that hangs up."""

from __future__ import annotations

import io
import os
import pty
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from agentft.commands.train import _Watch
from agentft.runs import RunFolder
from agentft.training.events import Note, Started
from tests.commands.run import REPOSITORY
from tests.engine.samples import write_rows
from tests.tiny import save_tiny


class Terminal(io.StringIO):
    """Ctrl-C is pressed while a line is written, and a write within a write is an error, as for a buffered file."""

    writing = False

    def write(self, text: str) -> int:
        if self.writing:
            raise RuntimeError("reentrant call")
        self.writing = True
        if "press here" in text:
            signal.raise_signal(signal.SIGINT)
        self.writing = False
        return super().write(text)


def test_ctrl_c_during_a_print_is_shown_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with _Watch(quiet=False) as watch:
        watch(Started(Path("runs/a"), 0, 9, 1, 2, "cpu"))
        before = set(threading.enumerate())
        watch(Note("press here"))
        for thread in set(threading.enumerate()) - before:
            thread.join()
    assert terminal.getvalue().splitlines()[1:] == [
        "press here",
        "finishing this step and saving; Ctrl-C again stops at once",
    ]


def test_a_run_that_is_stopped_at_once_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    def train() -> None:
        with _Watch(quiet=False) as watch:
            watch(Started(Path("out/a"), 0, 9, 1, 2, "cpu"))
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train()
    assert "stopped; continue from the last checkpoint with: agentft train --resume out/a\n" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_terminal_that_hangs_up_leaves_a_checkpoint(
    processes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("AGENTFT_PROCESSES", processes)
    model, rows = save_tiny(tmp_path / "tiny"), write_rows(tmp_path / "rows.jsonl", 8)
    command = [sys.executable, "-m", "agentft", "train", "--model", str(model), "--data", str(rows)]
    command += ["--method", "lora", "pack_tokens=256", "epochs=5000", "save_steps=1000000"]
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored
        os.execv(sys.executable, command)  # noqa: S606
    folder, deadline = RunFolder(Path("runs/rows-1")), time.monotonic() + 300
    while len(folder.read_metrics()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.close(terminal)  # SIGHUP to its session
    os.waitpid(child, 0)
    while folder.holder() and time.monotonic() < deadline:
        time.sleep(0.1)

    step = folder.read_metrics()[-1]["step"]
    assert (folder.checkpoints / f"checkpoint-{step}").is_dir()
    assert folder.log.read_text().splitlines()[-1].endswith(f"interrupted after step {step}")
