"""`agentft eval mine`: from the failures of an evaluation to proposed training rows, and what training data lack."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from agentft.evaluation.plan import Plan
from agentft.evaluation.records import Record
from agentft.evaluation.suites import load_suite, shipped_suites
from agentft.metrics.errors import ANSWER_ERRORS
from agentft.metrics.matching import match
from agentft.reports.pairing import largest_failures, pair_cases, worst_run
from agentft.rows.likeness import LikeTexts, TrainedRequest, plain_words
from agentft.synthesis.recipe import BuildRecipe
from agentft.synthesis.variants import Proposal, Studio, argument_values
from agentft.toolserver import ToolServer
from agentft.types import CallExpectation, Case, CaseTurn, Json, ToolCall

__all__ = ["Cluster", "Mined", "mine"]

_NEAR = 0.7  # two requests of this likeness are nearly the same


@dataclass(frozen=True, slots=True)
class Cluster:
    """Failed cases with one error class, expected tools and argument. `nearest`: the training request most like one."""

    name: str
    cases: tuple[str, ...]
    categories: Mapping[str, int]
    nearest: str


@dataclass
class Mined:
    """The failures of an evaluation, and what training could do about them.

    `unseen`: what failed cases need and no training row has, with the number of these cases: tools, arguments, values
    of enums, patterns (the tools of one turn). `overlap`: cases that a training row asks too or nearly, with its place.
    `success`: by `clean` and `overlapping`, the share of these cases that is solved. `refused`: proposed requests that
    a case asks too. `without`: failed cases without a row. Without training data, what compares with them is None.
    """

    failures: int
    cases: int
    clusters: list[Cluster]
    proposals: list[Proposal] = field(default_factory=list)
    unseen: dict[str, dict[str, int]] | None = None
    contradictions: list[str] | None = None
    overlap: dict[str, str] | None = None
    success: dict[str, float] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)
    refused: int = 0


def mine(
    plan: Plan,
    records: Sequence[Record],
    training: Sequence[TrainedRequest] | None,
    *,
    source: str,
    recipe: BuildRecipe | None = None,
    variants: int = 3,
    seed: int = 0,
) -> Mined:
    """Group the failures of one arm, compare them with training data, and propose rows that were run on the worlds.

    Args:
        plan: the stored cases; `records` are those of the arm.
        training: the requests that it was trained on; None: unknown.
        source: the evaluation, as rows name it in their metadata.
        recipe: whose words to use. `variants`: the most rows for a case. `seed`: fixes every choice.
    """
    cases = {case.id: case for case in plan.cases}
    paired = pair_cases({"arm": records})
    failed = {one.id: run for one in paired if (run := worst_run(one.runs[0])) and run.findings}
    likes = LikeTexts(["\n".join(one.said) for one in training or ()])
    near = {one.id: likes.nearest("\n".join(one.first.users)) for one in paired}
    clusters = []
    for group in largest_failures(paired):
        of = " of ".join(filter(None, (group.pointer.removeprefix("/").replace("/", "."), group.tools)))
        name = group.error + (f" of {of}" if group.pointer else f", {of}" if of else "")
        categories = dict(Counter[str](cases[case].category for case in group.cases))
        best = max((found[0] for case in group.cases if (found := near[case])), default=None)
        text = _described(best[0], training[best[1]]) if best and training else ""
        clusters.append(Cluster(name, group.cases, categories, text))
    mined = Mined(len(failed), len(paired), clusters)
    if training is not None:
        mined.unseen = _unseen([cases[name] for name in failed], plan, training)
        mined.contradictions = list(_contradictions(plan, training))
        mined.overlap = {
            case: training[found[0][1]].place for case, found in near.items() if found and found[0][0] >= _NEAR
        }
        for part, inside in (("clean", False), ("overlapping", True)):
            rates = [one.rates[0] for one in paired if (one.id in mined.overlap) is inside and one.rates[0] is not None]
            mined.success |= {part: sum(rates) / len(rates)} if rates else {}
    order = [failed[name] for cluster in clusters for name in cluster.cases]
    _propose(mined, plan, order, partial(Studio, recipe=recipe, seed=seed), (training or (), variants, source))
    return mined


def _described(likeness: float, near: TrainedRequest) -> str:
    calls = ", ".join(dict.fromkeys(call.name for call in near.calls)) or "no call"
    return f"({likeness:.2f}): {near.place} {json.dumps(near.said[-1], ensure_ascii=False):.160} -> {calls}"


def _unseen(cases: Sequence[Case], plan: Plan, training: Sequence[TrainedRequest]) -> dict[str, dict[str, int]]:
    patterns = {_pattern(one.calls) for one in training}
    seen = {
        (call.name, key, json.dumps(value))
        for one in training
        for call in one.calls
        for key, value in call.arguments.items()
    }
    tools, keys = {call.name for one in training for call in one.calls}, {key[:2] for key in seen}
    found: dict[str, Counter[str]] = {kind: Counter() for kind in ("tools", "arguments", "values", "patterns")}
    for case in cases:
        shown: dict[str, Any] = {tool.name: tool.parameters.get("properties", {}) for tool in plan.tools(case)}
        missing: set[tuple[str, str]] = set()
        for turn in case.turns:
            unknown = {call.name for call in turn.calls} - tools
            missing |= {("tools", name) for name in unknown}
            if turn.calls and not unknown and _pattern(turn.calls) not in patterns:
                missing.add(("patterns", _pattern(turn.calls)))
            for call in (call for call in turn.calls if call.name in tools):
                for key, value in call.arguments.items():
                    if (call.name, key) not in keys:
                        missing.add(("arguments", f"{call.name}.{key}"))
                    elif "enum" in shown[call.name].get(key, {}) and (call.name, key, json.dumps(value)) not in seen:
                        missing.add(("values", f"{call.name}.{key}={value}"))
        for kind, name in missing:
            found[kind][name] += 1
    return {kind: dict(counts.most_common()) for kind, counts in found.items()}


def _pattern(calls: Sequence[ToolCall | CallExpectation]) -> str:
    return " + ".join(call.name for call in calls)


def _key(said: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(map(plain_words, said))


def _asked(cases: Iterable[Case]) -> dict[tuple[tuple[str, ...], ...], tuple[Case, CaseTurn]]:
    """Every user turn of cases, by what has been said up to it."""
    return {
        _key([turn.user for turn in case.turns[: index + 1]]): (case, turn)
        for case in cases
        for index, turn in enumerate(case.turns)
    }


def _contradictions(plan: Plan, training: Sequence[TrainedRequest]) -> Iterator[str]:
    """Training rows that make other calls than a case or an earlier row with the same request and tools."""
    rows: dict[tuple[tuple[str, ...], ...], TrainedRequest] = {}
    asked = _asked(plan.cases)
    for one in training:
        key, made = _key(one.said), {call.name for call in one.calls}
        first = rows.setdefault(key, one)
        both = made <= first.tools and {call.name for call in first.calls} <= one.tools
        start = f"{json.dumps(one.said[-1], ensure_ascii=False):.160}: {one.place} makes {_written(one.calls)}, but"
        if both and _written(first.calls) != _written(one.calls):
            yield f"{start} {first.place} {_written(first.calls)}"
        if key in asked:
            case, turn = asked[key]
            met = match(turn.calls, 0, one.calls, plan.context(case, None), case.comparators).exact
            if {call.name for call in turn.calls} <= one.tools and not met:
                yield f"{start} case {case.id} expects {_written(turn.calls)}"


def _written(calls: Sequence[ToolCall | CallExpectation]) -> str:
    texts = sorted(f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False)})" for call in calls)
    return ", ".join(texts) or "no call"


def _propose(
    mined: Mined,
    plan: Plan,
    failed: Sequence[Record],
    open_studio: Callable[..., Studio],
    wish: tuple[Sequence[TrainedRequest], int, str],
) -> None:
    """Add rows for each failed case, none of which asks what a case of these or of the shipped suites asks."""
    training, variants, source = wish
    cases = {case.id: case for case in plan.cases}
    reserved = [case for suite in (*plan.suites, *map(load_suite, shipped_suites())) for case in suite.cases]
    known: dict[tuple[str, str], list[Json]] = {}
    for call in (call for one in training for call in one.calls):
        for name, value in call.arguments.items():
            known.setdefault((call.name, name), []).append(value)
    taken, asked = argument_values(reserved), _asked(reserved)
    made, studios = {_key(one.said) for one in training}, dict[str, Studio]()
    with ToolServer(plan.toolsets, plan.world_seed) as server:
        for record in failed:
            case, before = cases[record.case], len(mined.proposals)
            if case.suite not in studios:
                persona = plan.job(case).persona
                studios[case.suite] = open_studio(server.client(), plan.toolsets, persona, taken, known)
            # A row that ends at a call teaches no answer.
            turn = None if record.error in ANSWER_ERRORS else record.findings[0].turn
            for proposal in studios[case.suite].variants(case, turn, plan.tools(case), variants):
                key = _key(proposal.said)
                mined.refused += key in asked
                if key not in asked and key not in made:
                    made.add(key)
                    mined.proposals.append(_marked(proposal, record, source))
            if len(mined.proposals) == before:
                mined.without.append(case.id)


def _marked(proposal: Proposal, record: Record, source: str) -> Proposal:
    """The proposal with an id that depends on its content, and with its provenance."""
    digest = hashlib.sha256(json.dumps(proposal.row, sort_keys=True).encode()).hexdigest()[:8]
    origin: dict[str, Json] = {"from": "agentft eval mine", "evaluation": source, "kind": proposal.kind}
    origin |= {name: getattr(record, name) for name in ("suite", "case", "case_digest", "error")}
    row = {**proposal.row, "id": f"{record.case}-{proposal.kind}-{digest}", "lang": record.lang, "metadata": origin}
    return replace(proposal, row=row)
