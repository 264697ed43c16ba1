"""The sweep over learning rates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentft.errors import InputError
from agentft.training import sweep
from agentft.training.events import Event
from agentft.training.recipe import Recipe
from tests.engine.samples import write_rows
from tests.tiny import save_tiny


def test_smoothing_corrects_the_bias_of_its_start() -> None:
    assert sweep._smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert sweep._smooth([1.0, 2.0]) == pytest.approx([1.0, (0.9 * 0.1 + 0.2) / 0.19])
    assert sweep._smooth([]) == []


def test_the_suggestion_is_a_tenth_of_the_best_rate() -> None:
    found = sweep._sweep([1e-4, 2.345e-3, 1e-1], [3.0, 1.0, 30.0])
    assert found.suggestion == pytest.approx(2.3e-4)
    assert sweep._sweep([], []).suggestion == 0


@pytest.mark.slow
def test_find_lr_stores_the_curve_and_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentft.commands import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "STEPS", 40)
    model, rows = save_tiny(tmp_path / "tiny"), write_rows(tmp_path / "rows.jsonl", 6)
    settings = ["method=lora", "dtype=fp32", "pack_tokens=640", "--find-lr"]
    result = CliRunner().invoke(app, ["train", "--model", str(model), "--data", str(rows), *settings])

    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "rows-lr-1"
    stored = json.loads((folder / "lr.json").read_text())
    assert {path.name for path in folder.iterdir()} == {"lr.json", ".lock", "curves.png"}
    assert stored["rates"][0] == 1e-7
    assert stored["rates"] == sorted(stored["rates"])
    assert stored["smoothed"][-1] > min(stored["smoothed"])
    assert 1e-5 < stored["suggestion"] < 0.1
    assert f"lr={stored['suggestion']:g}: a tenth of the rate" in result.output
    assert "1e-07" in result.output
    assert not list((tmp_path / "runs").glob("*/adapter"))


@pytest.mark.slow
def test_the_sweep_ends_when_the_loss_diverges_or_when_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = save_tiny(tmp_path / "tiny"), write_rows(tmp_path / "rows.jsonl", 6)
    recipe = Recipe(model=str(model), data=(str(rows),), method="full", dtype="fp32", pack_tokens=640, clip=0.0)
    monkeypatch.setattr(sweep, "STEPS", 30)
    monkeypatch.setattr(sweep, "DIVERGED", 1.05)
    events: list[Event] = []
    found = sweep.find_lr(recipe, events.append)
    assert len(found.rates) < 30
    over = [value > 1.05 * min(found.smoothed[: at + 1]) for at, value in enumerate(found.smoothed)]
    assert over.index(True) == len(over) - 2, "the step after that is launched already"
    assert len(sweep.find_lr(recipe, events.append, lambda: True).rates) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume", "last"], "--resume takes all settings from the run"),
        (["--gpus", "all", "--dry-run"], "in this process, on one GPU; omit --gpus, --dry-run"),
        (["--hostfile", "hosts", "--strict"], "on one GPU; omit --hostfile, --strict"),
    ],
)
def test_find_lr_goes_alone(options: list[str], message: str) -> None:
    from agentft.commands import app

    result = CliRunner().invoke(app, ["train", "--find-lr", *options])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
