from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from agentft.models import Reply
from agentft.models.scripted import ScriptedModel
from tests.evaluation.test_bfcl import write_data
from tests.evaluation.world import write_suite, write_world


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_suite(tmp_path)
    write_world(tmp_path)
    (tmp_path / "silent.jsonl").write_text('{"key": "*", "text": "I like tea."}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


SHOP = ["eval", "./shopping", "--tools", "./shop"]


def as_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_perfect_answers_pass_and_the_report_is_on_stdout(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SHOP, "--model", "scripted"]) == 0
    captured = capsys.readouterr()
    assert "verdict: none, because no gate is set" in captured.out
    assert "exact_call" in captured.out
    assert "7 cases of shopping" in captured.err
    assert "smallest detectable difference" in captured.err
    assert len(list(place.glob("runs/eval-*/cases.jsonl"))) == 1


def test_json_is_the_summary_and_nothing_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SHOP, "--model", "scripted", "--json", "--output", "out", "--format", "hermes"]) == 0
    document = as_json(capsys)
    assert document == json.loads((place / "out" / "summary.json").read_text())
    assert document["metrics"]["exact_call"]["model"] == {
        **document["metrics"]["exact_call"]["model"],
        "value": 1.0,
        "n": 6,
    }
    assert document["arms"]["model"]["format"] == "hermes"
    assert {"python", "agentft", "scipy"} <= document["versions"].keys()
    assert {"suites", "tools", "cases"} == document["hashes"].keys()


def test_single_tools_select_the_suites_that_need_no_others(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools = "weather.current_weather,search.web_search,calculator.calculate"
    assert run(["eval", "--tools", tools, "--model", "scripted", "--limit", "7"]) == 0
    shown = capsys.readouterr().err
    assert "7 cases of basics" in shown
    assert "3 tools: calculate, current_weather, web_search" in shown
    assert run(["eval", "basics", "--tools", "weather.air_quality,search,calculator", "--model", "scripted"]) == 2
    assert "suite basics: its worlds have no tool 'current_weather'" in capsys.readouterr().err


def test_quiet_prints_nothing_on_stderr(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SHOP, "--model", "scripted", "--quiet", "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_an_earlier_run_is_a_baseline(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SHOP, "--model", "scripted:silent.jsonl", "--output", "old", "--quiet"]) == 0
    capsys.readouterr()
    assert run([*SHOP, "--model", "scripted", "--baseline", "old", "--json"]) == 0
    assert as_json(capsys)["metrics"]["exact_call"]["delta"]["value"] == 1.0


@pytest.mark.parametrize(("gate", "code"), [("exact_call=1", 0), ("rouge_l=1.0", 1), ("success=0.5", 0)])
def test_a_gate_decides_the_exit_code(place: Path, capsys: pytest.CaptureFixture[str], gate: str, code: int) -> None:
    model = "scripted:silent.jsonl" if code else "scripted"
    gates = ["--fail-under", "abstention=1", "--fail-under", gate]
    assert run([*SHOP, *gates, "--model", model, "--json"]) == code
    assert as_json(capsys)["verdict"] == ("fail" if code else "pass")


@pytest.mark.parametrize(
    ("model", "options", "code"),
    [
        ("scripted", ["--no-worse-than", "0.4"], 0),
        ("scripted", ["--no-worse-than", "0.02"], 1),  # too few cases to show it
        ("scripted", ["--no-worse-than", "0.4", "--no-worse-than", "abstention=0.4"], 1),
        ("scripted:silent.jsonl", ["--no-worse-than", "0.9"], 1),
    ],
)
def test_a_margin_decides_the_exit_code(
    place: Path, capsys: pytest.CaptureFixture[str], model: str, options: list[str], code: int
) -> None:
    assert run([*SHOP, "--model", "scripted", "--output", "old", "--quiet"]) == 0
    capsys.readouterr()
    assert run([*SHOP, "--model", model, "--baseline", "old/cases.jsonl", *options, "--json"]) == code
    document = as_json(capsys)
    assert document["verdict"] == ("fail" if code else "pass")
    assert document["gates"][0]["metric"] == "exact_call"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fail-under", "exact_cal=1"], "there is no metric 'exact_cal'; did you mean 'exact_call'?"),
        (["--fail-under", "exact_call=80"], "'80' is not a number from 0 to 1; write exact_call=0.8"),
        (["--fail-under", "exact_call"], "'' is not a number from 0 to 1"),
        (["--no-worse-than", "0.02"], "--no-worse-than compares with a baseline; add --baseline base"),
        (["--no-worse-than", "2%"], "'2%' is not a number from 0 to 1; write exact_call=0.02"),
        (["--no-worse-than", "exact=0.02"], "there is no metric 'exact'; did you mean 'exact_call'?"),
        (["--model", "scripted:none.jsonl"], "none.jsonl: cannot be read"),
        (["--model", "scripted", "--baseline", "base"], "pass --adapter or another baseline"),
        (["--model", "scripted", "--baseline", "nowhere"], "there is no run 'nowhere'"),
        (["--model", "scripted", "--format", "xml"], "unknown call format 'xml'"),
        (["--adapter", "nowhere"], "there is no run 'nowhere'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run([*SHOP, *arguments, "--quiet"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_suite_that_needs_other_tools_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "./shopping", "--tools", "weather", "--model", "scripted"]) == 2
    assert "suite shopping needs the tools shop" in capsys.readouterr().err
    assert run(["eval", "nosuch", "--model", "scripted"]) == 2
    assert "there is no suite 'nosuch'" in capsys.readouterr().err


def test_last_without_a_run_is_exit_code_3(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SHOP, "--adapter", "last"]) == 3
    assert "train one with `agentft train`" in capsys.readouterr().err


def test_ctrl_c_keeps_finished_cases_and_the_same_command_continues(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = ScriptedModel.reply
    left = iter(range(4))

    def stopping(self: ScriptedModel, *arguments: Any) -> list[Reply]:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return reply(self, *arguments)

    monkeypatch.setattr(ScriptedModel, "reply", stopping)
    command = [*SHOP, "--model", "scripted", "--batch-size", "1", "--json", "--output", "out"]
    assert run(command) == 130
    stopped = as_json(capsys)
    assert stopped["verdict"] == "interrupted"
    assert 0 < stopped["done"]["model"] < 7
    monkeypatch.setattr(ScriptedModel, "reply", reply)
    assert run(command) == 0
    assert as_json(capsys)["kept"] == stopped["done"]["model"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["msagent", "hermes"])
def test_every_shipped_case_can_be_solved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["eval", "--tools", "weather,search,calculator", "--model", "scripted", "--format", name]
    assert run([*command, "--json", "--quiet", "--fail-under", "success=1"]) == 0
    document = as_json(capsys)
    assert document["cases"] >= 240
    assert document["errors"] == {}
    assert set(document["suites"]) == {"weather", "search", "calculator", "basics"}


def test_a_limit_keeps_every_category(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["eval", "--tools", "weather,search,calculator", "--limit", "42", "--model", "scripted"]
    assert run([*command, "--json", "--quiet"]) == 0
    document = as_json(capsys)
    assert document["cases"] == 42
    assert len(document["categories"]) == 7
    assert len(document["suites"]) == 4


DECLARED = {
    "base_url": "http://mine.test",
    "tools": [
        {
            "name": "go",
            "description": "Go.",
            "access": "read",
            "parameters": {"type": "object", "properties": {}},
            "answers": [{"body": {"ok": True}}],
        }
    ],
}
CODE = """
from pathlib import Path

from agentft.toolset import State, read

Path(__file__).with_name("RAN").touch()
BASE_URL = "http://mine.test"


@read
def go(state: State) -> str:
    \"\"\"Go.\"\"\"
    return "ok"
"""
GO = {
    "id": "one",
    "category": "single",
    "lang": "en",
    "turns": [{"user": "go", "calls": [{"name": "go", "arguments": {}}]}],
}


def write_own(root: Path, world: str, *, code: bool = False) -> None:
    """A world `mine` and a suite `go` beside each other."""
    (root / "mine").mkdir(parents=True)
    (root / "mine" / "state.json").write_text("{}")
    (root / "mine" / ("tools.py" if code else "tools.json")).write_text(CODE if code else json.dumps(DECLARED))
    (root / "go").mkdir()
    (root / "go" / "suite.toml").write_text(f'name = "go"\npersona = "You help."\nworlds = ["{world}"]\n')
    (root / "go" / "cases.jsonl").write_text(json.dumps(GO) + "\n")


@pytest.mark.parametrize("world", ["../mine", "mine"])
@pytest.mark.slow
def test_a_suite_finds_its_world_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: str
) -> None:
    write_own(tmp_path / "own", world)
    places = ((".", "./own/go", "./own/mine"), ("own", "./go", "./mine"), ("own/go", ".", "../mine"))
    for folder, suite, tools in places:
        monkeypatch.chdir(tmp_path / folder)
        for given in ([], ["--tools", tools]):
            assert run(["eval", suite, *given, "--model", "scripted", "--quiet"]) == 0, (folder, given)
    monkeypatch.chdir(tmp_path)
    assert run(["eval", "./own/go", "--tools", "weather", "--model", "scripted"]) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"suite go needs the tools mine; add to --tools: {tmp_path}/own/mine\n")


@pytest.mark.parametrize("world", ["../mine", "mine"])
def test_a_suite_never_runs_the_code_of_a_world_that_the_user_did_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: str
) -> None:
    write_own(tmp_path, world, code=True)
    monkeypatch.chdir(tmp_path)
    command = ["eval", "./go", "--model", "scripted", "--quiet"]
    assert run(command) == 2
    error = capsys.readouterr().err
    assert not (tmp_path / "mine" / "RAN").exists()
    assert "its tools.py would run with your permissions" in error
    assert run([*command, *error.strip().rpartition("add ")[2].split()]) == 0
    assert (tmp_path / "mine" / "RAN").exists()


def test_a_world_of_a_suite_that_does_not_exist_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_own(place / "own", "./mine")
    assert run(["eval", "./own/go", "--model", "scripted"]) == 2
    error = capsys.readouterr().err
    assert f"own/go/suite.toml names the tool world {place}/own/go/mine, which does not exist" in error


def test_a_stored_run_is_graded_again_without_a_model(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run([*SHOP, "--model", "scripted", "--trials", "2", "--temperature", "1", "--output", "out", "--json"]) == 0
    before = as_json(capsys)
    stored = "".join((place / "out" / "cases.jsonl").read_text().splitlines(keepends=True)[::-1])  # finished otherwise
    older = stored.replace('"exact_call": {"value": 1.0', '"exact_call": {"value": 0.0')
    assert older != stored
    (place / "out" / "cases.jsonl").write_text(older.replace('"scorer_version": ', '"scorer_version": 1'))
    monkeypatch.setattr(ScriptedModel, "reply", lambda *_: pytest.fail("a model ran"))
    assert (
        run(["eval", "./shopping", "--tools", "./shop", "--rescore", "out", "--fail-under", "exact_call=1", "--json"])
        == 0
    )
    after = as_json(capsys)
    assert (place / "out" / "cases.jsonl").read_text() == stored
    assert json.loads((place / "out" / "summary.json").read_text()) == after
    assert {**after, "verdict": "none", "gates": [], "kept": 0, "hashes": before["hashes"]} == before


@pytest.mark.slow
def test_grading_again_keeps_a_stored_baseline(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SHOP, "--model", "scripted:silent.jsonl", "--output", "old", "--quiet"]) == 0
    against = [*SHOP, "--model", "scripted", "--output", "out", "--json"]
    capsys.readouterr()
    assert run([*against, "--baseline", "old/cases.jsonl"]) == 0
    before = as_json(capsys)
    (place / "old" / "cases.jsonl").unlink()
    again = ["eval", "./shopping", "--tools", "./shop", "--rescore", "out", "--no-worse-than", "0.1", "--json"]
    stored = {name: (place / "out" / name).read_text() for name in ("cases.jsonl", "baseline.jsonl")}
    assert run(again) == 0
    after = as_json(capsys)
    assert {name: (place / "out" / name).read_text() for name in stored} == stored
    assert after["arms"]["baseline"]["name"] == "stored run of scripted:silent.jsonl"
    for name, figures in before["metrics"].items():
        assert {arm: after["metrics"][name][arm] for arm in before["arms"]} == {
            arm: figures[arm] for arm in before["arms"]
        }
    assert after["metrics"]["exact_call"]["delta"]["value"] == 1.0

    assert run(["eval", "show", "out"]) == 0
    assert "are in a stored run" not in capsys.readouterr().out
    assert run(against) == 0
    assert (place / "out" / "baseline.jsonl").exists(), "the summary with the baseline covers more, and is kept"
    assert run([*against, "--trials", "3"]) == 0
    assert not (place / "out" / "baseline.jsonl").exists(), "this evaluation has no baseline"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rescore", "out", "--model", "scripted", "--faults", "429=1"], "omit --model, --faults"),
        (
            ["./shopping", "--tools", "./shop", "--rescore", "out", "--no-worse-than", "0.1"],
            "it has one arm, so there is",
        ),
        (["--rescore", "nowhere"], "nowhere/cases.jsonl: there is no such file"),
        (["basics", "--rescore", "out"], "7 of its cases have changed since they were run, or are in no suite named"),
    ],
)
def test_what_cannot_be_graded_again_is_said_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run([*SHOP, "--model", "scripted", "--output", "out", "--quiet"]) == 0
    stored = (place / "out" / "cases.jsonl").read_bytes()
    capsys.readouterr()
    assert run(["eval", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert (place / "out" / "cases.jsonl").read_bytes() == stored
    assert not (place / "nowhere").exists()


def test_the_report_is_written_beside_the_results_and_where_html_says(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*SHOP, "--model", "scripted", "--output", "out", "--html", "copies/report.html", "--quiet"]) == 0
    page = (place / "out" / "report.html").read_text("utf-8")
    assert page == (place / "copies" / "report.html").read_text("utf-8")
    assert '"command":"agentft eval ./shopping --tools ./shop --model scripted --output out --html' in page
    smaller = [*SHOP, "--model", "scripted", "--output", "out", "--limit", "2", "--html", "small.html", "--quiet"]
    assert run(smaller) == 0
    assert (place / "out" / "report.html").read_text("utf-8") == page
    assert (place / "small.html").read_text("utf-8") != page
    capsys.readouterr()
    assert run([*SHOP, "--model", "scripted", "--html", "copies", "--quiet"]) == 2
    assert capsys.readouterr().err == "error: --html copies: it is a folder; name a file\n"


def test_exports_are_written_where_they_are_named(place: Path) -> None:
    exports = ["--junit", "ci/junit.xml", "--markdown", "ci/summary.md", "--csv", "ci/cases.csv"]
    assert run([*SHOP, "--model", "scripted", "--output", "out", *exports, "--quiet"]) == 0
    assert "<testsuites" in (place / "ci" / "junit.xml").read_text("utf-8")
    assert "**agentft eval: no gate.**" in (place / "ci" / "summary.md").read_text("utf-8")
    assert len((place / "ci" / "cases.csv").read_text("utf-8").splitlines()) >= 8


def test_bfcl_is_run_from_a_folder_with_its_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(place / "data")
    bfcl = ["eval", "bfcl", "--data", "data", "--categories", "simple,irrelevance"]
    assert run([*bfcl, "--model", "scripted", "--fail-under", "bfcl=1", "--json"]) == 0
    document = as_json(capsys)
    assert document["verdict"] == "pass"
    assert document["bfcl"]["not_run"][0] == "multiple"
    assert run([*bfcl, "--model", "scripted"]) == 0
    captured = capsys.readouterr()
    assert "BFCL category" in captured.out
    assert "3 cases of simple_python, irrelevance: single 2, irrelevance 1" in captured.err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["bfcl", "--categories", "simpel"], "'simpel' is no Python category that runs here; did you mean 'simple'?"),
        (["bfcl", "basics"], "bfcl brings its own tools and is evaluated alone"),
        (["bfcl", "--tools", "weather"], "bfcl brings its own tools, and"),
        (["bfcl", "--data", "data", "--categories", "simple", "--faults", "429=0.1"], "omit --faults"),
        (["basics", "--categories", "live"], "add bfcl, or omit --categories"),
        (["bfcl", "--data", "nowhere"], "cannot be read"),
    ],
)
def test_wrong_options_for_bfcl_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    write_data(place / "data")
    assert run(["eval", *arguments, "--model", "scripted"]) == 2
    assert error in capsys.readouterr().err
