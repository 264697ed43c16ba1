"""BFCL's multi-turn categories: their data, tools that come later, and simulators in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentft.agent import Options, run_cases
from agentft.errors import InputError, MissingError
from agentft.evaluation.arms import ModelChoice, make_arms
from agentft.evaluation.bfcl import make_bfcl_plan
from agentft.evaluation.bfcl_data import MULTI_TURN, choose_categories
from agentft.evaluation.bfcl_turns import reference_call
from agentft.evaluation.plan import Plan
from agentft.evaluation.records import read_records
from agentft.evaluation.rescoring import rescore
from agentft.evaluation.runner import Settings, evaluate
from agentft.evaluation.simulators import Simulators
from agentft.models.scripted import ScriptedModel
from agentft.types import CallExpectation
from tests.waiting import PATIENCE

CODE = """
import os, time

class GorillaFileSystem:
    def __init__(self):
        self._clock = time.monotonic()  # not compared
        self.files = []

    def _load_scenario(self, config, long_context=False):
        self.files = config["files"]
        self.long = long_context

    def touch(self, name):
        print("noise")
        self.files.append(name)

    def ls(self, reverse=False):
        return {"files": self.files[::-1] if reverse else self.files}

    def sort(self, name):
        return f"sorted {name}"

    def both(self):
        return {"x": {1}}

    def save(self, path):
        with open(path, "w") as file:
            file.write("x")

    def eat(self):
        return len(bytearray(4 << 30))

    def hang(self):
        time.sleep(600)

    def quiet(self):
        return ""

    def die(self):
        os._exit(3)

class MathAPI:
    def ls(self):
        return 7.0
"""
STEMS = ("math_api", "message_api", "posting_api", "ticket_api", "trading_bot", "travel_booking", "vehicle_control")
SIMULATION = {
    "classes": {"GorillaFileSystem": "gorilla_file_system"},
    "config": {"GorillaFileSystem": {"files": ["a"]}},
}


def function(name: str, /, **properties: str) -> dict[str, Any]:
    parameters = {"type": "dict", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"name": name, "description": f"{name}.", "parameters": {**parameters, "required": []}}


def write_package(folder: Path) -> Path:
    """A package like `bfcl_eval`, with one simulator; returns its data."""
    code = folder / "bfcl_eval/eval_checker/multi_turn_eval/func_source_code"
    data = folder / "bfcl_eval/data"
    for path in (code, data / "multi_turn_func_doc", data / "possible_answer"):
        path.mkdir(parents=True)
    (code / "gorilla_file_system.py").write_text(CODE)
    for stem in STEMS:
        (data / "multi_turn_func_doc" / f"{stem}.json").write_text("")
    documents = [function("ls", reverse="boolean"), function("touch", name="string"), function("sort", name="string")]
    documents += [function("rm", name="string")]
    (data / "multi_turn_func_doc/gorilla_file_system.json").write_text("\n".join(map(json.dumps, documents)))
    for category in ("multi_turn_base", "multi_turn_miss_func"):
        held = {"missed_function": {"1": ["sort"]}} if "miss" in category else {}
        row: dict[str, Any] = {
            "id": f"{category}_0",
            "question": [[{"role": "user", "content": "Make b."}], [], [{"role": "user", "content": "List."}]],
            "initial_config": {"GorillaFileSystem": {"files": ["a"]}},
            "involved_classes": ["GorillaFileSystem"],
            "excluded_function": ["rm"],
            **held,
        }
        answer = {"id": row["id"], "ground_truth": [["touch('b')"], ["sort(name='b')"], ["ls()"]]}
        (data / f"BFCL_v4_{category}.json").write_text(json.dumps(row))
        (data / f"possible_answer/BFCL_v4_{category}.json").write_text(json.dumps(answer))
    return data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package")


@pytest.fixture
def simulators(data: Path) -> Iterator[Simulators]:
    found = Simulators(data.parent.parent, "digest")
    found.entries["case"] = {**SIMULATION, "long": False}
    yield found
    found.close()


def run(plan: Plan, folder: Path) -> Any:
    arms, _ = make_arms(plan, ModelChoice("scripted", call_format="hermes"), None)
    return evaluate(plan, arms, Settings(folder))


def test_the_expected_calls_are_perfect_and_run_in_the_simulators(data: Path, tmp_path: Path) -> None:
    plan = make_bfcl_plan(("multi_turn_base", "multi_turn_miss_func"), data, trials=2)
    summary = run(plan, tmp_path / "out")
    assert summary.metrics["bfcl"].arms["model"].value == summary.metrics["success"].arms["model"].value == 1
    assert (plan.max_steps, [case.category for case in plan.cases]) == (21, ["multi_round", "missing_tool"])
    assert [turn.user for turn in plan.cases[0].turns][::2] == ["Make b.", "List."]
    row = next(read_records(tmp_path / "out" / "cases.jsonl"))
    received = [(one.received, one.status) for step in row.steps for one in step.exchanges]
    assert received == [("None", 200), ("sorted b", 200), ('{"files": ["a", "b"]}', 200)]
    assert summary.bfcl["arms"]["model"]["official"] == {
        "non_live_python": None,
        "live": None,
        "irrelevance": None,
        "multi_turn": None,
        "overall": pytest.approx(0.3 * 2 / 4),
    }
    assert {"multi_turn_miss_param", "web_search"} <= {*summary.bfcl["not_run"]}
    assert not {"multi_turn_base", "multi_turn"} & {*summary.bfcl["not_run"]}


def test_a_function_is_offered_from_its_turn_on(data: Path) -> None:
    plan = make_bfcl_plan(("multi_turn_miss_func",), data)
    seen: list[list[str]] = []

    class Watching(ScriptedModel):
        def reply(self, requests: Any, sampling: Any, on_delta: Any = None) -> Any:
            seen.extend([tool.name for tool in request.conversation.tools] for request in requests)
            return super().reply(requests, sampling, on_delta)

    (found,) = run_cases([plan.job(plan.cases[0])], Watching({"*": "Hi."}), lambda _: None, Options())
    assert found.outcome == "done"
    assert seen == [["ls", "touch"], ["ls", "touch", "sort"], ["ls", "touch", "sort"]]


TOUCH: Any = ("touch", {"name": "b"})
SORT: Any = ("sort", {"name": "b"})
LS: Any = ("ls", {})
ANSWERS = [["touch('b')"], [], ["ls()", "sort('b')"]]


@pytest.mark.parametrize(
    ("turns", "error"),
    [
        ([[TOUCH], [], [SORT, LS]], ""),
        ([[TOUCH, SORT], [], [LS]], ""),  # a result of an earlier turn counts
        ([[TOUCH], [("nothing", {}), ("sort", {"x": 1})], [SORT, LS, ("ls", {"reverse": True})]], ""),
        ([[TOUCH], [TOUCH], [SORT, LS]], "multi_turn:instance_state_mismatch"),
        ([[("touch", {"name": "c"})], [], [SORT, LS]], "multi_turn:instance_state_mismatch"),
        ([[], [], [SORT, LS]], "multi_turn:empty_turn_model_response"),
        ([[TOUCH], [], [LS]], "multi_turn:execution_response_mismatch"),
        ([[LS, TOUCH], [], [SORT]], "multi_turn:execution_response_mismatch"),  # listed before `b` was there
        ([[TOUCH], []], "multi_turn:force_terminated"),
        ([[TOUCH], [("die", {})], [SORT, LS]], "checker_error"),
    ],
)
def test_verdicts_are_the_official_ones(turns: list[Any], error: str, simulators: Simulators) -> None:
    for _ in range(2):  # nothing is left from the first time
        verdict = simulators.check({**SIMULATION, "long": True}, ANSWERS, turns)
        assert (verdict.error, verdict.valid) == (error, not error)


def test_a_required_result_counts_once_in_a_turn(simulators: Simulators) -> None:
    entry, answers = {**SIMULATION, "long": False}, [["ls()", "ls()"]]
    assert simulators.check(entry, answers, [[LS]]).error == "multi_turn:execution_response_mismatch"
    assert simulators.check(entry, answers, [[LS, LS]]).valid


def test_results_are_written_as_the_official_checker_does(simulators: Simulators, tmp_path: Path) -> None:
    def result(name: str, /, **arguments: Any) -> Any:
        return simulators(name, arguments, "run.case").body

    assert result("touch", name="b") == "None"
    assert result("ls", reverse=True) == '{"files": ["b", "a"]}', "the session goes on"
    assert result("both") == "{'x': {1}}"
    assert result("rm") == "Error during execution: name 'rm' is not defined"
    assert result("_load_scenario") == "Error during execution: name '_load_scenario' is not defined"
    assert result("sort").startswith("Error during execution: GorillaFileSystem.sort() missing 1 required")
    assert result("save", path=str(tmp_path / "x")) == "Error during execution: [Errno 27] File too large"
    assert result("eat") == "Error during execution: "
    assert simulators("ls", {}, "other.case").body == '{"files": ["a"]}'
    both = {"classes": {"GorillaFileSystem": "gorilla_file_system", "MathAPI": "gorilla_file_system"}}
    simulators.entries["both"] = {**SIMULATION, **both, "long": False}
    assert simulators("ls", {}, "run.both").body == "7.0", "the later class hides the earlier one's method"


def test_a_simulator_that_hangs_or_dies_ends_one_call(data: Path) -> None:
    simulators = Simulators(data.parent.parent, "digest", seconds=1)
    simulators.entries["case"] = {**SIMULATION, "long": False}
    assert simulators("hang", {}, "run.case").body == "Error during execution: the simulators gave no result"
    vars(simulators)["_seconds"] = PATIENCE
    assert simulators("touch", {"name": "b"}, "run.case").body == "None"
    assert simulators("die", {}, "run.case").body == "Error during execution: the simulators gave no result"
    assert simulators("quiet", {}, "run.case").body == ""
    assert simulators("ls", {}, "run.case").body == '{"files": ["a", "b"]}'
    simulators.close()
    simulators.close()


def test_simulators_that_cannot_be_loaded_are_an_error(simulators: Simulators, monkeypatch: pytest.MonkeyPatch) -> None:
    simulators.entries["lacking"] = {**SIMULATION, "classes": {"MathAPI": "math_api"}, "long": False}
    with pytest.raises(
        MissingError, match="BFCL's simulators cannot be run: ModuleNotFoundError: No module named 'bfcl"
    ):
        simulators("ls", {}, "run.lacking")
    assert simulators("ls", {}, "run.case").body == '{"files": ["a"]}'
    simulators.close()
    monkeypatch.setattr(simulators, "_command", [sys.executable, "-c", "raise ValueError"])
    with pytest.raises(MissingError, match=r"cannot be run: `.* -c raise ValueError` ends at once"):
        simulators("ls", {}, "run.case")


def test_a_reference_call_is_read_and_not_evaluated() -> None:
    functions = {"f": function("f", a="string", b="integer", c="array")}
    assert reference_call("f('x', c=[1, -2], b=3)", functions) == CallExpectation("f", {"a": "x", "c": [1, -2], "b": 3})
    with pytest.raises(ValueError, match="malformed"):
        reference_call("f(a=print())", functions)


def test_damaged_data_is_an_error(data: Path) -> None:
    answers = data / "possible_answer/BFCL_v4_multi_turn_base.json"
    answers.write_text('{"id": "multi_turn_base_0", "ground_truth": [[]]}')
    with pytest.raises(InputError, match="'multi_turn_base_0' has no answer for each turn, or an unknown simulator"):
        make_bfcl_plan(("multi_turn_base",), data)
    (data / "multi_turn_func_doc/math_api.json").unlink()
    with pytest.raises(InputError, match=r"math_api\.json cannot be read"):
        make_bfcl_plan(("multi_turn_base",), data)


def test_the_group_is_chosen_by_name_only() -> None:
    assert choose_categories("multi_turn") == MULTI_TURN
    assert not set(choose_categories(None)) & set(MULTI_TURN)
    assert choose_categories("multi_turn_base,simple") == ("simple_python", "multi_turn_base")


def test_the_reference_calls_of_the_real_data_pass(bfcl_wheel: Path, tmp_path: Path) -> None:
    plan = make_bfcl_plan((*MULTI_TURN, "parallel"), bfcl_wheel, limit=50)
    summary = run(plan, tmp_path / "out")
    assert summary.metrics["bfcl"].arms["model"].value == 1
    assert len(plan.setups) == 1000
    assert rescore(tmp_path / "out", (), 0.05).metrics["bfcl"] == summary.metrics["bfcl"]


def test_verdicts_equal_those_of_the_official_checker_over_mutated_calls(bfcl_wheel: Path) -> None:
    command = [sys.executable, "-m", "tests.metrics.bfcl_turns_oracle", str(bfcl_wheel), "400"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=900).stdout)
    assert found["differing"] == []
    assert found["compared"] == 400
    assert len(found["kinds"]) == 4
    assert min(found["kinds"].values()) >= 20
