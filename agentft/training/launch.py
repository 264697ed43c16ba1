"""Starts one process for each GPU of this machine, and ends them all when one of them fails.

The processes find each other as under torchrun: by RANK, WORLD_SIZE and a port of the loopback interface.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from agentft.errors import AgentftError, InputError, MissingError
from agentft.training.early import may_have_gpu

__all__ = [
    "LOST",
    "PROCESSES",
    "PeerLostError",
    "adopt_slurm",
    "count_processes",
    "is_launched",
    "launch",
    "rank_here",
    "read_hosts",
    "set_handlers",
]

PROCESSES = "AGENTFT_PROCESSES"
"""The environment variable that asks for several processes on a machine without a GPU."""
LOST = 75
"""Exit code of a process that ended because another one of its run did."""
_LAUNCHED = "AGENTFT_LAUNCHED"
_LOCAL = ("localhost", "127.0.0.1")
_PASSED = ("RANK", "LOCAL_", "WORLD_", "MASTER_", "OMP_", "NCCL_", "GLOO_", "HF_HUB_OFFLINE", "PYTHONPATH", _LAUNCHED)
"""Beginnings of the variables that other machines get, too."""
_GRACE = 5.0
"""Seconds after a failure in which the other processes may end by themselves, with errors of their own."""
_POLL = 0.1
_INTERRUPTED, _BUG, _UNREACHED = 130, 70, 255
_SSH = ("-oBatchMode=yes", "-oConnectTimeout=20", "-oServerAliveInterval=15", "-oServerAliveCountMax=4")
"""ssh asks nothing, and gives up a host that is silent: after 20 seconds at first, later after a minute."""
_SHOWN = 30


class PeerLostError(AgentftError):
    """Another process of the run ended, so this one cannot go on."""

    exit_code = LOST


def rank_here() -> int | None:
    """This process's number in its run; None if it is the only one."""
    size = os.environ.get("WORLD_SIZE", "1")
    return int(os.environ.get("RANK", "0")) if size.isdecimal() and int(size) > 1 else None


def is_launched() -> bool:
    """Whether `launch` started this process."""
    return _LAUNCHED in os.environ


def adopt_slurm() -> None:
    """Set torchrun's variables in a task that SLURM's srun started beside others; change nothing elsewhere."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if "WORLD_SIZE" in os.environ or not tasks.isdecimal() or int(tasks) < 2:
        return
    nodes = os.environ.get("SLURM_STEP_NODELIST", "")
    first = "127.0.0.1"
    if os.environ.get("SLURM_STEP_NUM_NODES", "1") != "1" and "MASTER_ADDR" not in os.environ:
        command = ["scontrol", "show", "hostnames", nodes]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (no shell)
        if not shown.stdout.split():
            raise InputError(f"scontrol does not resolve SLURM_STEP_NODELIST = {nodes!r}; set MASTER_ADDR")
        first = shown.stdout.split()[0]
    os.environ.setdefault("MASTER_ADDR", first)
    os.environ.setdefault("MASTER_PORT", str(20_000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20_000))
    os.environ |= {"RANK": os.environ["SLURM_PROCID"], "LOCAL_RANK": os.environ["SLURM_LOCALID"], "WORLD_SIZE": tasks}


def count_processes(gpus: str | None) -> int:
    """The number of processes that `--gpus` (or, without a GPU, `AGENTFT_PROCESSES`) asks for; 1 without either.

    Raises:
        InputError: it is not a number or `all`.
        MissingError: this machine has fewer GPUs.
    """
    asked = gpus if gpus is not None else os.environ.get(PROCESSES, "1")
    name = "--gpus" if gpus is not None else PROCESSES
    if not (asked.isdecimal() and int(asked) > 0) and (gpus is None or asked != "all"):
        raise InputError(f"{name} {asked!r} is not a number from 1{' or `all`' if gpus is not None else ''}")
    if gpus is None and asked == "1":
        return 1
    here = 0
    if may_have_gpu():
        import torch

        here = torch.cuda.device_count()
    if gpus is None:
        if here:
            raise InputError(f"{PROCESSES} is for machines without a GPU; use --gpus, since this one has {here}")
        return int(asked)
    if not here:
        raise MissingError(f"--gpus {asked}: PyTorch finds no GPU here; several processes on a CPU: {PROCESSES}=2")
    if asked != "all" and int(asked) > here:
        raise MissingError(f"--gpus {asked}: PyTorch finds only {here} on this machine; give at most that, or `all`")
    return here if asked == "all" else int(asked)


def read_hosts(path: Path) -> list[str]:
    """The host of each process, from a hostfile of DeepSpeed or MPI: lines of `HOST slots=N`.

    Raises:
        InputError: a line is not of this form, or the first host is not this machine.
    """
    if not path.is_file():
        raise InputError(f"--hostfile {path}: no such file; write a line `HOST slots=GPUS` for each machine")
    hosts: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if text := line.partition("#")[0].strip():
            match = re.fullmatch(r"([\w.:@-]+)\s+slots\s*=\s*([1-9]\d*)", text)
            if match is None or match[1].startswith("-"):
                raise InputError(f"{path}:{number}: {text!r} is not of the form `HOST slots=GPUS`")
            hosts += [match[1]] * int(match[2])
    if not hosts:
        raise InputError(f"{path} names no host; write a line `HOST slots=GPUS` for each machine")
    here = socket.gethostname()
    if hosts[0] not in (*_LOCAL, here, here.partition(".")[0], socket.getfqdn()):
        raise InputError(f"{path}: the first host, {hosts[0]}, must be this machine ({here}), which shows the progress")
    return hosts


def set_handlers(handlers: Mapping[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    """Handle signals, but not a SIGHUP that nohup has switched off; return the handlers that were replaced."""
    ignored = signal.SIGHUP if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else None
    return {number: signal.signal(number, handler) for number, handler in handlers.items() if number is not ignored}


def launch(
    count: int, arguments: Sequence[str], hosts: Sequence[str] = (), stdout: TextIO | None = None, name: str = "last"
) -> int:
    """Run `agentft` with these arguments in `count` processes; return the exit code of the run.

    The first process has this one's terminal. The output of the others is shown only if they fail. `hosts`: the machine
    of each process, the first of them being this one; the others are reached by ssh. `stdout`: the first process's.
    `name`: the run as `--resume` takes it.

    Raises:
        AgentftError: a process failed or was killed; the others were ended.
    """
    places = list(hosts) or [_LOCAL[0]] * count
    own = places.count(places[0])
    threads = str(max((os.cpu_count() or 1) // own, 1))
    first = _LOCAL[1] if own == count else socket.gethostname() if places[0] in _LOCAL else places[0]
    shared = {"OMP_NUM_THREADS": threads, **os.environ, "WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": first, "MASTER_PORT": str(_free_port()), _LAUNCHED: str(os.getpid())}
    shared.pop(PROCESSES, None)
    with tempfile.TemporaryDirectory(prefix="agentft-") as folder, ExitStack() as stack:
        logs = [Path(folder) / f"rank-{rank}.txt" for rank in range(count)]
        children: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, children)
        stack.enter_context(_signals_for(children))
        for rank, log in enumerate(logs):
            host, local = places[rank], str(places[:rank].count(places[rank]))
            place = {"RANK": str(rank), "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": str(places.count(host))}
            children.append(_start(shared | place, arguments, log, host if host != places[0] else "", stdout))
        failed = _first_failure(children)
        silent = sorted({places[rank] for rank, child in enumerate(children) if child.poll() is None})
        if failed == 0 and children[0].returncode == LOST and silent:
            raise AgentftError(f"no answer from {', '.join(silent)}; it must be able to connect to {first}")
        if failed is None or (failed == 0 and children[0].returncode > 0):
            return children[0].returncode  # it has told why it failed, if it did
        raise _failure(failed, children[failed], logs[failed], name)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _start(
    environment: Mapping[str, str], arguments: Sequence[str], log: Path, host: str, stdout: TextIO | None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "agentft", *arguments]
    if host:
        passed = [f"{name}={value}" for name, value in environment.items() if name.startswith(_PASSED)]
        script = f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join(['env', *passed, *command])}"
        # With a terminal (-tt), the remote process ends when ssh does.
        command = ["ssh", *_SSH, "-tt", host, script]
    if environment["RANK"] == "0":
        return subprocess.Popen(command, env=environment, stdout=stdout)  # noqa: S603  (our own module)
    with log.open("wb") as stream:
        return subprocess.Popen(  # noqa: S603  (our own module)
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=bool(host),  # Ctrl-C would end ssh
        )


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.kill()
        child.wait()


@contextmanager
def _signals_for(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass SIGTERM and SIGHUP on to the processes, which save a checkpoint. A terminal sends them SIGINT itself."""

    def terminate(number: int, frame: FrameType | None) -> None:
        del number, frame
        for child in children:
            if isinstance(child.args, list) and child.args[0] != "ssh":  # the others stop with the first process
                child.terminate()

    before = set_handlers({signal.SIGTERM: terminate, signal.SIGHUP: terminate, signal.SIGINT: lambda *_: None})
    try:
        yield
    finally:
        set_handlers(before)


def _first_failure(children: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all processes, or for the first failure and then a moment; return the number of the one that caused it.

    Those that ended because of another one (with `LOST`) come last, then those with a bug: losing the connection at an
    unforeseen place looks like one.
    """
    deadline = float("inf")
    order: list[int] = []
    while len(order) < len(children) and time.monotonic() < deadline:
        for rank, child in enumerate(children):
            if rank not in order and child.poll() is not None:
                order.append(rank)
                if child.returncode not in (0, _INTERRUPTED):
                    deadline = min(deadline, time.monotonic() + _GRACE)
        time.sleep(_POLL)
    failed = [rank for rank in order if children[rank].returncode not in (0, _INTERRUPTED)]
    suspects = {_BUG: 1, LOST: 2}
    return min(failed, key=lambda rank: (suspects.get(children[rank].returncode, 0), rank > 0), default=None)


def _failure(rank: int, child: subprocess.Popen[bytes], log: Path, name: str) -> AgentftError:
    """The error of a process that was killed, or that is not the first and so has no terminal."""
    then = f"the others were ended; continue from the last checkpoint with: agentft train --resume {name}"
    if child.returncode < 0:
        number = signal.Signals(-child.returncode)
        why = ", perhaps by the system for lack of memory" if number == signal.SIGKILL else ""
        return AgentftError(f"process {rank} of the run (pid {child.pid}) was killed by {number.name}{why}; {then}")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    if child.returncode == _UNREACHED and isinstance(child.args, list) and child.args[0] == "ssh":
        why, host = lines[-1].rstrip(".") if lines else "it says nothing", child.args[-2]
        return AgentftError(f"ssh does not reach {host} ({why}); it must log in without asking anything; {then}")
    own = next((line for line in reversed(lines) if line.startswith("error: ")), "")
    text = own.removeprefix("error: ") or f"exit code {child.returncode}"
    if child.returncode == _BUG or not own:
        text = "\n".join([f"{text}. Its last lines:", *lines[-_SHOWN:]])
    error = AgentftError(f"process {rank} of the run failed; {then}; its error: {text}")
    error.exit_code = child.returncode
    return error
