"""Builds the arms of a comparison from a model, a run, or an earlier evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agentft.errors import InputError
from agentft.evaluation.gold import oracle_answers
from agentft.evaluation.plan import Arm, Plan
from agentft.evaluation.records import Record
from agentft.evaluation.runner import read_baseline
from agentft.evaluation.shots import Shots
from agentft.models import Model, Sampling
from agentft.models.endpoint import find_model, identify_served, open_served
from agentft.models.opening import DEFAULT_FORMAT, DEFAULT_MODEL, SCRIPTED, identify, open_model
from agentft.models.play import PlayModel
from agentft.models.prompting import open_prompting
from agentft.models.scripted import ScriptedModel
from agentft.models.transport import Endpoint
from agentft.runs import find_finished

__all__ = ["Fairness", "ModelChoice", "make_arm", "make_arms"]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model as the user names it (`open_model`), one that an endpoint serves, or a person (see `PlayModel`)."""

    model: str | None = None
    adapter: str | None = None
    bits: int = 16
    call_format: str | None = None
    endpoint: Endpoint | None = None
    ask: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class Fairness:
    """What a model without an adapter gets. `format`: that of `--baseline base`; None: the adapter's."""

    format: str | None = None
    shots: Shots | None = None


def make_arm(label: str, plan: Plan, choice: ModelChoice, prepare: Callable[[str], None] = lambda _: None) -> Arm:
    """An arm that loads its model when it runs; `prepare` is called with the model's name just before that.

    Raises:
        InputError: the run or the call format is unknown.
    """
    if choice.endpoint is not None:
        return _served_arm(label, choice, choice.endpoint)
    run = find_finished(choice.adapter) if choice.adapter else None
    name, identity = identify(choice.model, choice.adapter, choice.bits, choice.call_format)
    if choice.model == SCRIPTED and run is None:
        answers = oracle_answers(plan.job(case) for case in plan.cases)
        fmt = choice.call_format or DEFAULT_FORMAT
        return Arm(label, "scripted: the expected calls", identity, lambda: ScriptedModel(answers, "oracle", fmt))

    if choice.ask is not None:
        fmt = choice.call_format or DEFAULT_FORMAT
        return Arm(label, "play: a person", identity, partial(PlayModel, choice.ask, fmt))

    def load() -> Model:
        prepare(choice.model or (run.model if run else DEFAULT_MODEL))
        return open_model(choice.model, choice.adapter, choice.bits, choice.call_format)

    return Arm(label, name, identity, load)


def _served_arm(label: str, choice: ModelChoice, endpoint: Endpoint) -> Arm:
    rendering = (choice.adapter, choice.call_format)
    model = choice.model or find_model(endpoint)
    return Arm(label, *identify_served(endpoint, model, *rendering), partial(open_served, endpoint, model, *rendering))


def make_arms(
    plan: Plan,
    choice: ModelChoice,
    baseline: str | None,
    prepare: Callable[[str], None] = lambda _: None,
    sampling: Sampling | None = None,
    *,
    fair: Fairness | None = None,
) -> tuple[list[Arm], dict[str, list[Record]]]:
    """The arms to run, and the stored records to compare with.

    The first arm is labelled `tuned` if it has an adapter, else `model`; the second `base` if it is the first without
    its adapter, else `baseline`.

    `baseline` is `base` (the same model without its adapter), a run folder, or an earlier evaluation, whose
    `sampling` must have been the same. `fair`: what an arm without an adapter gets.

    Raises:
        InputError: the baseline cannot be compared with these cases, or `base` without an adapter.
    """
    fair = fair or Fairness()
    if fair.format and baseline != "base":
        raise InputError("--baseline-format is the call format of --baseline base; add that, or use --format")
    arms = [make_arm("tuned" if choice.adapter else "model", plan, choice, prepare)]
    if fair.shots and not choice.adapter:
        arms = [arms[0].with_shots(fair.shots)]
    elif fair.shots and baseline != "base":
        raise InputError("--shots puts examples into the prompts of a model without adapter; add --baseline base")
    if baseline is None:
        return arms, {}
    if baseline == "base":
        if choice.adapter is None:
            raise InputError("--baseline base needs an adapter to compare with; pass --adapter or another baseline")
        run = find_finished(choice.adapter)
        model, fmt = choice.model or run.model, fair.format or choice.call_format or run.call_format
        base = make_arm("base", plan, replace(choice, model=model, adapter=None, call_format=fmt), prepare)
        if fair.format == "native" and choice.endpoint is None:
            prepare(model)
            open_prompting(model, fair.format)  # a template that cannot do it is refused before anything runs
        return [*arms, base.with_shots(fair.shots) if fair.shots else base], {}
    for stored in (Path(baseline), Path(baseline) / "cases.jsonl"):
        if stored.is_file():
            return arms, {"baseline": read_baseline(stored, plan, sampling, arms[0])}
    bare = replace(choice, model=None, adapter=baseline, endpoint=None)
    return [*arms, make_arm("baseline", plan, bare, prepare)], {}
