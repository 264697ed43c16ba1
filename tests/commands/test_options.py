"""Each option of `agentft eval`, `doctor` and `data` reaches what it is for; most of these tests start no model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentft.commands import run
from agentft.errors import InputError
from agentft.models import Sampling
from agentft.synthesis.build import BuildReport
from tests.engine.samples import write_rows
from tests.tiny import save_tiny

SHOP = ["eval", "./shopping", "--tools", "./shop"]


class Seen:
    """Replaces a function: keeps the arguments of its call, and ends the command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.arguments: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}
        monkeypatch.setattr(name, self)

    def __call__(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options = arguments, options
        raise InputError("enough is seen")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


def test_every_option_of_the_model_reaches_the_evaluation(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch, "agentft.evaluation.arms.make_arms")
    monkeypatch.setattr("agentft.display.pulling.ensure_pulled", lambda *_, **__: None)
    rows = [str(write_rows(place / f"{name}.jsonl", 4)) for name in ("few", "more")]
    model = ["--model", "some/model", "--bits", "8", "--format", "hermes", "--batch-size", "3"]
    sampling = ["--trials", "2", "--temperature", "0.5", "--seed", "7", "--max-new-tokens", "9"]
    other = ["--baseline", "base", "--baseline-format", "native", "--shots", "2"]
    command = [*SHOP, *model, *sampling, *other, "--shots-data", rows[0], "--shots-data", rows[1], "--limit", "4", "-q"]

    assert run(command) == 2

    assert capsys.readouterr().err == "error: enough is seen\n"
    plan, choice, baseline, _, drawn = seen.arguments
    fair = seen.options["fair"]
    assert (len(plan.cases), plan.trials) == (4, 2)
    assert (choice.model, choice.bits, choice.call_format, baseline) == ("some/model", 8, "hermes", "base")
    assert drawn == Sampling(max_new_tokens=9, temperature=0.5, seed=7)
    assert (fair.format, fair.shots.count, fair.shots.seed, len(fair.shots.rounds)) == ("native", 2, 7, 8)


def test_every_option_of_the_run_reaches_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, "agentft.evaluation.runner.evaluate")
    options = ["--concurrency", "3", "--max-invalid", "0.5", "--probabilities", "--output", "out"]
    assert run([*SHOP, "--model", "scripted", *options, "--fail-under", "success=0.5"]) == 2
    settings = seen.arguments[2]
    assert (settings.batch_size, settings.max_invalid, settings.probabilities) == (3, 0.5, True)
    assert (settings.output, [gate.minimum for gate in settings.gates]) == (Path("out"), [0.5])


def test_every_option_of_the_answers_reaches_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, "agentft.toolserver.open_source")
    given = ["--real", "http://real", "--record", "kept", "--replay", "old", "--replay-miss", "mock", "--keep-secrets"]
    assert run([*SHOP, "--model", "scripted", *given]) == 2
    expected = {"real": "http://real", "record": Path("kept"), "replay": Path("old"), "miss": "mock", "keep": True}
    assert {name: seen.options[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("command", "place_of"),
    [(SHOP, "agentft.evaluation.arms.make_arms"), (["doctor"], "agentft.models.endpoint.open_served")],
)
def test_every_option_of_the_endpoint_reaches_it(
    command: list[str], place_of: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Seen(monkeypatch, place_of)
    monkeypatch.setenv("AGENTFT_API_KEY", "a-key-of-nobody")
    given = [*command, "--model", "served", "--endpoint", "http://192.0.2.1/v1", "--tokenizer", "some/model"]
    assert run(given) == 2
    assert "--allow-http" in capsys.readouterr().err
    assert run([*given, "--allow-http"]) == 2
    assert "enough is seen" in capsys.readouterr().err
    first, second, *_ = seen.arguments
    endpoint = first if command == ["doctor"] else second.endpoint
    assert (endpoint.url, endpoint.tokenizer) == ("http://192.0.2.1/v1", "some/model")


def test_doctor_checks_the_model_or_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, "agentft.models.prompting.open_prompting")
    monkeypatch.setattr("agentft.display.pulling.ensure_pulled", lambda *_, **__: None)
    for options in (["--model", "one"], ["--adapter", "other"]):
        assert run(["doctor", *options]) == 2
        assert seen.arguments == (options[1], None)
    found = SimpleNamespace(is_whole=False, call_format="hermes")
    monkeypatch.setattr("agentft.runs.find_finished", lambda _: found)
    used = []
    for found.is_whole in (False, True):  # all weights are in the run's folder, so --model is not used
        assert run(["doctor", "--model", "one", "--adapter", "other"]) == 2
        used.append(seen.arguments)
    assert used == [("one", "hermes"), ("other", "hermes")]


def test_a_folder_named_base_is_told_from_the_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert run(["eval", "--tools", "calculator", "--model", "scripted", "--baseline", "base"]) == 2  # no adapter
    told = "--baseline base is the model without its adapter; the folder of that name is ./base"
    assert told in capsys.readouterr().err


def test_every_option_of_inspect_changes_the_counts(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, bad = write_rows(tmp_path / "rows.jsonl", 3), tmp_path / "bad.jsonl"
    rows.write_text(rows.read_text() + "{not json\n")

    def found(*options: str, code: int = 0) -> Any:
        assert run(["data", "inspect", str(rows), *options, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    plain = found("--model", tiny)
    assert plain["supervised"] < found("--model", tiny, "--learn", "balanced")["supervised"]
    assert plain["tokens"] != found("--model", tiny, "--format", "hermes")["tokens"]
    found("--strict", "--quarantine", str(bad), code=1)
    assert json.loads(bad.read_text())["reason"] == "invalid-json"


def test_every_option_of_mask_changes_what_is_shown(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 3)

    def shown(*options: str) -> str:
        assert run(["data", "mask", str(rows), "--model", tiny, *options]) == 0
        return capsys.readouterr().out

    ways: list[list[str]] = [[], ["--learn", "balanced"], ["--format", "hermes"], ["--row", "2"], ["--boundaries"]]
    assert len({shown(*way) for way in ways}) == len(ways)


def test_every_option_of_what_is_built_reaches_it(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = Seen(monkeypatch, "agentft.synthesis.build.build")
    assert run(["data", "build", "quickstart", "--output", "there.jsonl", "--seed", "5", "--tools", "./a,./b"]) == 2
    assert built.arguments[1] == Path("there.jsonl")
    assert (built.options["seed"], built.options["tools"]) == (5, ["./a", "./b"])
    derived = Seen(monkeypatch, "agentft.evaluation.deriving.derive")
    assert run(["eval", "derive", *SHOP[1:], "--seed", "5", "--transforms", "typos", "--out", "there"]) == 2
    assert (derived.arguments[2], derived.arguments[4], derived.options["seed"]) == (["typos"], Path("there"), 5)
    imported = Seen(monkeypatch, "agentft.evaluation.importing.import_set")
    assert run(["eval", "import", "tasks.json", "--from", "tau2", "--output", "there", "--tools", "./shop"]) == 2
    assert imported.arguments == (Path("tasks.json"), "tau2", Path("there"), "./shop")


def test_a_build_reports_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = BuildReport("there.jsonl", "rows", 5, "0" * 64, 1, 1, 0, 0, {"single": 1}, {"en": 1}, {"price": 1})
    monkeypatch.setattr("agentft.synthesis.build.build", lambda *_, **__: report)
    assert run(["data", "build", "quickstart", "--output", str(tmp_path / "there.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == asdict(report)


def test_every_option_of_the_chat_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, "agentft.commands.chat._chat")
    server = ["--mcp", "a server", "--env", "A=1", "--approve", "never"]
    given = ["--model", "m", "--adapter", "a", "--tools", "weather", "--bits", "8", "--system", "Hi.", *server]
    drawn = ["--temperature", "0.5", "--top-p", "0.9", "--top-k", "5", "--repetition-penalty", "1.2", "--seed", "7"]
    assert run(["chat", *given, *drawn, "--max-new-tokens", "9", "--save", "kept.jsonl", "--no-stream"]) == 2
    opened, save, _ = seen.arguments
    opening = opened.opening
    assert (opening.model, opening.adapter, opening.bits, opening.served) == ("m", "a", 8, None)
    assert opened.sampling == (9, 0.5, 0.9, 5, 7, 1.2)
    assert (opened.persona, opened.approval, opened.mcp, opened.env) == ("Hi.", "never", "a server", ["A=1"])
    assert ([toolset.name for toolset in opened.toolsets], save) == (["weather"], Path("kept.jsonl"))
    assert (seen.options["stream"], seen.options["as_json"]) == (False, False)
    monkeypatch.setenv("AGENTFT_API_KEY", "a-key-of-nobody")
    served = ["--endpoint", "http://192.0.2.1/v1", "--tokenizer", "some/model", "--allow-http"]
    assert run(["chat", *served, "--json"]) == 2
    endpoint = seen.arguments[0].opening.served
    assert (endpoint.url, endpoint.tokenizer, seen.options["as_json"]) == ("http://192.0.2.1/v1", "some/model", True)


def test_every_option_of_the_quickstart_reaches_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, Any] = {}
    report = BuildReport("there.jsonl", "rows", 5, "0" * 64, 1, 1, 0, 0, {}, {}, {"price": 1})
    monkeypatch.setattr("agentft.display.pulling.ensure_pulled", lambda _, quiet: told.update(pulls_quietly=quiet))
    monkeypatch.setattr("agentft.synthesis.build.build", lambda *_, **__: report)
    trained = SimpleNamespace(folder=place / "run")
    monkeypatch.setattr(
        "agentft.commands.train.run_recipe",
        lambda recipe, quiet: told.update(output=recipe.output, trains_quietly=quiet) or trained,
    )
    monkeypatch.setattr("agentft.evaluation.arms.make_arms", lambda plan, *_: ([], told.update(cases=len(plan.cases))))
    monkeypatch.setattr("agentft.commands.evaluate.run_plan", lambda *_, **options: told.update(options) or 0)
    assert run(["quickstart", "--output", "there", "--limit", "3"]) == 0
    shown = capsys.readouterr()
    assert "1 of 3" in shown.err
    assert "agentft chat --adapter" in shown.out
    assert (told["output"], told["cases"], told["as_json"], told["quiet"]) == ("there", 3, False, False)
    assert (told["pulls_quietly"], told["trains_quietly"]) == (False, False)
    assert run(["quickstart", "--json"]) == 0
    assert (told["output"], told["as_json"], told["trains_quietly"], told["cases"] > 3) == ("", True, True, True)
    assert capsys.readouterr().out == ""
    assert run(["quickstart", "--quiet"]) == 0
    assert "of 3" not in capsys.readouterr().err
    assert (told["pulls_quietly"], told["trains_quietly"], told["quiet"]) == (True, True, True)


def test_every_option_of_the_server_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, "agentft.toolserver.ToolServer")
    place = ["--host", "127.0.0.2", "--port", "8123", "--token", "secret"]
    assert run(["tools", "serve", "weather", *place, "--seed", "5", "--faults", "timeout=0.5"]) == 2
    (toolset,) = seen.arguments[0]
    assert toolset.new_state()["seed"] == 5
    options = {name: seen.options[name] for name in ("host", "port", "token")}
    assert options == {"host": "127.0.0.2", "port": 8123, "token": "secret"}
    assert seen.options["faults"] is not None
    source = Seen(monkeypatch, "agentft.toolserver.open_source")
    given = ["--real", "http://real", "--record", "kept", "--replay", "old", "--replay-miss", "mock", "--keep-secrets"]
    assert run(["tools", "serve", "weather", *given]) == 2
    expected = {"real": "http://real", "record": Path("kept"), "replay": Path("old"), "miss": "mock", "keep": True}
    assert source.options == expected


def test_every_option_of_a_call_and_a_check_reaches_them(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Seen(monkeypatch, "agentft.toolset.load_toolset")
    assert run(["tools", "call", "weather.current_weather", "--seed", "5"]) == 2
    assert loaded.arguments == ("weather", 5)
    proved = Seen(monkeypatch, "agentft.toolset.proof.prove")
    assert run(["tools", "check", "weather", "--seed", "5"]) == 2
    assert proved.arguments == ("weather", 5)


def test_every_option_of_an_import_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Seen(monkeypatch, "agentft.imports.documents.open_description")
    assert run(["tools", "import", "openapi", "x.yaml", "--output", "there"]) == 2
    assert opened.options == {"allow_url": False, "allow_refs": False}
    assert run(["tools", "import", "openapi", "x.yaml", "--output", "there", "--allow-url", "--allow-refs"]) == 2
    assert opened.options == {"allow_url": True, "allow_refs": True}
    listed = Seen(monkeypatch, "agentft.imports.mcp.import_mcp")
    assert run(["tools", "import", "mcp", "a server", "--output", "there", "--env", "A=1", "--env", "B"]) == 2
    assert listed.arguments == ("a server", "there", ["A=1", "B"])


def test_a_pull_can_be_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, "agentft.display.pulling.pull_progress")
    for options, quiet in ([], False), (["-q"], True):
        assert run(["models", "pull", "smollm2-135m", *options]) == 2
        assert seen.arguments[1].quiet == quiet


def test_going_on_with_a_chat_needs_a_person(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Seen(monkeypatch, "agentft.commands.chat._chat")
    assert run(["chat", "--resume"]) == 2
    assert "--resume needs a person at a terminal" in capsys.readouterr().err
