"""`agentft runs`: lists runs, shows, follows and stops one, also after the terminal that started it is gone."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from agentft.errors import AgentftError, InputError

if TYPE_CHECKING:
    from agentft.runs import RunFolder

__all__ = ["attach_run", "detach", "list_runs", "show_run", "stop_run"]

_POLL = 0.5
_STOP_SECONDS = 600.0
_Name = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, its name, or `last`.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def list_runs(as_json: _Json = False) -> None:
    """List the runs in runs/, the newest last.

    Example:
      agentft runs list
    """
    from agentft.display.terminal import say, say_json
    from agentft.runs import RUNS, RunFolder

    paths = sorted(RUNS.glob("*/recipe.toml"), key=lambda path: path.stat().st_mtime)
    folders = [RunFolder(path.parent) for path in paths]
    if as_json:
        say_json([_document(folder) for folder in folders])
        return
    say(*[_line(folder) for folder in folders] or [f"no run in {RUNS}/"])


def show_run(name: _Name = "last", as_json: _Json = False) -> None:
    """Show the state of a run: running or not, its steps, and its losses and scores as curves.

    Example:
      agentft runs show last
    """
    from agentft.display.terminal import say, say_json
    from agentft.display.training import curve_lines
    from agentft.runs import find_run

    folder = find_run(name)
    if as_json:
        say_json(_document(folder) | {"measured": folder.read_measured()})
        return
    say(_line(folder), *curve_lines(folder.read_metrics(), folder.read_measured()))


def attach_run(name: _Name = "last") -> None:
    """Follow the output of a running run. Ctrl-C leaves it running.

    Example:
      agentft runs attach last
    """
    from agentft.display.terminal import say
    from agentft.runs import find_run

    folder = find_run(name)
    source = folder.output if folder.output.exists() else folder.log
    if not source.exists():
        raise InputError(f"{folder.path} has no output to follow; agentft runs show {folder.path}")
    with source.open("rb") as stream:
        while folder.holder() is not None:
            _copy(stream)
            time.sleep(_POLL)
        _copy(stream)
    say(_line(folder))


def stop_run(name: _Name = "last") -> None:
    """Stop a running run after its current step, with a checkpoint.

    Example:
      agentft runs stop last
    """
    from agentft.display.terminal import say
    from agentft.runs import find_run

    folder = find_run(name)
    process = folder.holder()
    if process is None:
        raise InputError(f"{folder.path} is not running; it is {folder.status}")
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while folder.holder() == process:
        if time.monotonic() > deadline:
            raise AgentftError(f"process {process} still runs after {_STOP_SECONDS:.0f} s; to end it: kill {process}")
        time.sleep(_POLL)
    say(f"{_line(folder)}; continue with: agentft train --resume {folder.path}")


def detach(arguments: Sequence[str], folder: RunFolder) -> int:
    """Start `agentft` apart from this terminal; show its output until training starts. Returns its exit code.

    Args:
        arguments: those of this command.
        folder: of a new run, or of one to go on with.
    """
    import subprocess

    from agentft.display.terminal import say

    command = [part for part in arguments if part != "--detach"]
    with folder.output.open("ab") as written, folder.output.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        steps = len(folder.read_metrics())
        process = subprocess.Popen(  # noqa: S603  (our own module)
            [sys.executable, "-m", "agentft", *command],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
        while (code := process.poll()) is None and len(folder.read_metrics()) == steps:
            _copy(stream)
            time.sleep(_POLL)
        _copy(stream)
    if code is None:
        path = folder.path
        say(f"training goes on apart from this terminal: agentft runs attach {path}; to stop: agentft runs stop {path}")
    elif not any(folder.path.iterdir()):
        folder.path.rmdir()
    return code or 0


def _copy(stream: IO[bytes]) -> None:
    """Show what has been added."""
    from agentft.display.terminal import say_text

    if text := stream.read().decode("utf-8", "replace").rstrip("\n"):
        say_text(text, err=True)


def _document(folder: RunFolder) -> dict[str, Any]:
    rows, process = folder.read_metrics(), folder.holder()
    last = rows[-1] if rows else {"step": 0, "loss": None}
    return {
        "run": str(folder.path),
        "status": "running" if process is not None else folder.status,
        "process": process,
        **{k: last[k] for k in ("step", "loss")},
        "steps": folder.planned_steps(),
    }


def _line(folder: RunFolder) -> str:
    found = _document(folder)
    loss = "" if found["loss"] is None else f", loss {found['loss']:.3f}"
    process = f" (process {found['process']})" if found["process"] else ""
    return f"{found['run']}: {found['status']}{process}, step {found['step']} of {found['steps']}{loss}"
