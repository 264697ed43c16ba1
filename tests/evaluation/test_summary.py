"""summary.json from stored records: every figure, the verdict, and the finding."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import agentft
from agentft.evaluation.comparison import Breakdown, Comparison, compare
from agentft.evaluation.plan import Arm
from agentft.evaluation.records import Record, read_records
from agentft.evaluation.statistics import PairedDelta, estimate
from agentft.evaluation.summary import (
    HEADLINES,
    MAX_INVALID,
    SCORES,
    ArmSummary,
    FaultSummary,
    Gate,
    GateResult,
    Summary,
    summarise,
)
from agentft.metrics import METRICS, SCORER_VERSION
from agentft.models import Model
from agentft.types import Exchange, Score, Span, Step, ToolCall
from tests.evaluation.world import small_plan
from tests.values import assert_immutable

GOLDEN = Path(__file__).parent / "golden"


def no_model() -> Model:
    raise AssertionError("no model is loaded for a summary")


def golden_summary(tmp_path: Path) -> Summary:
    plan = small_plan(tmp_path)
    rows = {(row.arm, row.case): row for row in read_records(GOLDEN / "cases.jsonl")}
    arms = {label: [rows[label, case.id] for case in plan.cases] for label in ("tuned", "base")}
    ran = {
        label: (Arm(label, f"scripted {label}", f"id-{label}", no_model), found[0].fingerprint)
        for label, found in arms.items()
    }
    sampling = json.loads((GOLDEN / "summary.json").read_text("utf-8"))["sampling"]
    gates = (Gate("exact_call", 0.9), Gate("url", 0.5))
    options: dict[str, Any] = {"seconds": 1.26, "interrupted": False, "kept": 0}
    return summarise(plan, arms, gates, ran=ran, sampling=sampling, **options)


def test_a_stored_evaluation_gives_the_same_summary_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = json.loads((GOLDEN / "summary.json").read_text("utf-8"))
    monkeypatch.setattr("agentft.evaluation.summary.SCORES", tuple(stored["metrics"]))  # without newer metrics
    document = golden_summary(tmp_path).document()
    assert {"python", "agentft", "torch", "scipy", "numpy"} <= document.pop("versions").keys()
    assert document["seconds"] == 1.3
    document["seconds"] = 0.0
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    assert text == (GOLDEN / "summary.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("label", "form", "remedy"),
    [
        ("model", "hermes", "try --format native, or --shots 3."),
        ("model", "native", "try --format hermes, or start its server with a parser for this model's calls."),
        ("tuned", "hermes", "rather than of its decisions."),
    ],
)
def test_what_to_do_about_calls_that_nobody_reads(label: str, form: str, remedy: str, tmp_path: Path) -> None:
    """A server without a parser for the model's calls leaves them in the text."""
    plan = small_plan(tmp_path)
    rows = [replace(record(case.id, 0.0, arm=label), format=form) for case in plan.cases]
    rows = [replace(row, scores={**row.scores, "known_tool": Score(None, "")}) for row in rows]
    options: dict[str, Any] = {"seconds": 1, "interrupted": False, "kept": 0, "ran": {}, "sampling": {"seed": 0}}
    assert summarise(plan, {label: rows}, (), **options).finding.endswith(remedy)


@pytest.mark.parametrize(
    ("end", "what"),
    [
        ("length", "were cut at --max-new-tokens, which counts thoughts too"),
        ("filtered", "were withheld or cut by a filter of the server, and counted as failed"),
        ("unread", "were unreadable for the server, and counted as failed; check that its parser is the model's"),
    ],
)
@pytest.mark.parametrize(("whole", "told"), [(1, True), (19, True), (20, False)])
def test_replies_that_were_cut_are_told_from_one_in_twenty(
    end: str, what: str, whole: int, told: bool, tmp_path: Path
) -> None:
    plan = small_plan(tmp_path)
    step = Step(0, (), "", end, (), 9, 256)
    steps = {"tuned": (step, *[replace(step, finish="end")] * whole), "base": (replace(step, finish="stop"),)}
    arms = {
        label: [record(case.id, 1.0, arm=label, steps=made) for case in plan.cases] for label, made in steps.items()
    }
    options: dict[str, Any] = {"seconds": 1, "interrupted": False, "kept": 0, "ran": {}, "sampling": {"seed": 0}}
    finding = summarise(plan, arms, (), **options).finding
    count = len(plan.cases)
    said = f" {count} of the {(1 + whole) * count} replies of tuned {what}"
    assert (said in finding, "replies of base" in finding) == (told, False)
    arms["base"] = [replace(arms["base"][0], steps=(step,))]
    assert f" 1 of the 1 replies of base {what.replace('were', 'was')}" in summarise(plan, arms, (), **options).finding


def test_the_names_of_figures() -> None:
    assert ("success", *METRICS, "call_precision", "call_recall") == SCORES
    assert HEADLINES == ("success", "exact_call", "abstention", "answer")


def record(case: str, value: float | None, /, **fields: Any) -> Record:
    scores = {name: Score(value, "") for name in ("success", *METRICS)}
    defaults: dict[str, Any] = {
        "arm": "a",
        "case": case,
        "trial": 0,
        "outcome": "done",
        "steps": (),
        "case_digest": "",
        "fingerprint": "f",
        "scores": scores,
        "scorer_version": SCORER_VERSION,
    }
    return Record(**defaults | fields)


def test_trials_of_a_case_are_averaged_before_cases_are_compared() -> None:
    tuned = [record("x", 1.0), record("x", 0.0, trial=1), record("y", 1.0), record("z", None)]
    base = [record("x", 0.0), record("y", 0.0), record("only base", 1.0)]
    found = compare({"tuned": tuned, "base": base}, "exact_call")
    assert (found.arms["tuned"].value, found.arms["tuned"].n) == (0.75, 2)
    assert found.arms["base"] == estimate([0.0, 0.0, 1.0])
    assert found.delta is not None
    assert (found.delta.value, found.delta.n) == (0.75, 2)
    assert compare({"tuned": tuned}, "exact_call").delta is None
    assert compare({"a": tuned, "b": base, "c": base}, "exact_call").delta is None


def test_precision_and_recall_of_calling_are_counted_over_turns() -> None:
    rows = [
        record("x", 1.0, decisions=((True, True), (False, True), (False, False))),
        record("x", 1.0, trial=1, decisions=((True, False),)),
        record("y", 1.0, decisions=((True, True), (True, False))),
    ]
    precision, recall = compare({"a": rows}, "call_precision").arms["a"], compare({"a": rows}, "call_recall").arms["a"]
    assert (precision.value, precision.n) == (2 / 3, 3)
    assert (recall.value, recall.n) == (2 / 4, 4)
    both = compare({"a": rows, "b": [record("y", 1.0, decisions=((True, False), (True, False)))]}, "call_recall")
    assert both.delta is not None
    assert (both.delta.value, both.delta.n, both.delta.p) == (0.5, 1, None)


def summed(tmp_path: Path, arms: dict[str, list[Record]], *gates: Gate, **options: Any) -> Summary:
    defaults: dict[str, Any] = {"ran": {}, "sampling": {"seed": 3}, "seconds": 0.0, "interrupted": False, "kept": 2}
    return summarise(small_plan(tmp_path, trials=options.pop("trials", 1)), arms, gates, **defaults | options)


@pytest.mark.parametrize(
    ("trials", "invalid", "verdict"), [(3, 1, "none"), (3, 2, "invalid"), (20, 7, "none"), (20, 8, "invalid")]
)
def test_more_than_five_percent_of_invalid_cases_invalidate_the_run(
    tmp_path: Path, trials: int, invalid: int, verdict: str
) -> None:
    assert MAX_INVALID == 0.05
    rows = [record(f"c{index}", None, outcome="invalid", problem="gone") for index in range(invalid)]
    arms = {"tuned": [record("x", 1.0)], "base": [*rows, record("x", 1.0)]}
    found = summed(tmp_path, arms, trials=trials)
    assert found.verdict == verdict
    assert (found.invalid, found.invalid_by_arm) == (invalid, {"tuned": 0, "base": invalid})
    assert found.problems == {"gone": invalid}
    assert found.done == {"tuned": 1, "base": invalid + 1}
    assert (found.seed, found.kept, found.faults, found.scorer_version) == (3, 2, None, SCORER_VERSION)
    assert summed(tmp_path, arms, trials=trials, interrupted=True).verdict == "interrupted"


@pytest.mark.parametrize(("minimum", "verdict"), [(0.5, "pass"), (0.5001, "fail")])
def test_a_gate_passes_at_its_minimum(tmp_path: Path, minimum: float, verdict: str) -> None:
    arms = {"tuned": [record("x", 1.0), record("y", 0.0)], "base": [record("x", 1.0)]}
    found = summed(tmp_path, arms, Gate("exact_call", minimum), Gate("answer", 0.1))
    assert found.verdict == verdict
    assert [gate.passed for gate in found.gates] == [verdict == "pass", True]
    assert [gate.value for gate in found.gates] == [0.5, 0.5]


@pytest.mark.parametrize(("losses", "passed"), [(0, True), (4, True), (5, False)])
def test_a_gate_with_a_margin_tests_the_difference(tmp_path: Path, losses: int, passed: bool) -> None:
    tuned = cases([0.0] * losses + [1.0] * (100 - losses))
    found = summed(tmp_path, {"tuned": tuned, "base": cases([1.0] * 100)}, Gate("exact_call", margin=0.1))
    (gate,) = found.gates
    assert found.verdict == ("pass" if passed else "fail")
    assert (gate.metric, gate.minimum, gate.margin, gate.passed) == ("exact_call", None, 0.1, passed)
    assert gate.value == pytest.approx(-losses / 100)
    assert gate.p is not None
    assert (gate.p < 0.05) == passed


def test_a_gate_with_a_margin_compares_ratios_too(tmp_path: Path) -> None:
    rows = [record(f"c{index}", 1.0, decisions=((True, True),)) for index in range(30)]
    (gate,) = summed(tmp_path, {"tuned": rows, "base": rows}, Gate("call_recall", margin=0.1)).gates
    assert (gate.value, gate.passed) == (0.0, True)


def test_a_gate_with_a_margin_needs_a_second_arm(tmp_path: Path) -> None:
    found = summed(tmp_path, {"tuned": cases([1.0] * 30)}, Gate("exact_call", margin=0.1))
    assert (found.verdict, found.gates[0].value, found.gates[0].passed) == ("fail", None, False)


@pytest.mark.parametrize(("share", "verdict"), [(0.1, "none"), (0.09, "invalid")])
def test_the_share_of_invalid_cases_is_a_setting(tmp_path: Path, share: float, verdict: str) -> None:
    rows = [record(f"c{index}", None, outcome="invalid", problem="gone") for index in range(7)]  # of 70
    assert summed(tmp_path, {"tuned": rows}, trials=10, max_invalid=share).verdict == verdict


def test_a_gate_on_a_metric_that_applies_to_no_case_fails(tmp_path: Path) -> None:
    found = summed(tmp_path, {"tuned": [record("x", None)]}, Gate("url", 0.0))
    assert (found.verdict, found.gates[0].value, found.gates[0].passed) == ("fail", None, False)
    assert found.finding == "No case that expects calls was finished."


def cases(values: list[float]) -> list[Record]:
    return [record(f"c{index}", value) for index, value in enumerate(values)]


@pytest.mark.parametrize(
    ("tuned", "base", "finding"),
    [
        ([1.0, 0.0, 0.0], None, "tuned makes exactly the expected calls in 33.3% of 3 cases."),
        (
            [1.0] * 5,
            [0.0] * 5,
            "No significant difference between tuned and base in exact calls (100.0 points over 5 cases, p = 0.062).",
        ),
        ([1.0] * 6, [0.0] * 6, "tuned is better than base in exact calls (100.0 points over 6 cases, p = 0.031)."),
        (
            [0.0] * 6,
            [1.0] * 6,
            "tuned is worse than base in exact calls (100.0 points over 6 cases, p = 0.031). "
            "tuned is worse than base in abstention: it calls where no call is expected "
            "(100.0 points over 6 cases, p = 0.031).",
        ),
        (
            [0.0] * 5,
            [1.0] * 5,
            "No significant difference between tuned and base in exact calls (100.0 points over 5 cases, p = 0.062).",
        ),
    ],
)
def test_the_finding_claims_only_what_is_significant(
    tmp_path: Path, tuned: list[float], base: list[float] | None, finding: str
) -> None:
    arms = {"tuned": cases(tuned)} | ({"base": cases(base)} if base else {})
    assert summed(tmp_path, arms).finding == finding


def test_error_classes_are_listed_by_frequency_in_the_first_arm(tmp_path: Path) -> None:
    errors = ["type", "no-call", "no-call", None]
    tuned = [record(f"c{index}", 0.0, error=error) for index, error in enumerate(errors)]
    found = summed(tmp_path, {"tuned": tuned, "base": [record("c0", 0.0, error="refusal")]})
    assert list(found.errors.items()) == [
        ("no-call", {"tuned": 2, "base": 0}),
        ("type", {"tuned": 1, "base": 0}),
        ("refusal", {"tuned": 0, "base": 1}),
    ]


def test_a_stored_arm_is_described_from_its_records(tmp_path: Path) -> None:
    rows = [record("x", 1.0, format="hermes", frame_sha256="abc")]
    stored, empty = summed(tmp_path, {"tuned": rows, "base": []}).arms.values()
    assert (stored.name, stored.identity, stored.format, stored.frame_sha256) == ("stored run", None, "hermes", "abc")
    assert (stored.fingerprint, stored.steps, stored.tokens) == ("f", 0, 0)
    assert (empty.format, empty.frame_sha256, empty.fingerprint) == (None, None, None)


def test_groups_count_their_cases_and_leave_out_figures_that_do_not_apply(tmp_path: Path) -> None:
    rows = [record("x", 1.0, category="single", lang="en"), record("y", None, category="parallel", lang="zh")]
    found = summed(tmp_path, {"tuned": rows})
    assert found.categories["single"].cases == 2
    assert set(found.categories["single"].metrics) == set(HEADLINES)
    assert found.categories["parallel"].metrics == {}
    assert found.languages["en"].metrics["answer"].arms["tuned"].n == 1


@pytest.mark.parametrize(
    ("delta", "finding"),
    [
        (
            PairedDelta(0.5, 0.1, 0.9, 8, 0.0499),
            "a is better than b in exact calls (50.0 points over 8 cases, p = 0.05).",
        ),
        (
            PairedDelta(0.5, 0.1, 0.9, 8, 0.05),
            "No significant difference between a and b in exact calls (50.0 points over 8 cases, p = 0.05).",
        ),
        (
            PairedDelta(-0.5, -0.9, -0.1, 8, 0.0499),
            "a is worse than b in exact calls (50.0 points over 8 cases, p = 0.05). "
            "a is worse than b in abstention: it calls where no call is expected (50.0 points over 8 cases, p = 0.05).",
        ),
        (
            PairedDelta(-0.5, -0.9, -0.1, 8, 0.05),
            "No significant difference between a and b in exact calls (50.0 points over 8 cases, p = 0.05).",
        ),
        (PairedDelta(), "a makes exactly the expected calls in 100.0% of 1 case."),
    ],
)
def test_a_difference_is_significant_below_p_of_5_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delta: PairedDelta, finding: str
) -> None:
    monkeypatch.setattr("agentft.evaluation.comparison.paired_delta", lambda *_: delta)
    assert summed(tmp_path, {"a": [record("x", 1.0)], "b": [record("x", 1.0)]}).finding == finding


def test_without_shared_cases_only_the_first_arm_is_described(tmp_path: Path) -> None:
    arms = {"a": [record("x", 1.0), record("z", 0.0)], "b": [record("y", 1.0)]}
    assert summed(tmp_path, arms).finding == "a makes exactly the expected calls in 50.0% of 2 cases."
    assert summed(tmp_path, {**arms, "a": []}).finding.startswith("No case")


def test_faults_are_counted_by_arm_and_kind(tmp_path: Path) -> None:
    def step(*faults: str) -> Step:
        call = ToolCall("c", "price", {}, Span(0, 0))
        exchanges = tuple(Exchange(call, "POST", "", {}, 200, "", False, fault=fault) for fault in faults)
        return Step(0, (call,), "", "stop", exchanges)

    tuned = [record("x", 1.0, steps=(step("slow", ""), step("slow"))), record("y", 1.0, steps=(step("error"),))]
    faults: Any = SimpleNamespace(digest="abc", seed=7)
    plan = replace(small_plan(tmp_path), faults=faults)
    options: dict[str, Any] = {"ran": {}, "sampling": {"seed": 0}, "seconds": 0.0, "interrupted": False, "kept": 0}
    found = summarise(plan, {"tuned": tuned, "base": [record("x", 1.0)]}, (), **options).faults
    assert found == FaultSummary("abc", 7, {"tuned": {"slow": 2, "error": 1}, "base": {}})


def test_packages_that_are_not_installed_have_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentft.evaluation.summary.PACKAGES", ("numpy", "no-such-package", "scipy"))
    found = summed(tmp_path, {"tuned": [record("x", 1.0)]}).versions
    assert found == {
        "python": platform.python_version(),
        "agentft": agentft.__version__,
        "numpy": metadata.version("numpy"),
        "scipy": metadata.version("scipy"),
    }


@pytest.mark.parametrize(
    "value",
    [
        Gate("url", 0.5),
        GateResult("url", 0.5, None, passed=False),
        Comparison({}),
        Breakdown(0, {}),
        ArmSummary("a", None, None, None, None, 0, 0),
        FaultSummary("", 0, {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parts_of_a_summary_are_immutable(value: object) -> None:
    assert_immutable(value)


def test_a_summary_is_immutable(tmp_path: Path) -> None:
    assert_immutable(summed(tmp_path, {"tuned": []}))
