"""The plan of an evaluation, made before any model is loaded: cases, tools, arms, detectable difference."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

from agentft.agent import Job
from agentft.errors import InputError
from agentft.evaluation.shots import Shots
from agentft.evaluation.statistics import smallest_difference
from agentft.evaluation.suites import Suite, stratified
from agentft.evaluation.views import ShownTool
from agentft.metrics import Context
from agentft.metrics.bfcl import BfclEntry
from agentft.models import Model
from agentft.records.openai import parse_openai
from agentft.strict import counted, nearest
from agentft.toolserver import Schedule, Source
from agentft.toolset import Toolset
from agentft.types import Case, ToolDefinition, Turn

__all__ = ["FIRST_ARMS", "Arm", "Plan", "Setup", "make_plan"]

_MOST_NAMES = 150
"""Tools that are listed before a run."""

FIRST_ARMS = frozenset({"tuned", "model"})
"""The labels of the arm that is evaluated; the other one is `base` or `baseline`."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What an entry of a public benchmark brings along in place of worlds and a persona.

    `held`: see `Job`. Its calls are sent only if the benchmark runs them (`entry.check`).
    """

    tools: tuple[ToolDefinition, ...]
    entry: BfclEntry
    system: str = ""
    history: tuple[Turn, ...] = ()
    held: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The cases of an evaluation with their tools. `cases` are in the order of their suites, with unique ids.

    `world_seed` seeds what the tools return; it is independent of the sampling seed, because suites are written for
    0. `faults`: the faults to inject. `source`: a real or recorded service that responds in place of the tools.
    `setups`: by case id, for all entries of a benchmark's chosen categories. `notes`: lines to show before the run.
    """

    suites: tuple[Suite, ...]
    toolsets: tuple[Toolset, ...]
    cases: tuple[Case, ...]
    trials: int = 1
    world_seed: int = 0
    max_steps: int = 6
    faults: Schedule | None = None
    source: Source | None = None
    setups: Mapping[str, Setup] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    _personas: dict[str, str] = field(default_factory=dict, repr=False)
    _views: dict[str, dict[str, ShownTool]] = field(default_factory=dict, repr=False)

    @property
    def runs(self) -> int:
        """How often an arm runs a case: each one once for every trial."""
        return len(self.cases) * self.trials

    def tools(self, case: Case) -> tuple[ToolDefinition, ...]:
        """The tools that the model sees in a case: those that its suite names or shows, even if more are served."""
        if case.id in self.setups:
            return self.setups[case.id].tools
        if shown := self.view(case):
            bases = {tool: toolset.base_url for toolset in self.toolsets for tool in toolset.tools}
            return tuple(
                ToolDefinition(tool.name, tool.description, tool.parameters, (f"{bases[tool.tool]}/{tool.name}",))
                for tool in shown.values()
            )
        worlds = {toolset.name: toolset for toolset in self.toolsets}
        tools = (tool for name in case.worlds for tool in worlds[name].definitions)
        return tuple(tool for tool in tools if not case.tools or tool.name in case.tools)

    def view(self, case: Case) -> Mapping[str, ShownTool]:
        """The tools that a derived suite shows, by name; empty for other suites."""
        return self._views.get(case.suite, {})

    def job(self, case: Case, trial: int = 0) -> Job:
        """The case as the agent runs it."""
        if setup := self.setups.get(case.id):
            return Job(case, setup.system, setup.tools, trial, setup.history, setup.held)
        history, _ = parse_openai(case.history)
        system = [self._personas[case.suite], *(turn.raw for turn in history if turn.role == "system")]
        told = tuple(turn for turn in history if turn.role != "system")
        return Job(case, "\n\n".join(filter(None, system)), self.tools(case), trial, told)

    def context(self, case: Case, gold_state: str | None) -> Context:
        """What the case is graded with; see `Context`."""
        setup = self.setups.get(case.id)
        return Context({tool.name: tool for tool in self.tools(case)}, gold_state, setup.entry if setup else None)

    def is_sent(self, case: Case) -> bool:
        """Whether calls are sent to tools, and not only checked."""
        setup = self.setups.get(case.id)
        return setup is None or setup.entry.check is not None

    def is_write(self, tool: str) -> bool:
        """Whether the tool changes state; also one that a derived suite shows under another name."""
        names = {tool, *(view[tool].tool for view in self._views.values() if tool in view)}
        return any(toolset.is_write(name) for toolset in self.toolsets for name in names)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of everything but the model that scores depend on: suites, tools, cases, faults and source."""
        tools = [
            [toolset.name, toolset.digest(toolset.new_state()), [asdict(tool) for tool in toolset.definitions]]
            for toolset in self.toolsets
            if any(toolset.name in suite.worlds for suite in self.suites)
        ]
        shown = [
            [case, setup.system, [[tool.name, tool.description, tool.parameters] for tool in setup.tools]]
            for case, setup in self.setups.items()
        ]
        return {
            "suites": _sha([[suite.name, suite.digest] for suite in self.suites]),
            "tools": _sha([*tools, *shown]),
            "cases": _sha([case.id for case in self.cases]),
            **({"faults": self.faults.digest} if self.faults else {}),
            **({"source": self.source.digest} if self.source else {}),
        }

    @property
    def conditions(self) -> dict[str, str]:
        """What must be equal in two runs that are compared: faults, the service behind the tools, the worlds' seed."""
        shared = {key: value for key, value in self.hashes.items() if key in {"faults", "source"}}
        return {**shared, "world_seed": str(self.world_seed)}

    def describe(self) -> list[str]:
        """The lines that are shown before a run."""
        tools = {tool.name for case in self.cases for tool in self.tools(case)}
        counts = Counter(case.category for case in self.cases)
        per_category = ", ".join(f"{name} {count}" for name, count in counts.items())
        compared = [case for case in self.cases if case.calls or self.setups]
        difference = smallest_difference(len(compared))
        detectable = "none, too few cases" if difference is None else f"{difference * 100:.1f} points"
        return [
            f"{counted(len(self.cases), 'case')} of {', '.join(suite.name for suite in self.suites)}: {per_category}",
            f"{counted(len(tools), 'tool')}"
            + ("" if self.setups or len(tools) > _MOST_NAMES else f": {', '.join(sorted(tools))}"),
            *([f"faults: seed {self.faults.seed}, sha256 {self.faults.digest[:12]}"] if self.faults else []),
            f"smallest detectable difference in {'BFCL' if self.setups else 'exact calls'} "
            f"({counted(len(compared), 'case')}, if the arms differ in 20 % of them): {detectable}",
            *self.notes,
        ]


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of a comparison.

    `open` loads the model when the arm runs, so that two models are never in memory at once. `identity` is a hash of
    everything that the model's answers depend on; arms with the same identity share their finished cases. `shots`:
    examples that are put into its prompts.
    """

    label: str
    name: str
    identity: str
    open: Callable[[], Model]
    shots: Shots | None = None

    def with_shots(self, shots: Shots) -> Arm:
        """The arm with examples in its prompts."""
        return replace(self, shots=shots, identity=_sha([self.identity, shots.condition]))


def make_plan(
    suites: Sequence[Suite],
    toolsets: Sequence[Toolset],
    *,
    limit: int | None = None,
    trials: int = 1,
    strict: bool = True,
) -> Plan:
    """Choose the cases and check that their tools exist (of expected calls only if `strict`).

    Raises:
        InputError: a world is missing or not used, an expected call names an unknown tool, or a case id is duplicated.
    """
    worlds = {toolset.name: toolset for toolset in toolsets}
    chosen: list[Case] = []
    for suite in suites:
        if lacking := [name for name in suite.worlds if name not in worlds]:
            places = ",".join(suite.places.get(name, name) for name in lacking)
            raise InputError(f"suite {suite.name} needs the tools {', '.join(lacking)}; add to --tools: {places}")
        offered = [tool for name in suite.worlds for tool in worlds[name].tools]
        named = dict.fromkeys(tool for case in suite.cases for tool in case.tools)
        for tool in (*suite.tools, *named, *(shown.tool for shown in suite.shown)):
            if tool not in offered:
                raise InputError(f"suite {suite.name}: its worlds have no tool {tool!r}; {nearest(tool, offered)}")
        merged = {key: value for name in suite.worlds for key, value in worlds[name].comparators.items()}
        # The suite's own comparators override those of its worlds.
        chosen += [replace(case, comparators={**merged, **case.comparators}) for case in suite.cases]
    _check_ids(chosen)
    if idle := sorted(worlds.keys() - {name for suite in suites for name in suite.worlds}):
        raise InputError(f"no suite shows the tools {', '.join(idle)}; omit them from --tools, or name their suite")
    plan = Plan(
        suites=tuple(suites),
        toolsets=tuple(toolsets),
        cases=stratified(chosen, limit),
        trials=trials,
        _personas={suite.name: suite.persona for suite in suites},
        _views={suite.name: {tool.name: tool for tool in suite.shown} for suite in suites},
    )
    if strict:
        _check_tools(plan)
    return plan


def _check_ids(cases: Sequence[Case]) -> None:
    seen: dict[str, str] = {}
    for case in cases:
        if case.id in seen:
            raise InputError(f"case id {case.id!r} is in suite {seen[case.id]} and in {case.suite}; rename one")
        seen[case.id] = case.suite


def _check_tools(plan: Plan) -> None:
    for case in plan.cases:
        names = {tool.name for tool in plan.tools(case)}
        for call in (call for turn in case.turns for call in turn.calls):
            if call.name not in names:
                known = ", ".join(sorted(names))
                raise InputError(f"{case.suite}, case {case.id}: there is no tool {call.name!r}; there are {known}")


def _sha(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
