"""The content of summary.json: the figures of each arm per metric, category, language and suite, and the verdict."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from itertools import chain
from typing import Any

import agentft
from agentft.evaluation.bfcl_scores import bfcl_report
from agentft.evaluation.calibration import Calibration, calibrate
from agentft.evaluation.comparison import Breakdown, Comparison, Reliability, break_down, compare, no_worse, reliability
from agentft.evaluation.diagnosis import Diagnosis, diagnose
from agentft.evaluation.forgetting import Forgetting, find_forgetting
from agentft.evaluation.noninferiority import CONFIDENCE
from agentft.evaluation.overfitting import overfit_index
from agentft.evaluation.plan import Arm, Plan
from agentft.evaluation.records import Record
from agentft.metrics import METRICS, SCORER_VERSION
from agentft.metrics.errors import FORMAT_ERRORS
from agentft.metrics.reading import is_only_thought
from agentft.models.served import other_model
from agentft.strict import counted

__all__ = [
    "HEADLINES",
    "MAX_INVALID",
    "SCORES",
    "ArmSummary",
    "FaultSummary",
    "Gate",
    "GateResult",
    "Summary",
    "summarise",
]

SCORES = ("success", *METRICS, "call_precision", "call_recall")
"""The names of all figures in a summary; gates use them too."""

HEADLINES = ("success", "exact_call", "abstention", "answer")
"""The figures that are also reported per category, language and suite; for BFCL, its own too."""

_REMEDIES = {"base": "; try --baseline-format native, or --shots 3", "model": "; try --format native, or --shots 3"}
_REMEDIES["native"] = "; try --format hermes, or start its server with a parser for this model's calls"

_ENDS = {
    "length": "cut at --max-new-tokens, which counts thoughts too",
    "filtered": "withheld or cut by a filter of the server, and counted as failed",
    "unread": "unreadable for the server, and counted as failed; check that its parser is the model's",
    "thought": "a thought without an answer, and counted so; check that a server's reasoning parser is the model's",
}

MAX_INVALID = 0.05
"""The share of invalid cases above which the verdict is `invalid`."""

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "bitsandbytes",
    "jsonschema",
    "rouge-score",
    "scipy",
    "numpy",
)


@dataclass(frozen=True, slots=True)
class Gate:
    """What a figure of the first arm must reach: `minimum` (0 to 1), or the second's figure less `margin`.

    One of the two is given. The first arm is no worse by a margin if the one-sided test says so with 95 % confidence.
    """

    metric: str
    minimum: float | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate with the measured figure, or difference if it has a margin (None: the metric applies to no case).

    `p`: with a margin, the one-sided p-value of "worse by the margin or more".
    """

    metric: str
    minimum: float | None
    value: float | None
    passed: bool
    margin: float | None = None
    p: float | None = None

    @property
    def sentence(self) -> str:
        """What was measured, what is required, and the result: the same words in every report."""
        result = "passed" if self.passed else "failed"
        if self.value is None:
            return f"{self.metric} applies to no case: {result}"
        if self.margin is None:
            place = f"{'at least' if self.passed else 'below'} the required {(self.minimum or 0) * 100:g} %"
            return f"{self.metric} {self.value * 100:.2f} % is {place}: {result}"
        shown = f"{'' if self.passed else 'not '}shown to be less than {self.margin * 100:g} points worse"
        found = f"{self.metric} is {self.value * 100:+.1f} points from the baseline, {shown}"
        return f"{found} with {CONFIDENCE * 100:g} % confidence: {result} (p = {self.p or 0:.2g})"


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """Which model an arm is, and how much it generated: `steps` replies of `tokens` tokens in all.

    `shots`: examples in its prompts. `reliability`: over several trials. `others`: by name, the replies that the
    endpoint says another model wrote.
    """

    name: str
    identity: str | None
    format: str | None
    frame_sha256: str | None
    fingerprint: str | None
    steps: int
    tokens: int
    shots: int = 0
    reliability: Reliability | None = None
    others: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FaultSummary:
    """The injected faults. `met`: for each arm, how many exchanges met each kind of fault."""

    sha256: str
    seed: int
    met: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of an evaluation. Gates and verdict apply to the first arm.

    `done` and `invalid_by_arm`: records by arm. `problems`: how often each problem made a case invalid. `errors`: how
    often each error class is the primary one, by arm. `kept`: records from an earlier run. `bfcl`: see `bfcl_report`.
    `diagnosis`: None for BFCL, each entry of which has its own tools. `overfit`: see `overfit_index`. `calibration`: by
    arm; None: not measured.
    """

    verdict: str
    finding: str
    interrupted: bool
    cases: int
    trials: int
    done: Mapping[str, int]
    invalid: int
    invalid_by_arm: Mapping[str, int]
    problems: Mapping[str, int]
    gates: Sequence[GateResult]
    metrics: Mapping[str, Comparison]
    categories: Mapping[str, Breakdown]
    languages: Mapping[str, Breakdown]
    suites: Mapping[str, Breakdown]
    errors: Mapping[str, Mapping[str, int]]
    arms: Mapping[str, ArmSummary]
    hashes: Mapping[str, str]
    faults: FaultSummary | None
    seed: int
    world_seed: int
    sampling: Mapping[str, Any]
    max_steps: int
    versions: Mapping[str, str]
    scorer_version: int
    seconds: float
    kept: int
    bfcl: Mapping[str, Any] | None = None
    diagnosis: Diagnosis | None = None
    overfit: Mapping[str, Any] | None = None
    calibration: Mapping[str, Calibration] | None = None
    forgetting: Forgetting | None = None

    @property
    def failures(self) -> dict[str, dict[str, int]]:
        """By arm: cases that failed because no call could be read (`format`), and by a wrong `decision`.

        Where no call is made at all, that is the format too, if none of the arm's calls in any case can be read.
        """
        found = {label: {"format": 0, "decision": 0} for label in self.arms}
        for kind, counts in self.errors.items():
            for label, count in counts.items():
                unread = kind == "no-call" and not self.metrics["known_tool"].arms[label].n
                found[label]["format" if unread or kind in FORMAT_ERRORS else "decision"] += count
        return found

    def document(self) -> dict[str, Any]:
        """The JSON object of summary.json and `agentft eval --json`."""
        kept = {key: value for key, value in asdict(self).items() if value is not None or key == "faults"}
        own: dict[str, Any] = json.loads(json.dumps(kept))  # lists, as in the file
        return own | {
            "failures": self.failures,
            "gates": [{**asdict(gate), "sentence": gate.sentence} for gate in self.gates],
            "metrics": {name: one.document() for name, one in self.metrics.items()},
            "categories": {name: one.document() for name, one in self.categories.items()},
            "languages": {name: one.document() for name, one in self.languages.items()},
            "suites": {name: one.document() for name, one in self.suites.items()},
            **({"forgetting": self.forgetting.document()} if self.forgetting else {}),
        }


def summarise(
    plan: Plan,
    arms: Mapping[str, Sequence[Record]],
    gates: Sequence[Gate],
    *,
    max_invalid: float = MAX_INVALID,
    ran: Mapping[str, tuple[Arm, str]],
    sampling: Mapping[str, Any],
    seconds: float,
    interrupted: bool,
    kept: int,
) -> Summary:
    """Summarise the records of each arm, by label. Gates and verdict apply to the first arm.

    `max_invalid`: see `Settings`. `ran`: by label, the arm and its fingerprint; none for arms read from a stored run.
    """
    metrics = {name: compare(arms, name) for name in SCORES}
    invalid = {label: sum(row.outcome == "invalid" for row in rows) for label, rows in arms.items()}
    too_many = max(invalid.values()) > max_invalid * plan.runs
    results = [_check_gate(gate, arms, metrics[gate.metric]) for gate in gates]
    verdict = "none" if not gates else "pass" if all(gate.passed for gate in results) else "fail"
    return Summary(
        verdict="interrupted" if interrupted else "invalid" if too_many else verdict,
        finding=_finding(metrics, arms, of_bfcl=bool(plan.setups)) + "".join(chain(*map(_ends, arms, arms.values()))),
        interrupted=interrupted,
        cases=len(plan.cases),
        trials=plan.trials,
        done={label: len(rows) for label, rows in arms.items()},
        invalid=sum(invalid.values()),
        invalid_by_arm=invalid,
        problems=dict(Counter(row.problem for rows in arms.values() for row in rows if row.problem)),
        gates=results,
        metrics=metrics,
        **_breakdowns(plan, arms),
        errors=_errors(arms),
        arms={label: _describe(rows, *ran.get(label, (None, None))) for label, rows in arms.items()},
        hashes=dict(plan.hashes),
        faults=_faults(plan, arms),
        seed=sampling["seed"],
        world_seed=plan.world_seed,
        sampling=dict(sampling),
        max_steps=plan.max_steps,
        versions=_versions(PACKAGES),
        scorer_version=SCORER_VERSION,
        seconds=round(seconds, 1),
        kept=kept,
        overfit=overfit_index(plan, arms),
        **_analyses(plan, arms),
    )


def _analyses(plan: Plan, arms: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """The parts of a summary that not every evaluation has."""
    calibration = {label: found for label, rows in arms.items() if (found := calibrate(plan, rows))}
    analyses = {"bfcl": bfcl_report(arms)} if plan.setups else {"diagnosis": diagnose(plan, arms)}
    return {**analyses, "calibration": calibration or None, "forgetting": find_forgetting(arms)}


def _errors(arms: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, int]]:
    """How often each class is the primary one, the most frequent of the first arm first."""
    counts = {label: Counter(row.error for row in rows if row.error) for label, rows in arms.items()}
    first = next(iter(counts.values()))
    classes = sorted({kind for found in counts.values() for kind in found}, key=lambda kind: (-first[kind], kind))
    return {kind: {label: found[kind] for label, found in counts.items()} for kind in classes}


def _faults(plan: Plan, arms: Mapping[str, Sequence[Record]]) -> FaultSummary | None:
    if plan.faults is None:
        return None
    met: dict[str, dict[str, int]] = {}
    for label, rows in arms.items():
        exchanges = (exchange for row in rows for step in row.steps for exchange in step.exchanges)
        met[label] = dict(Counter(exchange.fault for exchange in exchanges if exchange.fault))
    return FaultSummary(plan.faults.digest, plan.faults.seed, met)


def _describe(rows: Sequence[Record], arm: Arm | None, fingerprint: str | None) -> ArmSummary:
    first = next(iter(rows), None)
    given = ((first and first.conditions) or {}).get("shots", "0")
    return ArmSummary(
        name=arm.name if arm else f"stored run of {first.model}" if first and first.model else "stored run",
        identity=arm.identity if arm else None,
        format=first.format if first else None,
        frame_sha256=first.frame_sha256 if first else None,
        fingerprint=fingerprint or (first.fingerprint if first else None),
        steps=sum(len(row.steps) for row in rows),
        tokens=sum(step.tokens for row in rows for step in row.steps),
        shots=arm.shots.count if arm and arm.shots else int(given.partition(" ")[0]),
        reliability=reliability(rows),
        others=_others(rows),
    )


def _check_gate(gate: Gate, arms: Mapping[str, Sequence[Record]], found: Comparison) -> GateResult:
    if gate.margin is not None:
        value, p = (found.delta.value if found.delta else None), no_worse(gate.metric, arms, gate.margin)
        passed = value is not None and p < 1 - CONFIDENCE
        return GateResult(gate.metric, None, value, passed, gate.margin, p)
    value = next(iter(found.arms.values())).value
    return GateResult(gate.metric, gate.minimum, value, value is not None and value >= (gate.minimum or 0.0))


def _breakdowns(plan: Plan, arms: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    keys = {"categories": "category", "languages": "lang", "suites": "suite"}
    return {
        name: break_down(plan.cases, arms, key, ("bfcl",) * bool(plan.setups) + HEADLINES) for name, key in keys.items()
    }


def _finding(metrics: Mapping[str, Comparison], arms: Mapping[str, Sequence[Record]], *, of_bfcl: bool) -> str:
    found, what, of = metrics["exact_call"], "makes exactly the expected calls", "exact calls"
    if of_bfcl:
        found, what, of = metrics["bfcl"], "passes BFCL's check", "BFCL's check"
    warnings = [_caution(metrics["abstention"], [*arms]), *(_unread(label, arms[label], metrics) for label in arms)]
    return _about_calls(found, [*arms], what, of) + "".join(warnings)


def _about_calls(calls: Comparison, labels: Sequence[str], what: str, of: str) -> str:
    """One sentence: whether the first arm makes more exact calls (passes more entries of BFCL) than the second."""
    first = calls.arms[labels[0]]
    if first.value is None:
        return "No case that expects calls was finished."
    delta = calls.delta
    if delta is None or delta.value is None or delta.p is None:
        return f"{labels[0]} {what} in {first.value:.1%} of {counted(first.n, 'case')}."
    size = f"{abs(delta.value) * 100:.1f} points over {counted(delta.n, 'case')}, p = {delta.p:.2g}"
    if not delta.shown:
        return f"No significant difference between {labels[0]} and {labels[1]} in {of} ({size})."
    finding = f"{labels[0]} is {'better' if delta.value > 0 else 'worse'} than {labels[1]} in {of} ({size})."
    if delta.by_tool and delta.by_tool.low <= 0 <= delta.by_tool.high:
        low, high = delta.by_tool.low * 100, delta.by_tool.high * 100
        finding += (
            f" This may not hold for other tools: resampling the {delta.by_tool.clusters} sets of expected tools gives "
            f"{low:+.1f} to {high:+.1f} points."
        )
    return finding


def _caution(abstention: Comparison, labels: Sequence[str]) -> str:
    """A warning, because better calls can hide it: the first arm calls more often where no call is expected."""
    delta = abstention.delta
    if delta is None or delta.value is None or delta.value >= 0 or not delta.shown:
        return ""
    size = f"{-delta.value * 100:.1f} points over {counted(delta.n, 'case')}, p = {delta.p:.2g}"
    return f" {labels[0]} is worse than {labels[1]} in abstention: it calls where no call is expected ({size})."


def _unread(label: str, rows: Sequence[Record], metrics: Mapping[str, Comparison]) -> str:
    """A warning about an arm without a single readable call, whose score says nothing about its decisions."""
    calls, known = (metrics[name].arms[label] for name in ("exact_call", "known_tool"))
    if not calls.n or known.n:
        return ""
    failed = f" {label} wrote no readable call in the {calls.n} cases that expect one"
    remedy = _REMEDIES.get("native" if rows[0].format == "native" else label, "")
    return f"{failed}: its failures may be of the call format rather than of its decisions{remedy}."


def _ends(label: str, rows: Sequence[Record]) -> Iterator[str]:
    """Warnings that one reply of twenty, or more, ended early or could not be read. Such replies count as they are."""
    finishes = ["thought" if is_only_thought(step) else step.finish for row in rows for step in row.steps]
    for finish, what in _ENDS.items():
        if (count := finishes.count(finish)) * 20 >= len(finishes) > 0:
            yield f" {count} of the {len(finishes)} replies of {label} {'was' if count == 1 else 'were'} {what}."
    if others := _others(rows):
        named = ", ".join(f"{count} by {name:.100}" for name, count in list(others.items())[:3])
        yield f" The server says that another model wrote replies of {label}: {named} (of {len(finishes)})."


def _others(rows: Sequence[Record]) -> dict[str, int]:
    """How many replies name which other model than the one that was asked for, the most frequent first."""
    names = Counter(other_model(row.model, step.response) for row in rows for step in row.steps)
    return {name: count for name, count in names.most_common() if name}


@cache
def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {"python": platform.python_version(), "agentft": agentft.__version__}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
