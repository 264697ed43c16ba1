"""Two processes take the steps that one process takes, under DDP and each stage of ZeRO, over real gloo sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("ranks.py")
ROOT = Path(__file__).parents[2]
SPREAD = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(spread: str, method: str, folder: Path) -> dict[str, Any]:
    """Four packs a step: by one process, or two each by two."""
    target = folder / f"{spread}-{method}.json"
    launch, batch = ([], "4") if spread == "alone" else (SPREAD, "2")
    command = [sys.executable, *launch, str(WORKER), spread, method, batch, str(target)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(target.read_text())
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    return cache(lambda method: run("alone", method, tmp_path_factory.mktemp("alone")))


@pytest.mark.parametrize(("spread", "method"), [("ddp", "lora"), ("zero2", "lora"), ("zero3", "full")])
def test_two_processes_step_as_one_does(
    spread: str, method: str, tmp_path: Path, alone: Callable[[str], dict[str, Any]]
) -> None:
    one, two = alone(method), run(spread, method, tmp_path)

    assert len(one["losses"]) == 2
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-5)
    assert len(one["weights"]) > 20
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-4)
