"""Records of public sets, in their shapes and with our own contents, as suites."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentft.commands import app
from agentft.errors import InputError
from agentft.evaluation.checking import check_cases
from agentft.evaluation.importing import import_set
from agentft.evaluation.plan import Plan, make_plan
from agentft.evaluation.suites import load_suite, load_worlds

TIDE = {
    "name": "harbour.tide",
    "description": "The tide.",
    "parameters": {
        "type": "dict",
        "properties": {"port": {"type": "string"}, "heights": {"type": "list", "items": {"type": "float"}}},
        "required": ["port"],
    },
}
WIND = {"name": "wind", "arguments": {"type": "object", "properties": {"knots": {"type": "integer"}}}}


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def plan_of(folder: Path) -> Plan:
    suite = load_suite(str(folder))
    plan = make_plan([suite], load_worlds([suite]))
    assert check_cases(plan) == []
    return plan


def when2call(answer: str, **changes: Any) -> dict[str, Any]:
    call = {"name": "harbour.tide", "arguments": {"port": "Brest"}}
    return {
        "uuid": f"u-{answer}",
        "question": f"What about Brest ({answer})?",
        "correct_answer": answer,
        "answers": {"tool_call": f"<TOOLCALL>[{json.dumps(call)}]</TOOLCALL>", "cannot_answer": "No."},
        "tools": [json.dumps(TIDE)],
        **changes,
    }


def test_when2call(tmp_path: Path) -> None:
    other = json.dumps(TIDE | {"description": "Another tide."})
    rows = [
        *map(when2call, ("tool_call", "direct", "request_for_info", "cannot_answer")),
        when2call("tool_call", uuid="other", question="And then?", tools=[other, json.dumps({"name": "wind"})]),
        when2call("tool_call", uuid="wrong", answers={"tool_call": {"name": "harbour.tide", "arguments": {"port": 3}}}),
        when2call("direct", uuid="none", tools=[]),
        when2call("direct"),
        {"uuid": "x"},
        [],
    ]
    made = import_set(write(tmp_path / "mcq.jsonl", rows), "when2call", tmp_path / "suite")
    plan = plan_of(tmp_path / "suite")
    assert {case.id: (case.category, [call.name for call in case.calls]) for case in plan.cases} == {
        "u-tool_call": ("single", ["harbour_tide"]),
        "u-direct": ("irrelevance", []),
        "u-request_for_info": ("missing_parameter", []),
        "u-cannot_answer": ("missing_tool", []),
        "other": ("several_tools", [second := made.names[[*made.names][1]]]),
    }
    assert second.startswith("harbour_tide_")
    assert [tool.name for tool in plan.tools(plan.cases[0])] == ["harbour_tide"]
    assert plan.tools(plan.cases[0])[0].parameters == {
        "type": "object",
        "properties": {"port": {"type": "string"}, "heights": {"type": "array", "items": {"type": "number"}}},
        "required": ["port"],
    }
    assert made.rejected == [
        (6, "an expected call violates the schema of its tool"),
        (7, "it offers no tools, so that nothing could be called"),
        (8, "its id is that of an earlier record"),
        (9, "it is no record of when2call (KeyError: 'tools')"),
        (10, "not-an-object"),
    ]
    lines = (tmp_path / "suite" / "rejected.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["line"] for line in lines] == [6, 7, 8, 9, 10]
    assert len(made.cases) + len(made.rejected) == len(rows)


def test_api_bank(tmp_path: Path) -> None:
    api = {
        "name": "OpenLock",
        "description": "Open a lock.",
        "input_parameters": {"lock": {"type": "str", "description": "Which."}, "boats": {"type": "int"}},
        "output_parameters": {"status": {"type": "str"}},
    }
    row: dict[str, Any] = {
        "file": "locks.jsonl",
        "id": 2,
        "instruction": f"Write a request.\nAPI descriptions:\n{json.dumps(api)}",
        "input": "User: Open lock A,\nplease.\nAPI-Request: [OpenLock(lock='A')]->done\nAI: It is open.\n"
        "User: And B for two boats.\nAI: At once.\nGenerate API Request:\n",
        "expected_output": "API-Request: [OpenLock(lock='B', boats='2')]",
    }
    rows = [
        row,
        row | {"id": 3, "expected_output": "It is open."},
        row | {"id": 4, "expected_output": "API-Request: [OpenLock(lock=__import__('os').getcwd())]"},
        row | {"id": 5, "input": "AI: Hello.\nGenerate API Request:\n"},
    ]
    path = tmp_path / "level.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    made = import_set(path, "api-bank", tmp_path / "suite")
    plan = plan_of(tmp_path / "suite")
    (case,) = plan.cases
    assert (case.id, case.turns[0].user) == ("locks.jsonl-2", "And B for two boats.")
    assert [(call.name, call.arguments) for call in case.calls] == [("OpenLock", {"lock": "B", "boats": 2})]
    assert [(turn.role, turn.raw) for turn in plan.job(case).history] == [
        ("user", "Open lock A,\nplease."),
        ("assistant", '{"name":"OpenLock","arguments":{"lock": "A"}}'),
        ("tool", "done"),
        ("assistant", "It is open."),
    ]
    assert [reason for _, reason in made.rejected] == [
        "the expected reply is a sentence, not a call",
        "a call cannot be read as Name(key='value')",
        "the conversation does not end with the user",
    ]


def test_api_bank_as_its_files_write_it(tmp_path: Path) -> None:
    """The year of the dates, quotes that are not escaped, lists as text, and searches for tools."""
    parameters = {"lock": {"type": "str", "description": "Which."}, "boats": {"type": "list", "description": "All."}}
    described = {"description": "Open.", "input_parameters": parameters, "output_parameters": {}}
    apis = "\n".join(json.dumps({"name": name, **described}) for name in ("OpenLock", "ToolSearcher"))
    made = "[OpenLock(lock='A', boats='[{'name': 'Tern', 'crew': '2'}, {'name': 'Gull'}]')]"
    row: dict[str, Any] = {
        "file": "locks.jsonl",
        "id": 0,
        "instruction": f"\nGenerate an API request.\nThe current year is 2023.\nInput: \n\nAPI descriptions:\n{apis}",
        "input": f"User: Open lock A.\nAPI-Request: {made}->success\nUser: Again.\nGenerate API Request:\n",
        "expected_output": f"API-Request: {made}",
    }
    rows = [
        row,
        row | {"id": 1, "expected_output": "API-Request: [ToolSearcher(lock='a lock')]"},
        row | {"id": 2, "expected_output": "API-Request: [OpenLock(lock='A', 'B')]"},
        row | {"id": 3, "expected_output": "API-Request: [OpenLock(lock='A', boats='all')]"},
        row | {"id": 4, "expected_output": "API-Request: [OpenLock(lock_id='A')]"},
    ]
    path = tmp_path / "level.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    found = import_set(path, "api-bank", tmp_path / "suite")
    plan = plan_of(tmp_path / "suite")
    (case,) = plan.cases
    boats = [{"name": "Tern", "crew": "2"}, {"name": "Gull"}]
    assert [call.arguments for call in case.calls] == [{"lock": "A", "boats": boats}]
    assert plan.job(case).persona == "The current year is 2023."
    assert [reason for _, reason in found.rejected] == [
        "the keywords of a search for tools are free text",
        "a call cannot be read as Name(key='value')",
        "an expected call violates the schema of its tool",
        "an expected call has an argument that its tool does not declare",
    ]


def test_seal_tools(tmp_path: Path) -> None:
    tools = [
        {
            "api_name": "weighFish",
            "api_description": "Weigh a fish.",
            "parameters": {"kilos": {"type": "float", "description": "How much."}, "fresh": {"type": "bool"}},
            "required": ["kilos"],
            "responses": {"price": {"type": "int"}, "properties": {"type": "str", "description": "What it is like."}},
        }
    ]
    asked = f'Choose.\napi_list = {tools!r}\ntask_instruction = "Weigh 2.5 kg of "fresh" cod."\nOutput:\n'

    def row(name: str, parameters: dict[str, str]) -> dict[str, Any]:
        calls = [{"api": "weighFish", "parameters": parameters, "responses": ["API_call_0"]}]
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": repr(calls)}]
        return {"id": name, "conversations": turns}

    rows = [
        row("a", {"kilos": "2.5", "fresh": "True"}),
        row("b", {"kilos": "API_call_0"}),
        row("c", {"fresh": "True"}),
        {"id": "d", "query": "Weigh it.", "calling": []},
        {"id": "e", "conversations": [{"value": asked.replace("Weigh", "Do not weigh")}, {"value": "[]"}]},
    ]
    made = import_set(write(tmp_path / "test.jsonl", rows), "seal-tools", tmp_path / "suite")
    case, without = plan_of(tmp_path / "suite").cases
    assert (case.category, without.category) == ("single", "irrelevance")
    assert case.turns[0].user == 'Weigh 2.5 kg of "fresh" cod.'
    assert [call.arguments for call in case.calls] == [{"kilos": 2.5, "fresh": True}]
    returns: Any = made.tools[0]["returns"]
    assert {name: one["type"] for name, one in returns["properties"].items()} == {
        "price": "integer",
        "properties": "string",
    }
    assert [reason for _, reason in made.rejected] == [
        "a call needs a value of an earlier result, which the set does not have",
        "an expected call violates the schema of its tool",
        "the record lists no tools; give a file of dataset_for_finetune",
    ]


def test_acebench(tmp_path: Path) -> None:
    def row(name: str, **changes: Any) -> dict[str, Any]:
        return {"id": name, "question": f"user: 港口 {name}?\n", "function": [TIDE, WIND], "time": "", **changes}

    told = "user: Wind?\nsystem: [wind(knots=3)]\nsystem: Three knots.\nuser: And the tides?\n"
    rows = [
        row("normal_0", question=told, time="Today is Monday.", profile="A sailor."),
        row("special_incomplete_0"),
        row("special_irrelevant_0"),
        row("agent_0", initial_config={}),
        row("normal_1"),
        row("normal_2"),
        row("normal_3"),
    ]
    truth = {"harbour.tide_1": {"port": "Brest"}, "harbour.tide_2": {"port": "Nice", "heights": [1.5]}}
    answers = [
        {"id": "normal_0", "ground_truth": truth},
        {"id": "special_incomplete_0", "ground_truth": {"harbour.tide": ["port"]}},
        {"id": "special_irrelevant_0", "ground_truth": "None of the functions can."},
        {"id": "normal_2", "ground_truth": [{"wind": {"knots": 3}}, {"wind": {"knots": 4}}]},
        {"id": "normal_3", "ground_truth": [{"wind": {"knots": 3}}]},
    ]
    write(tmp_path / "possible_answer" / "data.json", answers)
    made = import_set(write(tmp_path / "data.json", rows), "acebench", tmp_path / "suite")
    plan = plan_of(tmp_path / "suite")
    first, second, third, fourth = plan.cases
    assert [(call.name, call.arguments) for call in fourth.calls] == [("wind", {"knots": 3})]
    assert [(call.name, call.arguments) for call in first.calls] == [
        ("harbour_tide", {"port": "Brest"}),
        ("harbour_tide", {"port": "Nice", "heights": [1.5]}),
    ]
    job = plan.job(first)
    assert (first.category, first.lang, job.persona) == ("parallel", "en", "Today is Monday.\nA sailor.")
    assert [turn.raw for turn in job.history] == ["Wind?", "Three knots."]
    assert (second.category, second.lang, third.category) == ("missing_parameter", "zh", "missing_tool")
    assert made.rejected == [
        (4, "its calls need ACEBench's own simulators (agent_*)"),
        (5, "it has no entry in possible_answer"),
        (6, "any of several answers counts"),
    ]


def tau2(name: str, **changes: Any) -> dict[str, Any]:
    told = {
        "task_instructions": "In Celsius, if the agent asks.",
        "domain": "x",
        "reason_for_call": "You want to know the weather in Oslo.",
        "known_info": "You are Ada.",
        "unknown_info": None,
    }
    action = {"action_id": "1", "name": "current_weather", "arguments": {"city": "Oslo"}}
    criteria = {"actions": [action | changes.pop("action", {})]}
    return {"id": name, "user_scenario": {"instructions": told}, "evaluation_criteria": criteria, **changes}


def test_tau2_needs_a_world(tmp_path: Path) -> None:
    rows = [
        tau2("0", initial_state={"message_history": None, "initialization_data": None}),
        tau2("1", ticket="Weather in Oslo, please."),
        tau2("2", evaluation_criteria={"actions": []}),
        tau2("3", action={"requestor": "user"}),
        tau2("4", action={"compare_args": ["city"]}),
        tau2("5", ticket="Fly.", action={"name": "fly"}),
        tau2("6", initial_state={"message_history": [{"role": "user", "content": "Hi."}]}),
    ]
    path = write(tmp_path / "tasks.jsonl", rows)
    with pytest.raises(InputError, match="--tools WORLD"):
        import_set(path, "tau2", tmp_path / "suite")
    made = import_set(path, "tau2", tmp_path / "suite", "weather")
    first, second = plan_of(tmp_path / "suite").cases
    assert first.turns[0].user.endswith("weather in Oslo.\n\nYou are Ada.\n\nIn Celsius, if the agent asks.")
    assert (second.turns[0].user, second.category) == ("Weather in Oslo, please.", "dependent")
    assert [line for line, _ in made.rejected] == [3, 4, 5, 7, 6]
    assert made.rejected[-2:] == [
        (7, "it begins in a state of its own (initial_state)"),
        (6, "no tool 'fly' is offered"),
    ]


def test_cases_with_tools_of_their_own_are_not_derived(tmp_path: Path) -> None:
    rows = [when2call("tool_call"), when2call("direct", tools=[json.dumps(TIDE | {"name": "tide"})])]
    import_set(write(tmp_path / "mcq.jsonl", rows), "when2call", tmp_path / "suite")
    derived = CliRunner().invoke(app, ["eval", "derive", str(tmp_path / "suite"), "--out", str(tmp_path / "derived")])
    assert "each case has its own tools" in str(derived.exception)


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        ([{"role": "user", "content": "Hi."}], "`history` ends with the user; that message belongs in `turns`"),
        ([{"role": "king", "content": "Hi."}], r"history\[0\]: unknown-role: .*; write OpenAI messages"),
    ],
)
def test_a_history_is_checked(tmp_path: Path, history: list[Any], problem: str) -> None:
    case = {"id": "c", "category": "irrelevance", "lang": "en", "turns": [{"user": "Hi."}], "history": history}
    write(tmp_path / "cases.jsonl", [case])
    (tmp_path / "suite.toml").write_text('name = "s"\nworlds = ["weather"]\n', encoding="utf-8")
    with pytest.raises(InputError, match=problem):
        load_suite(str(tmp_path))


@pytest.mark.slow
def test_the_command_counts_and_the_suite_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mcq.jsonl", [when2call("tool_call"), when2call("direct"), {"uuid": "x"}])
    command = ["eval", "import", "mcq.jsonl", "--from", "when2call", "--output"]
    shown = CliRunner().invoke(app, [*command, "w2c"])
    assert shown.output.splitlines() == [
        "w2c: 3 records, 2 kept, 1 rejected",
        "  1 rejected: it is no record of when2call (KeyError: 'tools'); the first is mcq.jsonl:3",
        "next: agentft eval ./w2c --model MODEL",
    ]
    again = CliRunner().invoke(app, [*command, "w2c"])
    assert isinstance(again.exception, InputError)
    assert "already exists and is not empty" in str(again.exception)
    counted = json.loads(CliRunner().invoke(app, [*command, "other", "--json"]).output)
    assert (counted["records"], counted["kept"], sum(counted["rejected"].values())) == (3, 2, 1)
    ran = CliRunner().invoke(app, ["eval", "./w2c", "--model", "scripted", "--quiet", "--json"])
    assert json.loads(ran.stdout)["metrics"]["success"]["model"]["value"] == 1.0
    mined = CliRunner().invoke(app, ["eval", "mine", "last", "./w2c"])
    assert "must not be trained on" in str(mined.exception)
    with pytest.raises(InputError, match="no record can be a case \\(of 1\\)"):
        import_set(write(tmp_path / "bad.jsonl", [{}]), "when2call", tmp_path / "bad")


def test_an_interrupted_import_leaves_no_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write(tmp_path / "mcq.jsonl", [when2call("tool_call")])

    def stop(plan: Plan) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("agentft.evaluation.importing.check_cases", stop)
        with pytest.raises(KeyboardInterrupt):
            import_set(rows, "when2call", tmp_path / "suite")
    assert [path.name for path in tmp_path.iterdir()] == ["mcq.jsonl"]
    import_set(rows, "when2call", tmp_path / "suite")
    assert len(plan_of(tmp_path / "suite").cases) == 1
