from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentft.calls import CALL_FORMATS
from agentft.errors import InputError
from agentft.evaluation.gold import oracle_answers
from agentft.evaluation.plan import Arm, Plan, make_plan
from agentft.evaluation.records import dump_line, read_records
from agentft.evaluation.runner import Settings, evaluate, read_baseline
from agentft.evaluation.suites import load_suite
from agentft.evaluation.summary import SCORES, Gate
from agentft.models import OnDelta, Reply, Request, Sampling
from agentft.models.scripted import Answer, ScriptedModel
from agentft.rendering.frame import CHATML
from agentft.toolset import load_toolset
from agentft.types import Score, Span, ToolCall
from tests.evaluation.world import CASES, call, small_plan, write_suite, write_world


def scripted(
    label: str, answers: Mapping[str, Answer], fmt: str = "hermes", on_key: Callable[[str], None] | None = None
) -> Arm:
    model = _Watched(answers, on_key, fmt)
    return Arm(label, f"scripted {label}", repr([label, fmt, answers]), lambda: model)


class _Watched:
    """A scripted model that reports the keys of its requests."""

    def __init__(self, answers: Mapping[str, Answer], on_key: Callable[[str], None] | None, fmt: str) -> None:
        self.inner = ScriptedModel(answers, fmt=fmt)
        self.on_key = on_key or (lambda _: None)
        self.name = "watched"
        self.source = self.inner.source
        self.rendering = self.inner.rendering

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        for request in requests:
            self.on_key(request.key)
        return self.inner.reply(requests, sampling, on_delta)


def oracle(plan: Plan) -> dict[str, Answer]:
    return {**oracle_answers(plan.job(case) for case in plan.cases)}


def run(plan: Plan, output: Path, *arms: Arm, **settings: Any) -> dict[str, Any]:
    return evaluate(plan, arms, Settings(output, **settings)).document()


def value(summary: dict[str, Any], metric: str, arm: str = "tuned") -> float | None:
    found: float | None = summary["metrics"][metric][arm]["value"]
    return found


@pytest.mark.parametrize("fmt", CALL_FORMATS)
def test_the_oracle_solves_every_case_over_real_http(tmp_path: Path, fmt: str) -> None:
    plan = small_plan(tmp_path)
    summary = run(plan, tmp_path / "out", scripted("tuned", oracle(plan), fmt))
    unsolved = {name: value(summary, name) for name in SCORES if value(summary, name) not in (1.0, None)}
    assert set(unsolved) <= {"rouge_l"}
    assert summary["verdict"] == "none"  # there is no gate
    assert (summary["cases"], summary["invalid"], summary["errors"]) == (7, 0, {})
    assert summary["metrics"]["exact_call"]["tuned"]["n"] == 6
    assert summary["metrics"]["abstention"]["tuned"]["n"] == 2
    assert summary["metrics"]["end_state"]["tuned"]["n"] == 3
    assert (value(summary, "url") is None) == (fmt == "hermes")
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())


def test_a_record_holds_the_replies_and_the_exchanges(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    run(plan, tmp_path / "out", scripted("tuned", oracle(plan)))
    records = {record.case: record for record in read_records(tmp_path / "out" / "cases.jsonl")}
    assert len(records) == 7
    record = records["p1"]
    assert "You run a shop." in record.prompt
    assert "茶和蛋糕多少钱？" in (tmp_path / "out" / "cases.jsonl").read_text(encoding="utf-8")
    first = record.document()["steps"][0]
    assert first["completion"].startswith("<tool_call>")
    assert [made["arguments"] for made in first["calls"]] == [{"item": "tea"}, {"item": "cake"}]
    assert [exchange["status"] for exchange in first["exchanges"]] == [200, 200]
    assert json.loads(first["exchanges"][1]["received"]) == {"item": "cake", "price": 1200}
    assert record.scores["exact_call"] == Score(1.0, "every call is exact")
    assert record.error is None
    failed = records["e1"].steps[0].exchanges[0]
    assert (failed.status, failed.is_error) == (404, True)
    assert record.trajectory.steps[0].exchanges[0].call.arguments == {"item": "tea"}


def test_better_calls_do_not_hide_worse_abstention(tmp_path: Path) -> None:
    calls = [case for case in CASES if case["category"] == "single"] * 3
    talk = [case for case in CASES if case["category"] == "irrelevance"] * 6
    plan = small_plan(tmp_path, [{**case, "id": f"c{number}"} for number, case in enumerate(calls + talk)])
    price: Answer = (ToolCall("c", "price", {"item": "tea"}, Span(0, 0)),)
    eager = dict.fromkeys(oracle(plan), price)
    eager |= {key: answer for key, answer in oracle(plan).items() if int(key.removeprefix("c").partition("/")[0]) < 6}
    eager["*"] = "Done."
    summary = run(plan, tmp_path / "out", scripted("tuned", eager), scripted("base", {"*": "I like tea."}))
    assert summary["finding"] == (
        "tuned is better than base in exact calls (100.0 points over 6 cases, p = 0.031). "
        "tuned is worse than base in abstention: it calls where no call is expected "
        "(100.0 points over 6 cases, p = 0.031). base wrote no readable call in the 6 cases that expect one: its "
        "failures may be of the call format rather than of its decisions; try --baseline-format native, or --shots 3."
    )


def test_two_arms_are_compared_in_pairs(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    summary = run(plan, tmp_path / "out", scripted("tuned", oracle(plan)), scripted("base", {"*": "I like tea."}))
    row = summary["metrics"]["exact_call"]
    assert (row["tuned"]["value"], row["base"]["value"]) == (1.0, 0.0)
    assert row["delta"]["value"] == 1.0
    assert row["delta"]["low"] > 0.3
    assert row["delta"]["p"] == pytest.approx(2 / 2**6)
    assert summary["metrics"]["call_recall"]["base"]["value"] == 0.0
    assert summary["metrics"]["call_precision"]["base"] == {"value": None, "low": None, "high": None, "n": 0}
    assert value(summary, "abstention", "base") == 1.0
    assert summary["errors"] == {"no-call": {"tuned": 0, "base": 6}}
    assert summary["categories"]["single"]["metrics"]["exact_call"]["tuned"]["n"] == 2
    assert set(summary["categories"]["irrelevance"]["metrics"]) == {"success", "abstention"}
    assert set(summary["languages"]) == {"en", "zh"}
    assert summary["finding"] == (
        "tuned is better than base in exact calls (100.0 points over 6 cases, p = 0.031). base wrote no readable call "
        "in the 6 cases that expect one: its failures may be of the call format rather than of its decisions; "
        "try --baseline-format native, or --shots 3."
    )
    assert summary["failures"] == {"tuned": {"format": 0, "decision": 0}, "base": {"format": 6, "decision": 0}}
    assert summary["arms"]["base"]["format"] == "hermes"
    assert summary["arms"]["base"]["frame_sha256"] == CHATML.fingerprint
    assert summary["arms"]["base"]["identity"] != summary["arms"]["tuned"]["identity"]


def test_finished_cases_are_kept_and_only_the_rest_is_run(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    answers, output = oracle(plan), tmp_path / "out"
    first = run(small_plan(tmp_path, limit=3), output, scripted("tuned", answers))
    asked: list[str] = []
    second = run(plan, output, scripted("tuned", answers, on_key=asked.append))
    finished = {record.case for record in list(read_records(output / "cases.jsonl"))[:3]}
    assert (first["cases"], second["cases"], second["kept"]) == (3, 7, 3)
    assert not {key.partition("/")[0] for key in asked} & finished
    assert len(list(read_records(output / "cases.jsonl"))) == 7
    assert run(plan, output, scripted("tuned", answers, on_key=asked.append))["metrics"] == second["metrics"]


def test_a_line_that_a_crash_cut_off_is_run_again(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    path = tmp_path / "out" / "cases.jsonl"
    run(plan, tmp_path / "out", scripted("tuned", oracle(plan)))
    path.write_bytes(path.read_bytes()[:-40])
    asked: list[str] = []
    summary = run(plan, tmp_path / "out", scripted("tuned", oracle(plan), on_key=asked.append))
    assert summary["kept"] == 6
    assert len({key.partition("/")[0] for key in asked}) == 1
    assert len(list(read_records(path))) == 7


def test_a_folder_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    run(plan, tmp_path / "out", scripted("tuned", oracle(plan)))
    with pytest.raises(InputError, match="holds another evaluation"):
        run(plan, tmp_path / "out", scripted("tuned", {"*": "Hm."}))
    with pytest.raises(InputError, match="holds another evaluation"):
        run(plan, tmp_path / "out", scripted("tuned", oracle(plan)), sampling=Sampling(max_new_tokens=5))


def test_an_interrupt_keeps_and_summarises_the_finished_cases(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)

    def stop(key: str) -> None:
        if key.startswith("p1"):
            raise KeyboardInterrupt

    output = tmp_path / "out"
    summary = run(plan, output, scripted("tuned", oracle(plan), on_key=stop), batch_size=1)
    assert (summary["verdict"], summary["interrupted"]) == ("interrupted", True)
    assert summary["done"] == {"tuned": 2}
    assert summary["metrics"]["exact_call"]["tuned"]["n"] == 2
    assert len(list(read_records(output / "cases.jsonl"))) == 2
    assert run(plan, output, scripted("tuned", oracle(plan)))["kept"] == 2


def test_a_tool_that_crashes_makes_the_case_invalid_and_is_tried_again(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    bomb = ToolCall("c", "price", {"item": "bomb"}, Span(0, 0))
    answers = {**oracle(plan), "s1/0/0": (bomb,)}
    summary = run(plan, tmp_path / "out", scripted("tuned", answers))
    assert (summary["verdict"], summary["invalid"]) == ("invalid", 1)
    assert [text.partition(":")[0] for text in summary["problems"]] == ["tool price answered 500"]
    assert summary["metrics"]["exact_call"]["tuned"] == {**summary["metrics"]["exact_call"]["tuned"], "n": 5}
    record = next(r for r in read_records(tmp_path / "out" / "cases.jsonl") if r.case == "s1")
    assert "tool price answered 500" in record.problem
    assert record.scores["exact_call"].value is None
    assert run(plan, tmp_path / "out", scripted("tuned", answers))["kept"] == 6


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [(Gate("exact_call", 1.0), "pass"), (Gate("url", 0.1), "fail"), (Gate("success", 0.99), "pass")],
)
def test_gates_decide_the_verdict(tmp_path: Path, gate: Gate, verdict: str) -> None:
    plan = small_plan(tmp_path)
    summary = run(plan, tmp_path / "out", scripted("tuned", oracle(plan)), gates=(gate,))
    assert summary["verdict"] == verdict
    assert summary["gates"][0]["metric"] == gate.metric


def test_trials_are_averaged_per_case(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, trials=2)
    summary = run(plan, tmp_path / "out", scripted("tuned", oracle(plan)))
    assert summary["done"] == {"tuned": 14}
    assert summary["metrics"]["exact_call"]["tuned"]["n"] == 6


def test_a_stored_run_is_a_baseline_for_the_same_cases(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    run(plan, tmp_path / "old", scripted("tuned", {"*": "Hm."}))
    rows = read_baseline(tmp_path / "old" / "cases.jsonl", plan)
    summary = evaluate(plan, [scripted("tuned", oracle(plan))], Settings(tmp_path / "new"), {"base": rows}).document()
    assert summary["metrics"]["exact_call"]["delta"]["value"] == 1.0
    assert summary["arms"]["base"]["name"] == "stored run of scripted tuned"
    other = small_plan(tmp_path, [{**CASES[0], "turns": [{"user": "Other?"}], "category": "irrelevance"}])
    with pytest.raises(InputError, match="it has none of the cases of this evaluation"):
        read_baseline(tmp_path / "old" / "cases.jsonl", other)


def test_a_stored_run_with_other_sampling_is_refused(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    path = tmp_path / "old" / "cases.jsonl"
    sampled, other = Sampling(temperature=0.5, seed=1), Sampling(temperature=0.5, seed=2)
    run(plan, tmp_path / "old", scripted("tuned", oracle(plan)), sampling=sampled)
    assert len(read_baseline(path, plan, sampled)) == 7
    for now, shown in ((other, "temperature 0.5, seed 2"), (Sampling(), "and this evaluation without faults, so")):
        with pytest.raises(InputError, match=rf"sampled with temperature 0.5, seed 1, .*{shown}"):
            read_baseline(path, plan, now)
    run(plan, tmp_path / "greedy", scripted("tuned", oracle(plan)))
    assert len(read_baseline(tmp_path / "greedy" / "cases.jsonl", plan, Sampling(seed=3))) == 7


def test_a_smaller_rerun_keeps_the_full_summary(tmp_path: Path) -> None:
    answers, output, said = oracle(small_plan(tmp_path)), tmp_path / "out", list[str]()
    full = run(small_plan(tmp_path, trials=2), output, scripted("tuned", answers))
    for smaller in (small_plan(tmp_path, limit=3), small_plan(tmp_path)):
        run(smaller, output, scripted("tuned", answers), on_note=said.append)
        assert json.loads((output / "summary.json").read_text()) == full
    note = f"{output}/summary.json covers 14 finished cases and is kept; this summary covers fewer and is only shown"
    assert said == [note] * 2
    (output / "summary.json").write_text("{")
    assert run(small_plan(tmp_path), output, scripted("tuned", answers))["cases"] == 7
    assert json.loads((output / "summary.json").read_text())["trials"] == 1


def test_a_finished_rerun_replaces_the_summary_of_an_interrupted_larger_run(tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(small_plan(tmp_path, limit=3), output, scripted("tuned", oracle(small_plan(tmp_path))))
    stored = json.loads((output / "summary.json").read_text())
    interrupted = {**stored, "cases": 7, "trials": 2, "done": {"tuned": 2}, "interrupted": True}
    (output / "summary.json").write_text(json.dumps(interrupted))
    run(small_plan(tmp_path, limit=3), output, scripted("tuned", oracle(small_plan(tmp_path))))
    assert json.loads((output / "summary.json").read_text())["done"] == {"tuned": 3}


def test_stored_runs_of_an_older_scorer_are_graded_again(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    path = tmp_path / "old" / "cases.jsonl"
    run(plan, tmp_path / "old", scripted("tuned", oracle(plan)))
    rows = [replace(row, scorer_version=0, scores={}, decisions=()) for row in read_records(path)]
    path.write_text("".join(dump_line(row.document()) for row in rows))
    summary = evaluate(
        plan, [scripted("tuned", {"*": "Hm."})], Settings(tmp_path / "new"), {"base": read_baseline(path, plan)}
    ).document()
    assert value(summary, "exact_call", "base") == 1.0
    assert value(summary, "end_state", "base") == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turns": [{"user": "?", "calls": [call("price", item="gold")]}]}, "price(item='gold') returned 404"),
        ({"turns": [{"user": "?", "failing": 1, "calls": [call("price", item="tea")]}]}, "it was expected to fail"),
        ({"turns": [{"user": "?", "calls": [call("prize", item="tea")]}]}, "there is no tool 'prize'"),
    ],
)
def test_a_suite_that_does_not_fit_its_world_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        run(small_plan(tmp_path, [{**CASES[0], **changes}]), tmp_path / "out", scripted("tuned", {"*": "Hm."}))
    assert message in str(caught.value)
    assert "case s1" in str(caught.value)


def test_plans_are_checked_and_described(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    lines = plan.describe()
    assert lines[0] == (
        "7 cases of shopping: single 2, parallel 1, missing_parameter 1, irrelevance 1, tool_error 1, multi_round 1"
    )
    assert lines[1] == "2 tools: order, price"
    assert lines[2] == (
        "smallest detectable difference in exact calls (6 cases, if the arms differ in 20 % of them): "
        "none, too few cases"
    )
    one = small_plan(tmp_path, [{**CASES[0], "turns": [{"user": "Hello?"}], "category": "irrelevance"}])
    assert one.describe()[0] == "1 case of shopping: irrelevance 1"
    suite = load_suite(write_suite(tmp_path))
    with pytest.raises(InputError, match="needs the tools shop"):
        make_plan([suite], [])
    with pytest.raises(InputError, match="no suite shows the tools weather; omit them from --tools"):
        make_plan([suite], [load_toolset(write_world(tmp_path)), load_toolset("weather")])
    with pytest.raises(InputError, match="case id 's1' is in suite"):
        make_plan([suite, suite], [load_toolset(write_world(tmp_path))])


def test_lone_surrogates_and_nan_become_valid_json_lines(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    odd = '<tool_call>\n{"name": "price", "arguments": {"item": "\\ud800", "n": 1}}\n</tool_call>'
    run(plan, tmp_path / "out", scripted("tuned", {**oracle(plan), "s1/0/0": odd}))
    records = {record.case: record for record in read_records(tmp_path / "out" / "cases.jsonl")}
    assert records["s1"].outcome == "done"
    assert records["s1"].error in ("unknown-argument", "invalid-json")
    assert json.loads(dump_line({"n": [float("nan"), {"m": float("-inf")}]})) == {"n": ["nan", {"m": "-inf"}]}


def test_a_damaged_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    for content, message in [("{\n{}\n", ":1: it is not JSON"), ("{}\n", ":1: it is not a line of an evaluation")]:
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            list(read_records(path))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_records(tmp_path))
