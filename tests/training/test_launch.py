"""Counting and starting the processes of a run, and which of several failures is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import AgentftError, InputError, MissingError
from agentft.training import launch
from tests.waiting import PATIENCE

WORKER = """
import os, sys, time, signal

rank = os.environ["RANK"]
act = dict(part.split("=") for part in sys.argv[1:])[rank]
print("rank", rank, os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"], os.environ["MASTER_ADDR"])
if act == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if act == "wait":
    time.sleep(600)
if act == "own":
    print("error: its own message", file=sys.stderr); sys.exit(3)
if act == "bug":
    print("Traceback", file=sys.stderr); print("error: a bug", file=sys.stderr); sys.exit(70)
sys.exit(int(act))
"""


SSH = "#!/bin/sh\nshift $(($# - 2)); "
"""Leaves the host and the command."""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m agentft` is a script that ends as its arguments say."""
    (tmp_path / "agentft").mkdir()
    (tmp_path / "agentft" / "__init__.py").touch()
    (tmp_path / "agentft" / "__main__.py").write_text(WORKER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launch, "_GRACE", PATIENCE)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("acts", "code"), [(["0=0", "1=0"], 0), (["0=130", "1=0"], 130), (["0=2", "1=75"], 2), (["0=2", "1=own"], 2)]
)
def test_the_first_process_tells_its_own_end(acts: list[str], code: int) -> None:
    assert launch.launch(2, acts) == code


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("acts", "code", "message"),
    [
        (["0=75", "1=own"], 3, r"process 1 of the run failed; .*; its error: its own message$"),
        (["0=75", "1=bug"], 70, r"(?s)process 1 .*: a bug. Its last lines:\n.*Traceback\nerror: a bug$"),
        (["0=wait", "1=kill"], 2, r"process 1 .* was killed by SIGKILL, perhaps .*agentft train --resume runs/a$"),
        (["0=kill", "1=75"], 2, r"process 0 .* was killed by SIGKILL"),
        (["0=75", "1=5"], 5, r"(?s)process 1 .*exit code 5. Its last lines:\nrank 1 2 1 127.0.0.1$"),
    ],
)
def test_the_process_that_caused_the_end_is_named(
    acts: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "0=wait" in acts:
        monkeypatch.setattr(launch, "_GRACE", 1.0)
    with pytest.raises(AgentftError, match=message) as caught:
        launch.launch(2, acts, name="runs/a")
    assert caught.value.exit_code == code


@pytest.mark.usefixtures("worker")
def test_processes_of_other_machines_are_started_by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f'{SSH}echo "$1" >> reached; unset RANK LOCAL_RANK WORLD_SIZE; exec sh -c "$2"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    hostfile = tmp_path / "hosts"
    hostfile.write_text("localhost slots=1  # here\n\nother slots=2\n")
    hosts = launch.read_hosts(hostfile)

    assert hosts == ["localhost", "other", "other"]
    assert launch.launch(3, ["0=0", "1=0", "2=0"], hosts) == 0
    assert (tmp_path / "reached").read_text() == "other\nother\n"
    with pytest.raises(AgentftError, match=r"(?s)process 2 .*exit code 5.*rank 2 3 1 ") as caught:
        launch.launch(3, ["0=75", "1=75", "2=5"], hosts)
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    "said",
    [
        "ssh: connect to host other port 22: Connection timed out",
        "root@other: Permission denied (publickey,password).",
        "No ED25519 host key is known for other.\r\nHost key verification failed.",
    ],
)
def test_a_host_that_ssh_does_not_reach_is_named(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\necho \"$*\" > typed; printf '%s\\n' '{said}' >&2; exit 255\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(AgentftError) as caught:
        launch.launch(2, ["0=75", "1=0"], ["localhost", "other"], name="runs/a")
    last = said.splitlines()[-1].rstrip(".")
    assert str(caught.value).startswith(f"ssh does not reach other ({last}); it must log in without asking anything; ")
    assert "\n" not in str(caught.value)
    typed = (tmp_path / "typed").read_text()
    assert "BatchMode=yes" in typed  # or it would ask
    assert "ConnectTimeout=" in typed  # or it would wait for minutes
    assert "ServerAliveInterval=" in typed


@pytest.mark.usefixtures("worker")
def test_a_host_whose_process_does_not_join_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log-in hangs, or it cannot connect back: the first process gives up, and has nothing to tell."""
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec sleep 600\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(launch, "_GRACE", 1.0)
    with pytest.raises(AgentftError, match=r"^no answer from other; it must be able to connect to "):
        launch.launch(3, ["0=75"], ["localhost", "other", "other"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no host"),
        ("localhost", r"hosts:1: 'localhost' is not of the form"),
        ("localhost slots=0", "is not of the form"),
        ("-oProxy slots=1", "is not of the form"),
        ("elsewhere slots=2", "the first host, elsewhere, must be this machine"),
    ],
)
def test_a_hostfile_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(InputError, match=message):
        launch.read_hosts(tmp_path / "hosts")
    with pytest.raises(InputError, match="no such file"):
        launch.read_hosts(tmp_path / "none")


def test_gpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTFT_PROCESSES", raising=False)
    monkeypatch.setattr(launch, "may_have_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert [launch.count_processes(asked) for asked in (None, "1", "3", "4", "all")] == [1, 1, 3, 4, 4]
    with pytest.raises(MissingError, match="--gpus 5: PyTorch finds only 4"):
        launch.count_processes("5")
    monkeypatch.setenv("AGENTFT_PROCESSES", "2")
    with pytest.raises(InputError, match="use --gpus, since this one has 4"):
        launch.count_processes(None)
    assert launch.count_processes("4") == 4
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert launch.count_processes(None) == 2
    monkeypatch.setenv("AGENTFT_PROCESSES", "all")
    with pytest.raises(InputError, match=r"AGENTFT_PROCESSES 'all' is not a number from 1$"):
        launch.count_processes(None)


def test_the_place_among_processes_comes_from_torchrun_or_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    monkeypatch.setattr(os, "environ", {key: value for key, value in os.environ.items() if key not in names})
    launch.adopt_slurm()
    assert launch.rank_here() is None
    os.environ["WORLD_SIZE"] = "1"
    assert launch.rank_here() is None
    del os.environ["WORLD_SIZE"]
    task = {"STEP_NUM_TASKS": "4", "PROCID": "3", "LOCALID": "1", "STEP_NUM_NODES": "2", "JOB_ID": "40021"}
    os.environ.update({f"SLURM_{name}": value for name, value in (task | {"STEP_NODELIST": "node[1-2]"}).items()})
    shown: list[Any] = []

    def scontrol(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        shown.append(command)
        return subprocess.CompletedProcess(command, 0, "node1\nnode2\n", "")

    monkeypatch.setattr(subprocess, "run", scontrol)
    launch.adopt_slurm()

    assert shown == [["scontrol", "show", "hostnames", "node[1-2]"]]
    assert [os.environ[name] for name in names] == ["4", "3", "1", "node1", "20021"]
    assert launch.rank_here() == 3
    assert not launch.is_launched()
