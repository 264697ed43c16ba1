"""`agentft eval --check`: runs the expected calls of suites, and finds cases that cannot be solved or are ambiguous."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from agentft.agent import Options, run_cases
from agentft.evaluation.bfcl_data import UNSOLVABLE
from agentft.evaluation.clients import SuiteClients
from agentft.evaluation.gold import ONE_BY_ONE, as_call, oracle_answers
from agentft.evaluation.plan import Plan
from agentft.metrics import Context, score_case
from agentft.metrics.bfcl import check_calls
from agentft.metrics.values import contains_value
from agentft.models.scripted import ScriptedModel
from agentft.strict import nearest
from agentft.toolserver import ToolServer
from agentft.types import CallExpectation, Case, CaseTurn, Exchange, Json

__all__ = ["Flaw", "check_cases"]


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong with a case. `place`: file and line, and the turn and call if it is one of them."""

    suite: str
    case: str
    place: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Played:
    """The exchanges of a case's expected calls by turn, and the digest of the end state."""

    turns: tuple[tuple[Exchange, ...], ...]
    state: str

    def heard(self, case: Case, turn: int) -> str:
        """What the user has said and the tools have returned by the end of a turn."""
        said = [item.user for item in case.turns[: turn + 1]]
        return "\n".join(said + [exchange.received for made in self.turns[: turn + 1] for exchange in made])


def check_cases(plan: Plan) -> list[Flaw]:
    """Every flaw of the cases, in the order of the plan (made with `strict=False`, see `make_plan`).

    A case has a flaw if an expected call names an unknown tool, or fails or succeeds against expectation; if no result
    contains an expected answer; if an accepted alternative is refused or has another outcome; if the end state depends
    on the order of calls that may be made in any order; if another case asks the same; and if the expected calls and
    answers are not a success for the scorer.
    """
    places = _places(plan)
    if plan.setups:
        return _check_entries(plan, places)
    with ToolServer(plan.toolsets, plan.world_seed) as server, SuiteClients(plan, server) as clients:
        check = _Check(plan, clients, places)
        flaws = list(_duplicates(plan, places))
        clean: dict[str, _Played] = {}
        for case in plan.cases:
            found, played = check.case(case)
            flaws += found
            if not found:
                clean[case.id] = played
        jobs = [plan.job(case) for case in plan.cases if case.id in clean]

        oracle, options = ScriptedModel(oracle_answers(jobs)), Options(run="check.oracle")
        for trajectory in run_cases(jobs, oracle, lambda job: clients.of(job.case), options):
            case = next(job.case for job in jobs if job.case.id == trajectory.case_id)
            writes = any(plan.is_write(call.name) for turn in case.turns for call in turn.calls[turn.failing :])
            context = Context({tool.name: tool for tool in plan.tools(case)}, clean[case.id].state if writes else None)
            success = score_case(case, trajectory, context)["success"]
            if success.value != 1:
                problem = f"the expected calls and answers are not a success: {success.reason}"
                flaws.append(_flaw(places, case, "", problem, "mend the case until `--model scripted` solves it"))
    return _sorted(plan, flaws)


def _check_entries(plan: Plan, places: Mapping[str, str]) -> list[Flaw]:
    """The entries of a benchmark that ask the same, that its reference calls do not solve, or only in one order."""
    flaws = list(_duplicates(plan, places))
    for case in plan.cases:
        entry, known = plan.setups[case.id].entry, case.id in UNSOLVABLE
        calls = [[(call.name, call.arguments) for call in turn.calls] for turn in case.turns]
        once = [{name: dict(arguments)} for turn in calls for name, arguments in turn]
        verdict = entry.check(calls) if entry.check else check_calls(entry, once)
        if not verdict.valid:
            problem = f"the reference calls fail: {verdict.error} ({verdict.detail})"
            remedy = "this is known, and no answer can pass" if known else "its score says nothing about a model"
            flaws.append(_flaw(places, case, "", problem, remedy))
        elif not entry.check and not (verdict := check_calls(entry, once[::-1])).valid:
            problem = f"with its calls in the opposite order it fails: {verdict.error} ({verdict.detail})"
            flaws.append(_flaw(places, case, "", problem, "the official checker does not look for the best assignment"))
    return _sorted(plan, flaws)


def _sorted(plan: Plan, flaws: Iterable[Flaw]) -> list[Flaw]:
    order = {case.id: index for index, case in enumerate(plan.cases)}
    return sorted(flaws, key=lambda flaw: order[flaw.case])


def _flaw(places: Mapping[str, str], case: Case, where: str, problem: str, remedy: str) -> Flaw:
    return Flaw(case.suite, case.id, f"{places[case.id]}{where}", problem, remedy)


def _duplicates(plan: Plan, places: Mapping[str, str]) -> Iterator[Flaw]:
    """Cases of one suite with the same requests to the same tools."""
    seen: dict[str, Case] = {}
    for case in plan.cases:
        job = plan.job(case)
        said = [job.persona, *(turn.raw for turn in job.history), *(turn.user for turn in case.turns)]
        first = seen.setdefault(repr((case.suite, said, job.tools)), case)
        if first is case:
            continue
        if first.turns == case.turns:
            yield _flaw(places, case, "", f"it is the same as case {first.id!r}", "remove one of them")
        else:
            problem = f"it asks the same as case {first.id!r}, and expects something else"
            yield _flaw(places, case, "", problem, "reword one, or make one case with `alternatives`")


def _places(plan: Plan) -> dict[str, str]:
    """File and line of each case; of a benchmark's entry the file."""
    if plan.setups:
        return {case.id: f"BFCL_v4_{case.suite}.json" for case in plan.cases}
    places: dict[str, str] = {}
    for suite in plan.suites:
        path = suite.folder / "cases.jsonl"
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
            if line.strip():
                places[str(json.loads(line)["id"])] = f"{path}:{number}"
    return places


class _Check:
    """Checks the cases of a plan one by one. Every play of a case has a session of its own."""

    def __init__(self, plan: Plan, clients: SuiteClients, places: dict[str, str]) -> None:
        self._plan = plan
        self._clients = clients
        self._places = places
        self._sessions = 0

    def flaw(self, case: Case, where: str, problem: str, remedy: str) -> Flaw:
        """A flaw at a place in the case."""
        return _flaw(self._places, case, where, problem, remedy)

    def case(self, case: Case) -> tuple[list[Flaw], _Played]:
        """The flaws of one case, and its expected calls as they were played."""
        if flaws := list(self._unknown(case)):
            return flaws, _Played((), "")
        played = self._play(case)
        flaws = [*self._outcomes(case, played), *self._answers(case, played)]
        if not flaws:
            flaws = [*self._accepted(case, played), *self._orders(case, played)]
        return flaws, played

    def _unknown(self, case: Case) -> Iterator[Flaw]:
        names = [tool.name for tool in self._plan.tools(case)]
        forbidden = [(f": forbidden[{number}]", call) for number, call in enumerate(case.forbidden)]
        for where, call in [*_calls(case), *forbidden]:
            if call.name not in names:
                yield self.flaw(case, where, f"no tool {call.name!r} is offered", nearest(call.name, names))

    def _outcomes(self, case: Case, played: _Played) -> Iterator[Flaw]:
        """Calls that fail, or succeed, against expectation."""
        exchanges = [exchange for made in played.turns for exchange in made]
        failing = [index < turn.failing for turn in case.turns for index in range(len(turn.calls))]
        for (where, call), exchange, fails in zip(_calls(case), exchanges, failing, strict=True):
            if exchange.is_error == fails:
                continue
            problem = f"{_written(call)} returned {exchange.status}: {exchange.received:.200}"
            remedy = (
                "it is expected to fail; lower `failing`" if fails else "correct the call, or count it in `failing`"
            )
            yield self.flaw(case, where, problem, remedy)

    def _answers(self, case: Case, played: _Played) -> Iterator[Flaw]:
        """Expected answers that neither a result nor the user has given; a model must know those of `irrelevance`."""
        if case.category == "irrelevance":
            return
        for index, turn in enumerate(case.turns):
            for value in turn.answer:
                if not contains_value(played.heard(case, index), value):
                    problem = f"no result contains the answer {value!r}"
                    yield self.flaw(case, f": turns[{index}].answer", problem, "expect a value of a result")

    def _accepted(self, case: Case, played: _Played) -> Iterator[Flaw]:
        """Alternatives and optional values with another outcome than the expected call."""
        for index, turn in enumerate(case.turns):
            for number, call in enumerate(turn.calls):
                for key, value in _accepted_values(call):
                    other = replace(call, arguments={**call.arguments, key: value})
                    calls = (*turn.calls[:number], other, *turn.calls[number + 1 :])
                    if outcome := self._differs(_with_calls(case, index, calls), played):
                        problem = f"`{key}` = {json.dumps(value, ensure_ascii=False):.60} is accepted, but {outcome}"
                        where = f": turns[{index}].calls[{number}]"
                        yield self.flaw(case, where, problem, "remove the value from `alternatives` or `optional`")

    def _orders(self, case: Case, played: _Played) -> Iterator[Flaw]:
        """Calls of one turn that may be made in any order, but whose outcome depends on it."""
        if case.category in ONE_BY_ONE:
            return
        for index, turn in enumerate(case.turns):
            if len(turn.calls) < 2 or turn.failing:
                continue
            backwards = _with_calls(case, index, turn.calls[::-1])
            if outcome := self._differs(backwards, played):
                remedy = "any order is scored as right; expect one call a turn, or let no call depend on another"
                yield self.flaw(case, f": turns[{index}]", f"with its calls in the opposite order {outcome}", remedy)

    def _differs(self, case: Case, played: _Played) -> str:
        """How the play of a changed case ends otherwise than `played`; empty if it does not."""
        other = self._play(case)
        for before, after in zip(played.turns, other.turns, strict=True):
            if sum(exchange.is_error for exchange in after) != sum(exchange.is_error for exchange in before):
                odd = ([exchange for exchange in after if exchange.is_error] or after)[-1]
                return f"{odd.call.name} returned {odd.status}: {odd.received:.160}"
        if other.state != played.state:
            return "the end state is another"
        if lacking := next(self._answers(case, other), None):
            return lacking.problem
        return ""

    def _play(self, case: Case) -> _Played:
        self._sessions += 1
        session, client = f"check-{self._sessions}", self._clients.of(case)
        turns = tuple(tuple(client.call(as_call(call), session) for call in turn.calls) for turn in case.turns)
        return _Played(turns, client.state_digest(session))


def _calls(case: Case) -> list[tuple[str, CallExpectation]]:
    """Every expected call with its place in the case."""
    return [
        (f": turns[{index}].calls[{number}]", call)
        for index, turn in enumerate(case.turns)
        for number, call in enumerate(turn.calls)
    ]


def _accepted_values(call: CallExpectation) -> list[tuple[str, Json]]:
    others = [(key, value) for key, values in call.alternatives.items() for value in values]
    return [*others, *call.optional.items()]


def _with_calls(case: Case, index: int, calls: Sequence[CallExpectation]) -> Case:
    turn: CaseTurn = replace(case.turns[index], calls=tuple(calls))
    return replace(case, turns=(*case.turns[:index], turn, *case.turns[index + 1 :]))


def _written(call: CallExpectation) -> str:
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"
