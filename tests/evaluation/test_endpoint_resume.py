"""An evaluation of an endpoint that is killed and resumed: no case is lost, none is run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.commands.run import REPOSITORY
from tests.evaluation.world import write_world
from tests.models.served import Served, completion
from tests.waiting import wait_until

CASES = int(os.environ.get("AGENTFT_TEST_CASES", "10000"))


def write_many(folder: Path) -> None:
    suite = folder / "many"
    suite.mkdir()
    (suite / "suite.toml").write_text('name = "many"\ndescription = "Many."\npersona = "Hi."\nworlds = ["../shop"]\n')
    rows = ({"id": f"c{n}", "category": "irrelevance", "turns": [{"user": f"Joke {n}?"}]} for n in range(CASES))
    (suite / "cases.jsonl").write_text("".join(json.dumps({**row, "lang": "en"}) + "\n" for row in rows))


@pytest.mark.slow
def test_after_sigkill_no_case_is_lost_and_none_is_run_twice(tmp_path: Path) -> None:
    write_world(tmp_path)
    write_many(tmp_path)
    command = [sys.executable, "-m", "agentft", "eval", "./many", "--tools", "./shop", "--quiet", "--json"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    stored = tmp_path / "out" / "cases.jsonl"
    with Served(lambda _: completion({"content": "No joke."})) as served:
        arguments = [*command, "--output", "out", "--endpoint", served.url]
        killed = subprocess.Popen(arguments, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
        wait_until(lambda: killed.poll() or (stored.exists() and stored.read_bytes().count(b"\n") >= CASES // 3), 600)
        assert killed.poll() is None
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        wait_until(lambda: not served.connections)  # what it sent has been counted
        before = [json.loads(line) for line in stored.read_bytes().split(b"\n")[:-1]]
        assert {line["problem"] for line in before} == {""}
        kept = {line["case"] for line in before}
        sent = len(served.chats)
        done = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, check=True, timeout=900)
        assert len(served.chats) - sent == CASES - len(kept)
    counts = Counter(json.loads(line)["case"] for line in stored.read_text().splitlines())
    assert counts == Counter(f"c{number}" for number in range(CASES))
    summary = json.loads(done.stdout)
    assert (summary["kept"], [*summary["done"].values()], summary["problems"]) == (len(kept), [CASES], {})
