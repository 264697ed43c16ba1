"""`agentft eval mine`: from the failures of an evaluation to proposed training rows, and what training data lack."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from agentft.evaluation.plan import Plan
from agentft.evaluation.records import Record
from agentft.evaluation.suites import load_suite, shipped_suites
from agentft.reports.pairing import largest_failures, pair_cases, worst_run
from agentft.rows.likeness import LikeTexts, TrainedRequest, plain_words
from agentft.synthesis.recipe import BuildRecipe
from agentft.synthesis.variants import Proposal, Studio, argument_values
from agentft.toolserver import ToolServer
from agentft.types import CallExpectation, Case, CaseTurn, Json, ToolCall, ToolDefinition

__all__ = ["Cluster", "Contradiction", "Mined", "Near", "Wish", "mine"]

_NO_ARGUMENTS_SEEN = 5  # fewer different values in training than this are too few to learn to copy


@dataclass(frozen=True, slots=True)
class Near:
    """The training request that is most like a failed one. `likeness`: from 0 to 1."""

    case: str
    likeness: float
    place: str
    said: str
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Failed cases of one kind: error class, expected tools, argument (a JSON Pointer); by category, their number."""

    error: str
    tools: str
    pointer: str
    categories: Mapping[str, int]
    cases: tuple[str, ...]
    nearest: Near | None

    @property
    def name(self) -> str:
        """For people: `wrong-value of days of weather_forecast`."""
        argument = f" of {self.pointer.removeprefix('/').replace('/', '.')}" if self.pointer else ""
        return f"{self.error}{argument}" + (
            f" of {self.tools}" if argument else f", {self.tools}" if self.tools else ""
        )


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A training row that makes other calls than a case or an earlier row with the same request and tools."""

    said: str
    place: str
    calls: str
    other: str
    other_calls: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What to propose: at most `variants` rows for a case; with `own_cases`, the case too.

    `source`: the evaluation, as rows name it in their metadata. `recipe`: whose words to use.
    """

    source: str = ""
    variants: int = 3
    own_cases: bool = False
    recipe: BuildRecipe | None = None
    seed: int = 0


@dataclass
class Mined:
    """The failures of an evaluation, and what training could do about them.

    `failures`: failed cases. `unseen`: what the failed cases need and no training row has, with the number of these
    cases: tools, arguments, values, patterns (the tools of one turn). `equal`: training rows that ask what a case
    asks, by case. `without`: failed cases that no row could be proposed for. `refused`: proposed requests that a case
    asks too. None instead of a list: no training data are known.
    """

    failures: int = 0
    cases: int = 0
    clusters: list[Cluster] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    unseen: dict[str, dict[str, int]] | None = None
    contradictions: list[Contradiction] | None = None
    equal: dict[str, str] | None = None
    without: list[str] = field(default_factory=list)
    refused: int = 0

    def document(self) -> dict[str, Json]:
        """As JSON."""
        table: dict[str, Json] = asdict(self)
        return table | {
            "clusters": [asdict(cluster) | {"name": cluster.name} for cluster in self.clusters],
            "proposals": [
                {"id": str(one.row["id"]), "case": one.case, "kind": one.kind, "said": list(one.said)}
                for one in self.proposals
            ],
        }


def mine(plan: Plan, records: Sequence[Record], training: Sequence[TrainedRequest] | None, wish: Wish) -> Mined:
    """Group the failures of one arm, compare them with training data, and propose rows that were run on the worlds.

    Args:
        plan: the stored cases, with all cases of their suites in `plan.suites`.
        records: those of the arm.
        training: the requests that it was trained on; None: unknown.
        wish: what to propose.
    """
    cases = {case.id: case for case in plan.cases}
    paired = pair_cases({"arm": records})
    groups = largest_failures(paired, limit=len(paired))
    mined = Mined(sum(len(group.cases) for group in groups), len(paired))
    likes = LikeTexts(["\n".join(one.said) for one in training]) if training else None
    failed: dict[str, Record] = {}
    for pair in paired:
        if (run := worst_run(pair.runs[0])) and run.findings:
            failed[pair.id] = run
    for group in groups:
        categories = Counter[str](cases[name].category for name in group.cases)
        near = [_nearest(name, failed[name], likes, training) for name in group.cases] if likes and training else []
        best = max(filter(None, near), key=lambda one: one.likeness, default=None)
        mined.clusters.append(Cluster(group.error, group.tools, group.pointer, dict(categories), group.cases, best))
    order = [name for group in groups for name in group.cases]
    if training is not None:
        mined.unseen = _unseen([cases[name] for name in order], plan, training)
        mined.contradictions = list(_contradictions(plan.cases, training))
        mined.equal = _equal(plan.cases, training)
    _propose(mined, plan, [failed[name] for name in order], training or (), wish)
    return mined


def _nearest(
    case: str, record: Record, likes: LikeTexts | None, training: Sequence[TrainedRequest] | None
) -> Near | None:
    said = "\n".join(record.users[: record.findings[0].turn + 1])
    for likeness, index in likes.nearest(said) if likes and training else ():
        found = training[index]  # type: ignore[index]
        tools = tuple(dict.fromkeys(call.name for call in found.calls))
        return Near(case, round(likeness, 3), found.place, found.said[-1], tools)
    return None


def _unseen(cases: Sequence[Case], plan: Plan, training: Sequence[TrainedRequest]) -> dict[str, dict[str, int]]:
    calls = [call for one in training for call in one.calls]
    tools = {call.name for call in calls}
    values: dict[str, set[str]] = {}
    for call in calls:
        for name, value in call.arguments.items():
            values.setdefault(f"{call.name}.{name}", set()).add(json.dumps(value, ensure_ascii=False))
    patterns = {_pattern(one.calls) for one in training}
    found: dict[str, Counter[str]] = {key: Counter() for key in ("tools", "arguments", "values", "patterns")}
    for case in cases:
        closed = {
            f"{tool.name}.{name}"
            for tool in plan.tools(case)
            for name, schema in _properties(tool.parameters).items()
            if isinstance(schema, dict) and ("enum" in schema or schema.get("type") == "boolean")
        }
        missing: set[tuple[str, str]] = set()
        for turn in case.turns:
            missing |= {("tools", call.name) for call in turn.calls if call.name not in tools}
            for expected in turn.calls:
                missing |= set(_unseen_arguments(expected, values, closed)) if expected.name in tools else set()
            known = all(call.name in tools for call in turn.calls)
            if turn.calls and known and _pattern(turn.calls) not in patterns:
                missing.add(("patterns", _pattern(turn.calls)))
        for kind, name in missing:
            found[kind][name] += 1
    return {kind: dict(counts.most_common()) for kind, counts in found.items()}


def _unseen_arguments(
    call: CallExpectation, values: Mapping[str, set[str]], closed: set[str]
) -> Iterator[tuple[str, str]]:
    """Arguments that no training row passes; values of closed sets that none has; free ones with too few values."""
    for name, value in call.arguments.items():
        key, text = f"{call.name}.{name}", json.dumps(value, ensure_ascii=False)
        if key not in values:
            yield "arguments", key
        elif key in closed and text not in values[key]:
            yield "values", f"{key}={text}"
        elif key not in closed and len(values[key]) < _NO_ARGUMENTS_SEEN:
            yield "values", f"{key} (only {len(values[key])} different in training)"


def _properties(parameters: Mapping[str, Json]) -> Mapping[str, Json]:
    found = parameters.get("properties")
    return found if isinstance(found, dict) else {}


def _pattern(calls: Sequence[ToolCall | CallExpectation]) -> str:
    return " + ".join(call.name for call in calls)


def _key(said: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(map(plain_words, said))


def _contradictions(cases: Sequence[Case], training: Sequence[TrainedRequest]) -> Iterator[Contradiction]:
    """Training rows against the cases, and against each other."""
    by_request: dict[tuple[tuple[str, ...], ...], TrainedRequest] = {}
    asked = {
        _key([turn.user for turn in case.turns[: index + 1]]): (case, turn)
        for case in cases
        for index, turn in enumerate(case.turns)
    }
    for one in training:
        key, made = _key(one.said), {call.name for call in one.calls}
        first = by_request.setdefault(key, one)
        named = {call.name for call in first.calls}
        if _written(first.calls) != _written(one.calls) and made <= first.tools and named <= one.tools:
            yield Contradiction(one.said[-1], one.place, _written(one.calls), first.place, _written(first.calls))
        if key in asked:
            case, turn = asked[key]
            if {call.name for call in turn.calls} <= one.tools and not _meets(turn, one.calls):
                wanted = _written(turn.calls)
                yield Contradiction(one.said[-1], one.place, _written(one.calls), f"case {case.id}", wanted)


def _meets(turn: CaseTurn, calls: Sequence[ToolCall]) -> bool:
    """Whether the calls are the expected ones, in any order."""
    left = list(calls)
    for expected in turn.calls:
        for call in left:
            accepted = {**expected.optional, **expected.arguments}
            if call.name == expected.name and expected.arguments.keys() <= call.arguments.keys() <= accepted.keys():
                others = expected.alternatives
                if all(value in (accepted[key], *others.get(key, ())) for key, value in call.arguments.items()):
                    left.remove(call)
                    break
        else:
            return False
    return not left


def _equal(cases: Sequence[Case], training: Sequence[TrainedRequest]) -> dict[str, str]:
    """Cases whose whole conversation a training row has too, with its place."""
    places = {_key(one.said): one.place for one in reversed(training)}
    keys = {case.id: _key([turn.user for turn in case.turns]) for case in cases}
    return {name: places[key] for name, key in keys.items() if key in places}


def _written(calls: Sequence[ToolCall | CallExpectation]) -> str:
    texts = sorted(f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False)})" for call in calls)
    return ", ".join(texts) or "no call"


def _propose(
    mined: Mined, plan: Plan, failed: Sequence[Record], training: Sequence[TrainedRequest], wish: Wish
) -> None:
    """Add rows for each failed case, none of which asks what a case of the evaluation asks."""
    cases = {case.id: case for case in plan.cases}
    shipped = [load_suite(name) for name in shipped_suites()]
    reserved = [case for suite in (*plan.suites, *shipped) for case in suite.cases]
    asked = {
        _key([turn.user for turn in case.turns[: index + 1]]) for case in reserved for index in range(len(case.turns))
    }
    known: dict[tuple[str, str], list[Json]] = {}
    for call in (call for one in training for call in one.calls):
        for name, value in call.arguments.items():
            known.setdefault((call.name, name), []).append(value)
    taken = argument_values(reserved)
    seen: set[tuple[tuple[str, ...], ...]] = set()
    studios: dict[str, Studio] = {}
    with ToolServer(plan.toolsets, plan.world_seed) as server:
        client = server.client()
        for record in failed:
            case = cases[record.case]
            job = plan.job(case)
            studio = studios.setdefault(
                case.suite, Studio(client, plan.toolsets, job.persona, taken, known, wish.recipe, wish.seed)
            )
            before = len(mined.proposals)
            for proposal in _proposals(studio, plan.tools(case), case, record, wish):
                key = _key(proposal.said)
                leaks = key in asked
                mined.refused += leaks and proposal.kind != "case"
                if key in seen or (leaks and proposal.kind != "case"):
                    continue
                seen.add(key)
                mined.proposals.append(_marked(proposal, record, wish.source, leaks))
            if len(mined.proposals) == before:
                mined.without.append(case.id)


def _proposals(
    studio: Studio, tools: Sequence[ToolDefinition], case: Case, record: Record, wish: Wish
) -> Iterator[Proposal]:
    """Rows for one case, in the order of preference: templates teach other words too."""
    count, turn, error = wish.variants, record.findings[0].turn, record.findings[0].kind
    for proposal in studio.templates(case, tools, count):
        count -= 1
        yield proposal
    # A row that ends at its last call says nothing about the answer.
    if count and error not in ("wrong-answer", "invented-result", "reported-fault"):
        yield from studio.values(case, turn, tools, count)
    if wish.own_cases and (own := studio.itself(case, turn, tools)):
        yield own


def _marked(proposal: Proposal, record: Record, source: str, leaks: bool) -> Proposal:
    """The proposal with an id that depends on its content, and with its provenance."""
    digest = hashlib.sha256(json.dumps(proposal.row, sort_keys=True).encode()).hexdigest()[:8]
    origin: dict[str, Json] = {
        "from": "agentft eval mine",
        "evaluation": source,
        "suite": record.suite,
        "case": record.case,
        "case_digest": record.case_digest,
        "error": record.error,
        "kind": proposal.kind,
        "equals_case": leaks,
    }
    row = {**proposal.row, "id": f"{record.case}-{proposal.kind}-{digest}", "lang": record.lang, "metadata": origin}
    return replace(proposal, row=row)
