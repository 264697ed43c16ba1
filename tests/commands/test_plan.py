"""`agentft plan`, on a throw-away model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agentft.commands import run
from agentft.training.machine import Machine
from tests.engine.samples import write_rows
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


def test_a_plan_names_the_settings_for_each_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--model", "random-7b"]) == 0
    shown = capsys.readouterr().out
    assert "random-7b, qlora: 10,000 rows, the longest of 2,048 tokens" in " ".join(shown.split())
    assert "every layer recomputed" in " ".join(shown.split())
    assert run(["plan", "--model", "random-7b", "--method", "full", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [card["choice"] for card in found["cards"]] == [None] * 6, "a 7B in full takes 122 GB"


def test_a_plan_without_data_has_the_rows_that_are_asked_for(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--model", tiny, "--rows", "20", "--length", "512", "--gpus", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["longest"]) == (20, 512)
    assert {card["deepspeed"] for card in found["cards"]} == {""}, "one copy of the model on each"


@pytest.mark.slow
def test_a_plan_for_several_cards_names_the_way_to_use_them(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "--model", "random-7b", "--length", "512", "--method"]
    assert run([*command, "full", "--gpus", "4", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)["cards"]
    assert {card["card"]: card["deepspeed"] for card in cards}["L40S"] == "zero3"
    assert [card["deepspeed"] for card in cards][0::5] == ["zero3-offload", "zero2"]
    assert all(card["choice"]["estimate"]["memory"] < 0.95 * card["gib"] * 2**30 for card in cards)
    assert run([*command, "full", "--gpus", "4", "deepspeed=zero2"]) == 0
    shown = capsys.readouterr().out
    assert "4 of them: --deepspeed zero2: shards gradients and optimizer state\n" in shown
    assert "4 of them: no way fits" in shown
    assert run([*command, "lora"]) == 0
    assert "of them" not in capsys.readouterr().out
    assert run([*command, "qlora", "--gpus", "2", "deepspeed=zero3"]) == 2
    assert "ZeRO-3 does not shard 4-bit weights" in capsys.readouterr().err


def test_a_plan_uses_the_data(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 12)
    assert run(["plan", "pack_tokens=512", "--model", tiny, "--data", str(rows), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 12
    assert {card["choice"]["levers"]["pack"] for card in found["cards"]} == {512}


def test_a_plan_begins_with_this_machine(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 12)
    command = ["plan", "--model", tiny, "--data", str(rows), "--method", "lora"]
    monkeypatch.setattr("agentft.training.resolve.measure_rate", lambda _: 1e6)
    assert run(command) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert re.match(r"  this machine +roughly .+ in all on its CPU; memory on a CPU is not predicted", first)
    assert run([*command, "--json", "epochs=2"]) == 0
    twice = json.loads(capsys.readouterr().out)["this_machine"]["cpu_seconds"]
    assert run([*command, "--json"]) == 0
    assert twice == 2 * json.loads(capsys.readouterr().out)["this_machine"]["cpu_seconds"]
    gpu = Machine("cuda", True, True, 79 * 2**30, 775e12, 50e12, 2.96e12)
    monkeypatch.setattr("agentft.training.resolve.measure_machine", lambda: gpu)
    assert run(command) == 0
    assert re.match(r"  this machine +\d\.\d GiB, .* samples/s, \d+ s in all", capsys.readouterr().out.splitlines()[1])
