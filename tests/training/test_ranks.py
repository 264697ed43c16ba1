"""Under DDP and ZeRO, two processes take the same steps as one process, and resume, over real gloo sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.ranks import RESUMED, RUNS, fork, train

WORKER = Path(__file__).with_name("ranks.py")
ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore")  # DeepSpeed's, when it is imported
def test_every_way_to_spread_a_run_gives_the_curve_of_one_process(tmp_path: Path) -> None:
    import deepspeed.comm.torch
    import deepspeed.runtime.zero.stage3  # noqa: F401  (before the forks)

    train("alone", "full", tmp_path / "alone", None, False)
    one = json.loads((tmp_path / "alone").read_text())
    assert len(one["losses"]) == 2
    for spread in ("ddp", "zero1", "zero2", "zero3"):
        fork(spread, "full", tmp_path / spread, 2)
        assert_equal(json.loads((tmp_path / spread).read_text()), one)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == ""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "method"), [run for run in RUNS if run[0] != "alone"])
def test_two_processes_take_the_same_steps_as_one(spread: str, method: str, found: dict[str, Any]) -> None:
    assert_equal(found[f"{spread}-{method}"], found[f"alone-{method}"])


def assert_equal(two: dict[str, Any], one: dict[str, Any]) -> None:
    assert len(one["losses"]) == 2
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-5)
    assert len(one["weights"]) >= 20
    assert two["weights"].keys() == one["weights"].keys()
    for name, value in one["weights"].items():
        assert two["weights"][name] == pytest.approx(value, rel=1e-4, abs=1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize(("first", "method", "second", "world"), RESUMED)
def test_a_stopped_run_goes_on(first: str, method: str, second: str, world: int, found: dict[str, Any]) -> None:
    resumed, whole = found[f"{first}-{method}-then-{second}-{world}"], found[f"{first}-{method}"]
    if method == "full" and world != 2:
        assert "holds shards of 2 processes, not 1; add --gpus 2" in resumed["refused"]
        return
    assert resumed["losses"] == pytest.approx(whole["losses"][1:], rel=1e-6)
    if (first, world) == (second, 2):
        assert resumed["weights"] == whole["weights"]
    for name, value in whole["weights"].items():
        assert resumed["weights"][name] == pytest.approx(value, rel=1e-4, abs=1e-3), name
