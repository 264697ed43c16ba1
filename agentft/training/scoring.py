"""The tool-call score while training: now and then, a suite runs with the weights of the moment."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from agentft.engine.lora import FusedLora, bf16_copies
from agentft.engine.tree_attention import TREE_ATTENTION
from agentft.errors import AgentftError
from agentft.models import Model
from agentft.models.hf import HfEngine
from agentft.models.local import LocalModel
from agentft.rendering import open_rendering
from agentft.training.events import Note, Waiting
from agentft.training.ranks import join_ranks
from agentft.training.recipe import Recipe
from agentft.training.watcher import Scorer, Watcher

__all__ = ["BUDGET", "PROBE", "Pace", "Scoring", "ScoringSource"]

BUDGET = 0.08
"""The share of the training time that scores may take, unless the user says when they come."""
PROBE = 4
"""The cases that run first, to learn what one costs."""
_FIRST = 0.4
"""The share of the budget that the first score may take, so that another one is possible at the end."""
_MOST = 10
"""The most scores of a run, unless the user says when they come."""


@dataclass(frozen=True)
class ScoringSource:
    """What the first process scores with. `thinking`: whether the model learns to think, as in evaluations."""

    scorer: Scorer
    recipe: Recipe
    watcher: Watcher
    tokenizer: Any
    thinking: bool

    def open(self, model: Any, step: int) -> Model:
        """The model as evaluations see it."""
        rendering = open_rendering(self.recipe.format, self.tokenizer, thinking=self.thinking)
        return LocalModel(HfEngine(model, self.tokenizer, f"{self.recipe.model} after step {step}"), rendering)


class Pace:
    """When to score: every `every` steps; with 0, as often as `BUDGET` allows.

    Then the first score comes after a tenth of the steps, with fewer cases if all would take too long, and what is left
    of the budget is spread over the remaining steps. `next`: the step of the next score; one after the last step if
    there is none.
    """

    def __init__(self, every: int) -> None:
        self.next = 0
        self._every = every
        self._begin = 0
        self._seconds: list[float] = []
        self._since = time.monotonic()
        self._spent = 0.0

    def due(self, step: int, steps: int) -> bool:
        """Whether to score after `step` of `steps`. To be called after each step."""
        self._seconds.append(time.monotonic() - self._since)
        self.go_on()
        if not self.next:
            self._begin = step - 1
            wait = self._every - self._begin % self._every if self._every else -(-steps // _MOST)
            self.next = min(self._begin + wait, steps)
        return step == self.next

    def go_on(self) -> None:
        """What follows counts as training."""
        self._since = time.monotonic()

    def affordable(self, cases: int, took: float, steps: int) -> int:
        """How many of `cases` cases to run, if `PROBE` of them took so many seconds."""
        return max(min(cases, int(_FIRST * self._budget(steps) / took * PROBE)), min(cases, PROBE))

    def plan(self, step: int, steps: int, took: float) -> None:
        """Choose the next step, after a score that took so many seconds."""
        self._spent += took
        wait = self._every
        if not wait:
            left = int(self.left(steps) / took)
            wait = max(-(-(steps - step) // left), -(-steps // _MOST)) if left > 0 else 0
        self.next = min(step + wait, steps) if wait and step < steps else steps + 1

    def left(self, steps: int) -> float:
        """How many seconds the next score may take."""
        return math.inf if self._every else self._budget(steps) - self._spent

    def stop(self, steps: int) -> None:
        """Score no more."""
        self.next = steps + 1

    @property
    def share(self) -> float:
        """The share of the time so far that the scores took."""
        return self._spent / max(self._spent + sum(self._seconds), 1e-9)

    def _budget(self, steps: int) -> float:
        return BUDGET * median(self._seconds) * (steps - self._begin)


class Scoring:
    """A `Measure`. The first process has a `source`; the others wait for its figures."""

    def __init__(self, every: int, source: ScoringSource | None = None) -> None:
        self._pace = Pace(every)
        self._source = source
        self._cases = source.scorer.cases if source and every else 0  # 0: as many as are affordable

    def due(self, step: int, steps: int) -> bool:
        """See `Measure`."""
        return self._pace.due(step, steps)

    def __call__(self, loop: Any, step: int) -> Mapping[str, float]:
        """See `Measure`; no figures if it failed or was stopped."""
        figures = self._score(self._source, loop.model, step, loop.steps) if self._source else {}
        found: tuple[Mapping[str, float], int] = join_ranks().share((figures, self._pace.next))
        figures, self._pace.next = found
        self._pace.go_on()
        return figures

    def _score(self, source: ScoringSource, model: Any, step: int, steps: int) -> Mapping[str, float]:
        watcher, began, allowed = source.watcher, time.monotonic(), self._pace.left(steps)
        watcher(Waiting(f"scoring after step {step}"))
        try:
            with _lent(model, lambda: watcher.should_stop() or time.monotonic() - began > allowed):
                found = self._run(source, model, step, steps)
            problem = f"it would take more than {allowed:.0f} s, {BUDGET:.0%} of this run; score_steps=N scores anyway"
        except (AgentftError, OSError) as error:
            found, problem = None, str(error)
        if found is None:
            self._pace.stop(steps)
            if not watcher.should_stop():
                watcher(Note(f"step {step}: no score, and none from now on: {problem}", warning=True))
            return {}
        figures, samples = found
        took = time.monotonic() - began
        self._pace.plan(step, steps, took)
        watcher(Note(self._line(figures, step, steps, took)))
        for sample in samples:
            line = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in sample)
            watcher.folder.add_log(f"step {step}: {line}")
        return figures

    def _run(
        self, source: ScoringSource, model: Any, step: int, steps: int
    ) -> tuple[Mapping[str, float], Sequence[str]] | None:
        opened, scorer = source.open(model, step), source.scorer
        for part in model.modules():
            # In evaluation mode, bitsandbytes repacks 4-bit weights for the CPU, and would not unpack them.
            part.training = type(part).__name__ == "Linear4bit"
        folder = source.watcher.folder.evaluations / f"step-{step}"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed and came here again
        if self._cases:
            return scorer(opened, folder, self._cases)
        began = time.monotonic()
        few = scorer(opened, folder, min(PROBE, scorer.cases))
        self._cases = self._pace.affordable(scorer.cases, time.monotonic() - began, steps)
        if few is None or self._cases <= PROBE:
            return few
        return scorer(opened, folder, self._cases) or few

    def _line(self, figures: Mapping[str, float], step: int, steps: int, took: float) -> str:
        names = {"eval_call_recall": "calls", "eval_tool_name": "tools", "eval_argument_f1": "arguments"}
        names |= {"eval_schema_valid": "valid"}
        parts = ", ".join(f"{name} {figures[key]:.0%}" for key, name in names.items() if key in figures)
        score = f"{figures['eval_score']:.0%}" if "eval_score" in figures else "none"
        after = self._pace.next
        following = f"next after step {after}" if after <= steps else "no further one" if step < steps else "the last"
        return (
            f"step {step}: score {score} of {figures['eval_cases']:.0f} cases ({parts or 'no calls'}), "
            f"{took:.1f} s, {self._pace.share:.0%} of the time; {following}"
        )


@contextmanager
def _lent(model: Any, ends: Callable[[], bool]) -> Iterator[None]:
    """Lend a model that is being trained: afterwards it, its attention and the random generators are as before.

    Once `ends` says so, the model only raises KeyboardInterrupt, which ends an evaluation.
    """
    attention = model.config._attn_implementation
    products = [part.forward for part in model.modules() if isinstance(getattr(part, "forward", None), FusedLora)]
    on_gpu = model.device.type == "cuda"
    state = random.getstate()

    def check(*_: object) -> None:
        if ends():
            raise KeyboardInterrupt

    hook = model.register_forward_pre_hook(check)
    with torch.random.fork_rng([model.device] if on_gpu else []), bf16_copies(products):
        try:
            if attention == TREE_ATTENTION:  # which knows packs only
                model.set_attn_implementation("sdpa")
            yield
        finally:
            hook.remove()
            model.set_attn_implementation(attention)
            model.train()
            random.setstate(state)
            if on_gpu:
                torch.cuda.empty_cache()  # what decoding has used is of no use to packs
