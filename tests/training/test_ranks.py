"""Under DDP and ZeRO, two processes take the same steps as one process, over real gloo sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("ranks.py")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}

    assert len(found) == 5
    for spread, method in (("ddp", "lora"), ("zero2", "lora"), ("zero3", "full")):
        one, two = found[f"alone-{method}"], found[f"{spread}-{method}"]
        assert len(one["losses"]) == 2
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-6), spread
        assert two["norms"] == pytest.approx(one["norms"], rel=1e-5), spread
        assert len(one["weights"]) > 20
        assert two["weights"] == pytest.approx(one["weights"], rel=1e-4), spread
