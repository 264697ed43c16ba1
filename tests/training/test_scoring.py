"""The tool-call score while training: when it comes, what it costs, and that training is the same with it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agentft.commands.train import open_scorer
from agentft.engine.speed import HostEmbedding
from agentft.errors import InputError
from agentft.models import Model, Request, Sampling
from agentft.runs import RunFolder
from agentft.training import run
from agentft.training.events import Event, Measurement, Note
from agentft.training.recipe import Recipe, check_places, read_recipe
from agentft.training.scoring import BUDGET, PROBE, Pace
from agentft.types import Conversation, Span, Text, Turn
from tests.engine.samples import write_rows
from tests.tiny import save_tiny

STEPS = 4


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("agentft.training.scoring.time.monotonic", lambda: self.now)


def paced(clock: Clock, steps: int, step_seconds: float, case_seconds: float, every: int = 0) -> dict[int, int]:
    """Runs a training in which all takes the same time; returns the number of cases by step. Each score costs 0.2 s."""
    pace, cases, found = Pace(every), 0, {}
    for step in range(1, steps + 1):
        clock.now += step_seconds
        if not pace.due(step, steps):
            continue
        began = clock.now
        if not cases and not every:
            clock.now += 0.2 + PROBE * case_seconds
            cases = pace.affordable(20, clock.now - began, steps)
            clock.now += (0.2 + (cases - PROBE) * case_seconds) * (cases > PROBE)
        else:
            cases = cases or 20
            clock.now += 0.2 + cases * case_seconds
        pace.plan(step, steps, clock.now - began)
        pace.go_on()
        found[step] = cases
    spent = clock.now - steps * step_seconds
    assert pace.share == pytest.approx(spent / clock.now)
    return found


@pytest.mark.parametrize(
    ("steps", "case_seconds", "expected"),
    [
        (1000, 0.01, dict.fromkeys(range(100, 1001, 100), 20)),
        (1000, 1.0, {100: 20, 550: 20, 1000: 20}),
        (1000, 2.0, {100: 15, 1000: 15}),
        (100, 0.05, {10: 20, 33: 20, 50: 20, 67: 20, 84: 20, 100: 20}),
        (5, 0.001, {1: 4}),
    ],
)
def test_scores_are_spread_over_the_run_and_take_less_than_a_tenth(
    steps: int, case_seconds: float, expected: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    assert paced(clock, steps, 1.0, case_seconds) == expected
    assert clock.now - steps <= BUDGET * steps < 0.1 * clock.now


def test_the_users_interval_is_kept_whatever_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paced(Clock(monkeypatch), 10, 1.0, 5.0, every=4) == {4: 20, 8: 20, 10: 20}
    assert paced(Clock(monkeypatch), 8, 1.0, 5.0, every=4) == {4: 20, 8: 20}
    assert paced(Clock(monkeypatch), 3, 1.0, 5.0, every=4) == {3: 20}


@pytest.mark.parametrize(("every", "expected"), [(4, [8, 12, 16, 20]), (0, [9, 11, 13, 15, 17, 19, 20])])
def test_a_resumed_run_goes_on_from_its_step(every: int, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pace, found = Clock(monkeypatch), Pace(every), []
    for step in range(8, 21):
        clock.now += 1.0
        if pace.due(step, 20):
            found.append(step)
            pace.plan(step, 20, 0.001)
    assert found == expected


def test_no_score_comes_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    pace = Pace(1)
    assert pace.due(1, 3)
    pace.stop(3)
    assert not pace.due(2, 3)
    assert not pace.due(3, 3)


def test_a_score_has_the_cases_and_tools_of_the_recipe() -> None:
    settings: dict[str, Any] = {"score_suite": ("basics",), "score_cases": 3}
    assert open_scorer(Recipe(**settings)).cases == 3
    with pytest.raises(InputError, match="suite basics: its worlds have no tool 'current_weather'"):
        open_scorer(Recipe(**settings, score_tools=("weather.air_quality", "search", "calculator")))


class Replies:
    """A scorer that lets the model reply, and uses up random numbers."""

    cases = 6

    def __init__(self, _: Recipe, found: tuple[dict[str, float], list[str]] | None = None) -> None:
        self.found = found or (
            {"eval_score": 0.5, "eval_call_recall": 1.0, "eval_cases": 6.0},
            ["a\x1b[1m\nb \u202e天"],
        )
        self.limits: list[int] = []
        self.replies: list[str] = []

    def __call__(self, model: Model, folder: Path, limit: int) -> tuple[Mapping[str, float], Sequence[str]] | None:
        asked = Conversation("c", (Turn("user", (Text("Weather?", Span(0, 8)),), "Weather?"),), (), "")
        replies = model.reply([Request(str(number), asked) for number in range(2)], Sampling(max_new_tokens=4))
        self.replies.append(str(replies[0].raw))
        self.limits.append(limit)
        folder.mkdir(parents=True, exist_ok=True)
        torch.rand(3)
        random.random()
        return self.found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 12, quiet=2)


def trained(
    tiny: Path, rows: Path, output: Path, scorer: Any = Replies, **settings: Any
) -> tuple[RunFolder, list[Event], list[Replies]]:
    events: list[Event] = []
    made: list[Replies] = []
    defaults: dict[str, Any] = {"pack_tokens": 320, "lr": 0.01, "epochs": 2, "max_steps": STEPS, "dtype": "fp32"}
    defaults |= {"score_suite": ("basics",), "method": "lora"}
    recipe = Recipe(model=str(tiny), data=(str(rows),), output=str(output), **(defaults | settings))
    run.train(recipe, events.append, open_scorer=lambda recipe: made.append(scorer(recipe)) or made[-1])  # type: ignore[func-returns-value]
    return RunFolder(output), events, made


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    assert folder.result is not None
    (file,) = folder.result.glob("*.safetensors")
    tensors: dict[str, torch.Tensor] = load_file(file)
    return tensors


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"method": "qlora", "dtype": "bf16", "lora_layers": 1}, marks=pytest.mark.slow),
        pytest.param({"method": "full"}, marks=pytest.mark.slow),
        pytest.param({"sharing": "off"}, marks=pytest.mark.slow),
    ],
    ids=["lora", "qlora", "full", "unshared"],
)
@pytest.mark.slow
def test_training_is_bit_equal_with_and_without_scores(
    settings: dict[str, Any], tiny: Path, rows: Path, tmp_path: Path
) -> None:
    without, _, _ = trained(tiny, rows, tmp_path / "without", score_suite=(), **settings)
    scored, _, (scorer,) = trained(tiny, rows, tmp_path / "scored", score_steps=1, **settings)

    assert len(scorer.limits) == STEPS
    one, two = weights(without), weights(scored)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [row["loss"] for row in without.read_metrics()] == [row["loss"] for row in scored.read_metrics()]


def test_a_score_is_made_with_the_weights_of_the_moment_and_recorded(tiny: Path, rows: Path, tmp_path: Path) -> None:
    folder, events, (scorer,) = trained(tiny, rows, tmp_path / "run", score_steps=3, lr=0.5)

    assert scorer.limits == [6, 6]
    assert scorer.replies[0] != scorer.replies[1], "the model has learnt in between"
    measured = [event for event in events if isinstance(event, Measurement)]
    assert [(event.step, event.figures["eval_score"]) for event in measured] == [(3, 0.5), (4, 0.5)]
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3, 4, 4]
    assert lines[3].keys() == {"step", "eval_score", "eval_call_recall", "eval_cases", "eval_seconds"}
    notes = [event.text for event in events if isinstance(event, Note) and "score" in event.text]
    assert notes[0].startswith("step 3: score 50% of 6 cases (calls 100%), ")
    assert notes[0].endswith("% of the time; next after step 4")
    assert notes[1].endswith("; the last")
    log = folder.log.read_text()
    assert "step 3: a\\x1b[1m\\nb \\u202e天\n" in log
    assert {path.name for path in folder.evaluations.iterdir()} == {"step-3", "step-4"}


@pytest.mark.slow
def test_the_best_score_gives_the_weights(tiny: Path, rows: Path, tmp_path: Path) -> None:
    class Falling(Replies):
        def __call__(self, *arguments: Any) -> Any:
            super().__call__(*arguments)
            return {"eval_score": 1 / len(self.limits), "eval_cases": 6.0}, []

    best, _, _ = trained(tiny, rows, tmp_path / "best", Falling, score_steps=2, best="score")
    last, _, _ = trained(tiny, rows, tmp_path / "last", Falling, score_steps=2)
    early, _, _ = trained(tiny, rows, tmp_path / "early", Falling, score_steps=2, best="score", patience=1)

    assert (best.checkpoints / "checkpoint-2").is_dir()
    assert any(not torch.equal(weights(best)[name], tensor) for name, tensor in weights(last).items())
    assert [row["step"] for row in early.read_metrics()][-1] == 4


def test_a_failed_score_does_not_end_the_training(tiny: Path, rows: Path, tmp_path: Path) -> None:
    class Broken(Replies):
        def __call__(self, *arguments: Any) -> Any:
            super().__call__(*arguments)
            raise InputError("the suite is wrong")

    folder, events, (scorer,) = trained(tiny, rows, tmp_path / "run", Broken, score_steps=2)

    assert len(scorer.limits) == 1
    assert Note("step 2: no score, and none from now on: the suite is wrong", warning=True) in events
    assert len(folder.read_metrics()) == STEPS
    assert folder.read_measured() == []


class Interrupted(Replies):
    """As an evaluation ends when the model raises KeyboardInterrupt."""

    def __call__(self, *arguments: Any) -> Any:
        try:
            return super().__call__(*arguments)
        except KeyboardInterrupt:
            return None


def test_a_score_that_would_cost_too_much_is_given_up(
    tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentft.training.scoring.BUDGET", 0.0)
    folder, events, (scorer,) = trained(tiny, rows, tmp_path / "run", Interrupted)

    assert scorer.limits == []
    why = "it would take more than 0 s, 0% of this run; score_steps=N scores anyway"
    assert Note(f"step 1: no score, and none from now on: {why}", warning=True) in events
    assert len(folder.read_metrics()) == STEPS
    assert folder.read_measured() == []
    assert not [event for event in events if isinstance(event, Measurement)]


def test_the_model_replies_no_more_once_the_user_wants_to_stop(tiny: Path, rows: Path, tmp_path: Path) -> None:
    asked: list[int] = []

    class Asking(Interrupted):
        def __call__(self, *arguments: Any) -> Any:
            asked.append(1)
            return super().__call__(*arguments)

    settings: dict[str, Any] = {"method": "lora", "pack_tokens": 320, "score_suite": ("x",), "score_steps": 1}
    recipe = Recipe(model=str(tiny), data=(str(rows),), output=str(tmp_path / "run"), **settings)
    events: list[Event] = []
    made: Any = Asking(recipe)
    result = run.train(recipe, events.append, lambda: bool(asked), open_scorer=lambda _: made)

    assert (result.steps, result.interrupted) == (2, True)
    assert made.limits == []
    assert not [event for event in events if isinstance(event, Note) and "no score" in event.text]


def test_a_few_cases_are_better_than_none(
    tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentft.training.scoring.BUDGET", 1e6)

    class Long(Interrupted):
        def __call__(self, *arguments: Any) -> Any:
            found = super().__call__(*arguments)
            return found if len(self.limits) == 1 else None

    folder, _, (scorer,) = trained(tiny, rows, tmp_path / "run", Long, max_steps=1)
    assert scorer.limits == [PROBE, 6]
    assert len(folder.read_measured()) == 1


def test_settings_of_scores_without_a_suite_are_refused(tmp_path: Path) -> None:
    for setting in ("score_steps=5", "score_tools=weather", "best=score"):
        name, _, value = setting.partition("=")
        with pytest.raises(InputError, match=rf"^{name} = .*{value}.* needs a suite; add score_suite="):
            check_places(read_recipe(None, [setting]))
    (tmp_path / "recipe.toml").write_text("score_suite = 'basics'\n")
    assert read_recipe(tmp_path / "recipe.toml", ["score_steps=5"]).score_steps == 5


def test_suites_are_names_or_folders_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('score_suite = ["./mine", "basics"]\nscore_tools = "../tools/mine"\n')
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert recipe.score_suite == (str(tmp_path / "mine"), "basics")
    assert recipe.score_tools == (str(tmp_path.parent / "tools" / "mine"),)


def test_embeddings_in_host_memory_say_how_many_they_are() -> None:
    assert HostEmbedding(torch.zeros(7, 3), torch.device("cpu")).num_embeddings == 7
