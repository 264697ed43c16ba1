"""BFCL as a plan: its data, tools, names and expectations; one reply without sending; the official figures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentft.agent import Options, run_cases
from agentft.commands import run as run_command
from agentft.errors import InputError
from agentft.evaluation.arms import ModelChoice, make_arms
from agentft.evaluation.bfcl import expected_calls, make_bfcl_plan, shown_names
from agentft.evaluation.bfcl_data import BFCL_CATEGORIES, UNSOLVABLE, choose_categories, read_category
from agentft.evaluation.checking import check_cases
from agentft.evaluation.plan import Plan
from agentft.evaluation.records import read_records
from agentft.evaluation.rescoring import rescore
from agentft.evaluation.runner import Settings, evaluate
from agentft.evaluation.summary import Gate, Summary
from agentft.metrics.bfcl import BfclEntry
from agentft.models.scripted import ScriptedModel
from agentft.types import Turn

FACTORIAL = {
    "name": "math.factorial",
    "description": "Factorial.",
    "parameters": {
        "type": "dict",
        "properties": {"n": {"type": "integer"}, "unit": {"type": "string", "description": "The unit."}},
        "required": ["n"],
    },
}
ANSWER = {"math.factorial": {"n": [5, 6], "unit": ["", "plain"]}}


def write_data(folder: Path) -> Path:
    """A folder with the data of three categories."""
    (folder / "possible_answer").mkdir(parents=True)
    user, assistant = {"role": "user", "content": "5!"}, {"role": "assistant", "content": "Hm."}
    system = {"role": "system", "content": "Be brief."}
    rows: dict[str, list[Any]] = {
        "simple_python": [
            {"id": "simple_python_0", "question": [[user]], "function": [FACTORIAL]},
            {
                "id": "simple_python_1",
                "question": [[system, user, user, assistant, user]],
                "function": [FACTORIAL],
            },
        ],
        "irrelevance": [{"id": "irrelevance_0", "question": [[user]], "function": [FACTORIAL]}],
        "live_relevance": [{"id": "live_relevance_0-0-0", "question": [[user]], "function": [FACTORIAL]}],
    }
    for category, found in rows.items():
        (folder / f"BFCL_v4_{category}.json").write_text("\n".join(map(json.dumps, found)))
    answers = [{"id": row["id"], "ground_truth": [ANSWER]} for row in rows["simple_python"]]
    (folder / "possible_answer" / "BFCL_v4_simple_python.json").write_text("\n".join(map(json.dumps, answers)))
    return folder


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_bfcl_plan(("simple_python", "irrelevance", "live_relevance"), write_data(tmp_path / "data"))


def run(plan: Plan, folder: Path, texts: Mapping[str, str] | None = None, gates: tuple[Gate, ...] = ()) -> Summary:
    """With the expected calls, or with texts by case."""
    model = "scripted"
    if texts is not None:
        lines = [json.dumps({"key": f"{case}/0/0", "text": text}) for case, text in texts.items()]
        (folder / "answers.jsonl").write_text("\n".join(lines))
        model = f"scripted:{folder / 'answers.jsonl'}"
    arms, _ = make_arms(plan, ModelChoice(model, call_format="hermes"), None)
    return evaluate(plan, arms, Settings(folder / "out", gates=gates))


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def test_the_expected_calls_are_perfect(plan: Plan, tmp_path: Path) -> None:
    summary = run(plan, tmp_path)
    assert summary.metrics["bfcl"].arms["model"].value == summary.metrics["success"].arms["model"].value == 1
    assert summary.errors == {}
    for row in read_records(tmp_path / "out" / "cases.jsonl"):
        assert (row.outcome, row.error, len(row.steps), row.steps[0].exchanges) == ("done", None, 1, ())
    assert summary.bfcl is not None
    assert summary.bfcl["arms"]["model"]["official"]["overall"] == pytest.approx(0.1 * (1 / 12) + 0.1 * 0.5)
    assert summary.bfcl["arms"]["model"]["official"]["live"] is None
    assert {"multiple", "live_irrelevance", "simple_java", "multi_turn_base"} <= set(summary.bfcl["not_run"])
    assert set(summary.suites) == {"simple_python", "irrelevance", "live_relevance"}
    assert summary.suites["live_relevance"].metrics.keys() == {"bfcl", "success"}


def test_errors_are_the_official_types_and_scorers_are_compared(plan: Plan, tmp_path: Path) -> None:
    texts = {
        "simple_python_0": call("math_factorial", n=5, unit="PLAIN-"),  # equal for BFCL only
        "simple_python_1": call("math.factorial", n=5),  # the name that was not shown
        "irrelevance_0": "<tool_call>{",  # unreadable: no call for BFCL
        "live_relevance_0-0-0": call("anything"),
    }
    summary = run(plan, tmp_path, texts, (Gate("bfcl", 0.8),))
    assert summary.errors == {"simple_function_checker:wrong_func_name": {"model": 1}}
    assert summary.bfcl is not None
    assert summary.bfcl["arms"]["model"]["scorers"] == {"both": 0, "neither": 1, "only_bfcl": 2, "only_strict": 0}
    assert summary.verdict == "fail"
    assert "passes BFCL's check in 75.0% of 4 cases" in summary.finding
    rows = {row.case: row for row in read_records(tmp_path / "out" / "cases.jsonl")}
    assert rows["simple_python_1"].findings[0].pointer == "/0/math.factorial"
    assert rows["live_relevance_0-0-0"].scores["exact_call"].value is None


def test_a_text_in_the_prompt_style_is_decoded(plan: Plan, tmp_path: Path) -> None:
    texts = {case.id: "[math_factorial(n=6)]" for case in plan.cases}
    summary = run(plan, tmp_path, texts)
    assert summary.suites["simple_python"].metrics["bfcl"].arms["model"].value == 1
    assert summary.errors == {"irrelevance_error:decoder_success": {"model": 1}}


def test_a_finished_run_is_not_run_again(plan: Plan, tmp_path: Path) -> None:
    run(plan, tmp_path)
    assert run(plan, tmp_path).kept == len(plan.cases)


def test_earlier_messages_come_before_the_users(plan: Plan) -> None:
    setup = plan.setups["simple_python_1"]
    assert setup.system == "Be brief."
    assert [(turn.role, turn.raw) for turn in setup.history] == [("user", "5!\n\n5!"), ("assistant", "Hm.")]
    seen: list[tuple[Turn, ...]] = []

    class Watching(ScriptedModel):
        def reply(self, requests: Any, sampling: Any, on_delta: Any = None) -> Any:
            seen.extend(request.conversation.turns for request in requests)
            return super().reply(requests, sampling, on_delta)

    job = plan.job(next(case for case in plan.cases if case.id == "simple_python_1"))
    (found,) = run_cases([job], Watching({"*": "Hi."}), lambda _: None, Options())
    assert found.outcome == "done"
    assert [turn.role for turn in seen[0]] == ["system", "user", "assistant", "user"]


def test_a_check_finds_entries_that_no_one_solves_and_that_are_ambiguous(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data")
    assert run_command(["eval", "bfcl", "--check", "--data", str(data), "--categories", "simple,irrelevance"]) == 0
    assert capsys.readouterr().out == "3 cases of simple_python, irrelevance: none with flaws\n"
    questions = [json.loads(line) for line in (data / "BFCL_v4_simple_python.json").read_text().splitlines()]
    rows = [{**questions[0], "id": name} for name in ("parallel_0", "live_simple_106-63-0", "parallel_2")]
    (data / "BFCL_v4_parallel.json").write_text("\n".join(map(json.dumps, rows)))
    wide, narrow = [{"math.factorial": {"n": values, "unit": [""]}} for values in ([5, 6], [5])]
    answers = [[narrow, wide], [{"math.factorial": {"unit": ["x"]}}], [wide, wide]]
    answers[0], answers[2] = [wide, {"math.factorial": {"n": [6], "unit": [""]}}], [narrow, narrow]
    found = [{"id": row["id"], "ground_truth": answer} for row, answer in zip(rows, answers, strict=True)]
    (data / "possible_answer/BFCL_v4_parallel.json").write_text("\n".join(map(json.dumps, found)))
    assert run_command(["eval", "bfcl", "--check", "--data", str(data), "--categories", "parallel", "--json"]) == 1
    flaws = json.loads(capsys.readouterr().out)["flaws"]
    assert {flaw["place"] for flaw in flaws} == {"BFCL_v4_parallel.json"}
    assert [(flaw["case"], flaw["problem"].split(":")[0]) for flaw in flaws] == [
        ("parallel_0", "with its calls in the opposite order it fails"),
        ("live_simple_106-63-0", "it asks the same as case 'parallel_0', and expects something else"),
        ("live_simple_106-63-0", "the reference calls fail"),
        ("parallel_2", "it asks the same as case 'parallel_0', and expects something else"),
    ]
    assert flaws[2]["remedy"] == "this is known, and no answer can pass"


def test_the_flaws_of_the_real_data_are_known(bfcl_wheel: Path) -> None:
    flaws = check_cases(make_bfcl_plan((*BFCL_CATEGORIES, "multi_turn_base"), bfcl_wheel))
    assert tuple(flaw.case for flaw in flaws if "reference calls fail" in flaw.problem) == UNSOLVABLE
    assert [flaw.case for flaw in flaws if "opposite order" in flaw.problem] == ["parallel_178"]
    assert len(flaws) == 8


def test_names_are_safe_and_told_apart() -> None:
    shown = shown_names(["a.b", "a_b", "a b", "c"])
    assert shown == {"a.b": "a_b", "a_b": "a_b_", "a b": "a_b__", "c": "c"}


def bfcl_types(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of the schema that models are shown."""
    kind = {"object": "dict", "number": "float"}.get(schema.get("type", "any"), schema.get("type", "any"))
    kind = "tuple" if kind == "array" and schema.get("format") == "tuple" else kind
    declared = {**{key: value for key, value in schema.items() if (key, value) != ("format", "tuple")}, "type": kind}
    if "properties" in schema:
        declared["properties"] = {name: bfcl_types(inner) for name, inner in schema["properties"].items()}
    if "items" in schema:
        declared["items"] = bfcl_types(schema["items"])
    return declared


def test_objects_have_every_combination_of_their_values() -> None:
    properties = {"a": {"type": "dict"}, "b": {"type": "array", "items": {"type": "dict"}}, "c": {"type": "string"}}
    parameters = {"properties": properties, "required": ["a", "c"]}
    accepted = {"a": [{"x": [1, 2], "y": ["", 3]}], "b": ["", [{"z": [1, 2]}]], "c": [""]}
    entry = BfclEntry("simple_python", ({"name": "f", "parameters": parameters},), ({"f": accepted},))
    (expected,) = expected_calls(entry)
    assert expected.arguments == {"a": {"x": 1}, "c": ""}
    assert expected.alternatives["a"] == ({"x": 1, "y": 3}, {"x": 2}, {"x": 2, "y": 3})
    assert expected.optional == {"b": [{"z": 1}]}
    assert expected.alternatives["b"] == ([{"z": 2}],)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, BFCL_CATEGORIES),
        ("simple", ("simple_python",)),
        ("live_simple, multiple", ("multiple", "live_simple")),
        ("non_live", BFCL_CATEGORIES[:5]),
    ],
)
def test_categories_are_chosen(text: str | None, expected: tuple[str, ...]) -> None:
    assert choose_categories(text) == expected


@pytest.mark.parametrize("text", ["simple_java", "multi_turn_composite", "", "simple,"])
def test_other_categories_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no Python category that runs here"):
        choose_categories(text)


def test_damaged_data_is_an_error_with_its_place(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    (data / "possible_answer" / "BFCL_v4_simple_python.json").write_text('{"id": "x", "ground_truth": []}')
    with pytest.raises(InputError, match="there is no answer for 'simple_python_0'"):
        read_category(data, "simple_python")
    (data / "BFCL_v4_irrelevance.json").write_text('{"id": "x"}')
    with pytest.raises(InputError, match=r"BFCL_v4_irrelevance.json:1: `question` is missing"):
        read_category(data, "irrelevance")
    with pytest.raises(InputError, match=r"multiple.json cannot be read .* give the folder `data`"):
        read_category(data, "multiple")
    (tmp_path / "x.whl").write_text("no zip")
    with pytest.raises(InputError, match="is not a zip file"):
        read_category(tmp_path / "x.whl", "multiple")


def test_the_real_data_become_tools(bfcl_wheel: Path) -> None:
    plan = make_bfcl_plan(BFCL_CATEGORIES, bfcl_wheel)
    assert len(plan.cases) == 3491
    assert all(case_id in plan.notes[0] for case_id in UNSOLVABLE)
    for number, question in enumerate(each for name in BFCL_CATEGORIES for each in read_category(bfcl_wheel, name)[0]):
        tools = plan.setups[question.id].tools
        assert all(re.fullmatch(r"[A-Za-z0-9_-]+", tool.name) for tool in tools)
        assert len({tool.name for tool in tools}) == len(question.entry.functions)
        for tool, function in zip(tools, question.entry.functions, strict=True):
            assert bfcl_types(tool.parameters) == {"type": "any", **function["parameters"]}
            if number % 20 == 0:
                Draft202012Validator.check_schema(tool.parameters)


def test_the_expected_calls_of_the_real_data_pass(bfcl_wheel: Path, tmp_path: Path) -> None:
    plan = make_bfcl_plan(("parallel_multiple", "irrelevance", "live_simple", "live_relevance"), bfcl_wheel)
    summary = run(plan, tmp_path)
    failed = [row.case for row in read_records(tmp_path / "out" / "cases.jsonl") if row.scores["bfcl"].value != 1]
    assert sorted(failed) == [case_id for case_id in UNSOLVABLE if case_id.startswith("live_simple")]
    again = rescore(tmp_path / "out", (), 0.05)
    assert again.metrics["bfcl"] == summary.metrics["bfcl"]
    assert again.bfcl == summary.bfcl
