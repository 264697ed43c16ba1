"""A rank killed at a random moment: one error, and resuming gives the weights of an undisturbed run, to be exported."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Timer

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from agentft.commands import run
from agentft.runs import RunFolder
from agentft.training import launch
from tests.engine.samples import write_rows
from tests.tiny import save_tiny
from tests.training.forks import Fork

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # DeepSpeed warns when it is imported
KILLS = int(os.environ.get("AGENTFT_TEST_KILLS", "4"))
SETTINGS = ["pack_tokens=320", "lr=0.01", "save_steps=1", "epochs=2", "dtype=fp32", "batch=2", "--learn", "balanced"]


class Killer:
    """Forks the processes that `launch` starts, and kills the second one `after` seconds, if asked to."""

    def __init__(self) -> None:
        self.after = 0.0

    def __call__(self, environment: Mapping[str, str], arguments: Sequence[str], log: Path, *_: object) -> Fork:

        def work() -> int:
            if environment["RANK"] != "0":
                for stream in (1, 2):
                    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            return run(arguments)

        fork = Fork(environment, work)
        if environment["RANK"] == "1" and self.after:
            Timer(self.after, fork.kill).start()
        return fork


@pytest.fixture
def killer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Killer:
    killer = Killer()
    monkeypatch.setattr(launch, "_start", killer)
    monkeypatch.setenv(launch.PROCESSES, "2")
    monkeypatch.chdir(tmp_path)
    return killer


@pytest.mark.parametrize(
    ("options", "kills"), [([], KILLS), (["--deepspeed", "zero3", "--method", "full"], KILLS // 3)]
)
def test_resuming_gives_the_weights_of_an_undisturbed_run(
    options: list[str], kills: int, killer: Killer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import deepspeed.runtime.zero.stage3  # noqa: F401  (before the forks)

    model, rows = save_tiny(tmp_path / "tiny"), write_rows(tmp_path / "rows.jsonl", 12)
    start = ["train", "--model", str(model), "--data", str(rows), "--method", "lora", *SETTINGS, *options, "--output"]
    with pytest.MonkeyPatch.context() as alone:
        alone.delenv(launch.PROCESSES)
        assert run([*start, "imported", "--deepspeed", ""]) == 0  # imports what no fork has to import again
    began = time.monotonic()
    assert run([*start, "whole"]) == 0
    whole, dice = time.monotonic() - began, random.Random(0)
    expected = {path.name: load_file(path) for path in Path("whole").glob("*/*.safetensors")}
    number, ended = 0, 0
    for _ in range(50 * kills):  # some come too late
        if ended == kills:
            break
        folder = RunFolder(Path(f"run-{number}"))
        killer.after, began = dice.uniform(0, whole), time.monotonic()
        command = (
            ["train", "--resume", str(folder.path)] if folder.status == "unfinished" else [*start, str(folder.path)]
        )
        capfd.readouterr()
        code, errors = run(command), capfd.readouterr().err
        if not code:
            whole = min(whole, time.monotonic() - began)  # the first may have met a busy machine
        else:
            ended += 1
            assert code == 2, errors
            found = re.findall(r"^(?:error: .*|Traceback)", errors, re.M)
            assert len(found) == 1, errors
            assert re.match(
                r"error: process 1 of the run \(pid \d+\) was killed by SIGKILL, .* --resume run-\d+$", found[0]
            )
        number += folder.status == "finished"
    assert ended == kills
    killer.after = 0.0
    for path in sorted(tmp_path.glob("run-*")):
        if RunFolder(path).status != "finished":
            assert (
                run(["train", "--resume", str(path)] if RunFolder(path).status != "empty" else [*start, str(path)]) == 0
            )
        for name, tensors in expected.items():
            found = load_file(next(path.glob(f"*/{name}")))
            assert all(torch.equal(found[key], value) for key, value in tensors.items()), path
    if "full" in options:
        assert run(["export", str(path), "--to", "merged", "--output", "merged"]) == 0
        ids = torch.arange(3, 60)[None]
        ours, theirs = (AutoModelForCausalLM.from_pretrained(one) for one in (path / "model", "merged"))
        assert torch.equal(ours(ids).logits, theirs(ids).logits)
        assert (theirs(ids).logits - AutoModelForCausalLM.from_pretrained(model)(ids).logits).abs().max() > 0.1
