"""Held-out rows: which they are, how they are counted, and the loss on them while training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agentft.engine.packing import epoch_packs
from agentft.errors import InputError
from agentft.runs import RunFolder
from agentft.training import run
from agentft.training.encoder import open_encoder
from agentft.training.events import Event, Measurement, Note
from agentft.training.heldout import HeldOut, HeldOutLoss, prepare_apart
from agentft.training.recipe import Recipe, check_places, read_recipe
from tests.engine.samples import alone, msagent_row, write_rows
from tests.engine.test_loss import plain_loss
from tests.tiny import save_tiny
from tests.training.test_loop import SAMPLES, loop_of, weights
from tests.training.test_run import adapter


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def recipe_of(tiny: Path, rows: Path, output: Path, **settings: Any) -> Recipe:
    defaults: dict[str, Any] = {"pack_tokens": 320, "lr": 0.01, "save_steps": 2, "epochs": 2, "dtype": "fp32"}
    given = defaults | {"method": "lora"} | settings
    return Recipe(model=str(tiny), data=(str(rows),), output=str(output), **given)


def apart(recipe: Recipe) -> tuple[Any, HeldOut]:
    prepared, held = prepare_apart(recipe, open_encoder(recipe))
    assert held is not None
    return prepared, held


def varied(path: Path, rows: int, *, repeated: int = 1) -> Path:
    """Rows with as many questions, each asked `repeated` times in neighbouring rows."""
    made = [msagent_row(f"City{number}", number + other) for number in range(rows) for other in range(repeated)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def test_a_share_is_held_out_by_question_and_every_row_is_counted(tiny: Path, tmp_path: Path) -> None:
    rows = varied(tmp_path / "rows.jsonl", 10, repeated=3)
    recipe = recipe_of(tiny, rows, tmp_path, eval_data="0.2")
    prepared, held = apart(recipe)

    assert held.document["rows"] == prepared.report.held_out == 6
    document = prepared.report.document()
    assert (document["rows"], document["trained"], document["held_out"], document["samples"]) == (30, 24, 6, 24)
    groups = {(sample.row - 1) // 3 for sample in held.samples}
    assert len(groups) == 2, "the three rows of a question stay together"
    assert not groups & {(sample.row - 1) // 3 for sample in prepared.samples}
    assert len(prepared.samples) + len(held.samples) == 30
    assert held.document["tokens"] == sum(len(sample.tokens) for sample in held.samples)

    again, other = apart(recipe)[1], apart(recipe_of(tiny, rows, tmp_path, eval_data="0.2", seed=1))[1]
    assert again.document == held.document
    assert other.document["fingerprint"] != held.document["fingerprint"]
    few = apart(recipe_of(tiny, rows, tmp_path, eval_data="0.2", eval_rows=3))[1]
    assert few.document["rows"] == 3
    least = apart(recipe_of(tiny, rows, tmp_path, eval_data="0.01"))[1]
    assert least.document["rows"] == 3, "the smallest group"


def test_a_share_needs_two_questions(tiny: Path, tmp_path: Path) -> None:
    rows = varied(tmp_path / "rows.jsonl", 1, repeated=3)
    with pytest.raises(InputError, match="all rows ask the same question"):
        prepare_apart(recipe := recipe_of(tiny, rows, tmp_path, eval_data="0.5"), open_encoder(recipe))


def test_a_file_is_drawn_from_and_compared_with_the_training_rows(tiny: Path, tmp_path: Path) -> None:
    rows, other = varied(tmp_path / "rows.jsonl", 4), varied(tmp_path / "other.jsonl", 6)
    other.write_text(other.read_text() + "{broken\n")
    prepared, held = apart(recipe_of(tiny, rows, tmp_path, eval_data=str(other)))

    assert prepared.report.held_out == 0
    assert len(prepared.samples) == 4
    assert (held.document["rows"], held.document["rejected"], held.doubtful) == (6, 1, 4)
    assert held.document["source"] == str(other)
    texts = [note.text for note in held.notes(recipe_of(tiny, rows, tmp_path))]
    assert texts[0] == f"held-out rows: 6 ({other}); their loss is measured after each epoch"
    assert texts[1] == "4 of the 6 held-out rows ask what a training row asks"
    few = apart(recipe_of(tiny, rows, tmp_path, eval_data=str(other), eval_rows=2))[1]
    assert few.document["rows"] == 2
    assert [sample.row for sample in few.samples] != [1, 2], "drawn, not the first ones"


def test_the_loss_is_measured_after_each_epoch_or_every_n_steps() -> None:
    packs = alone(SAMPLES) * 2
    by_epoch = HeldOutLoss(Recipe(batch=3), (SAMPLES, packs), len(SAMPLES), packs)
    assert [step for step in range(1, 4) if by_epoch.due(step, 9)] == [2, 3]
    assert by_epoch.due(9, 9), "after the last step"
    every = HeldOutLoss(Recipe(eval_data="0.1", eval_steps=2), (SAMPLES, packs), len(SAMPLES), packs)
    assert [step for step in range(1, 8) if every.due(step, 7)] == [2, 4, 6, 7]


def test_the_held_out_loss_is_that_of_the_samples_and_changes_nothing(tmp_path: Path) -> None:
    loop = loop_of(tmp_path / "a", alone(SAMPLES), method="full")
    before, generator = weights(loop), torch.get_rng_state()
    packs = epoch_packs(SAMPLES, 64, 0, 0)

    assert loop.mean_loss(SAMPLES, packs) == pytest.approx(plain_loss(loop.model, SAMPLES).item(), rel=1e-5)
    assert loop.mean_loss(SAMPLES, alone(SAMPLES)) == pytest.approx(loop.mean_loss(SAMPLES, packs), rel=1e-5)
    assert loop.model.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, weights(loop)[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in loop.model.parameters())


@pytest.mark.slow
def test_a_run_measures_keeps_the_best_and_resumes_to_the_same_weights(tiny: Path, tmp_path: Path) -> None:
    rows = varied(tmp_path / "rows.jsonl", 12)
    settings: dict[str, Any] = {"eval_data": "0.25", "eval_steps": 2, "best": "loss", "lr": 0.05, "patience": 3}
    events: list[Event] = []
    recipe = recipe_of(tiny, rows, tmp_path / "run", epochs=4, **settings)
    result = run.train(recipe, events.append)

    folder = RunFolder(tmp_path / "run")
    measured = [event for event in events if isinstance(event, Measurement)]
    assert [line["eval_loss"] for line in folder.read_measured()] == [one.figures["eval_loss"] for one in measured]
    best = min(measured, key=lambda one: one.figures["eval_loss"])
    assert any(
        f"the weights of step {best.step}, the best by eval_loss" in event.text
        for event in events
        if isinstance(event, Note)
    )
    document = json.loads(folder.data.read_text())
    assert (document["trained"], document["held_out"], document["eval"]["rows"]) == (9, 3, 3)
    assert result.weights is not None

    run.train(recipe_of(tiny, rows, tmp_path / "again", epochs=4, **settings), lambda _: None, iter_stop(3))
    run.resume(RunFolder(tmp_path / "again"), lambda _: None)
    for name, value in adapter(tmp_path / "run").items():
        assert torch.equal(value, adapter(tmp_path / "again")[name])
    assert RunFolder(tmp_path / "again").read_measured()[-1]["eval_loss"] == measured[-1].figures["eval_loss"]


def iter_stop(steps: int) -> Any:
    """Stops after this many steps."""
    left = iter([False] * (steps - 1))
    return lambda: next(left, True)


def test_a_changed_held_out_file_is_refused(tiny: Path, tmp_path: Path) -> None:
    rows, other = varied(tmp_path / "rows.jsonl", 6), varied(tmp_path / "other.jsonl", 3)
    recipe = recipe_of(tiny, rows, tmp_path / "run", eval_data=str(other))
    run.train(recipe, lambda _: None, iter_stop(1))
    varied(other, 4)
    with pytest.raises(InputError, match=r"the held-out rows .* have changed"):
        run.resume(RunFolder(tmp_path / "run"), lambda _: None)


def test_a_share_and_a_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('data = "x.jsonl"\neval_data = 0.05\n')
    assert read_recipe(tmp_path / "r.toml").eval_data == "0.05"
    assert read_recipe(None, ["eval_data=0.1"]).eval_data == "0.1"
    assert read_recipe(None, [], {"eval_data": "held.jsonl"}).eval_data == str(Path("held.jsonl").resolve())
    rows = write_rows(tmp_path / "rows.jsonl", 1)
    with pytest.raises(InputError, match=r"missing\.jsonl does not exist"):
        check_places(Recipe(data=(str(rows),), eval_data="missing.jsonl"))
    check_places(Recipe(data=(str(rows),), eval_data="0.5"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"best": "loss"}, "best = loss needs held-out rows"),
        ({"patience": 2}, "patience = 2 needs held-out rows"),
        ({"eval_steps": 5}, "eval_steps = 5 needs held-out rows"),
        ({"eval_data": "0"}, "a share is above 0 and at most 0.5"),
        ({"eval_data": "0.51"}, "a share is above 0 and at most 0.5"),
        ({"eval_data": "-1"}, "a share is above 0"),
    ],
)
def test_settings_that_need_held_out_rows_are_refused_without_them(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(**settings)
