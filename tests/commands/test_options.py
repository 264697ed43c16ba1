"""Each option of `agentft eval`, `doctor` and `data` reaches what it is for; most of these tests start no model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from agentft.errors import InputError
from agentft.models import Sampling
from agentft.synthesis.build import BuildReport
from tests.engine.samples import write_rows
from tests.evaluation.world import write_suite, write_world
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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_suite(tmp_path)
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_option_of_the_model_reaches_the_evaluation(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch, "agentft.evaluation.arms.make_arms")
    monkeypatch.setattr("agentft.display.pulling.ensure_pulled", lambda *_, **__: None)
    rows = [str(write_rows(place / f"{name}.jsonl", 4)) for name in ("few", "more")]
    model = ["--model", "some/model", "--bits", "8", "--format", "hermes", "--batch-size", "3"]
    sampling = ["--trials", "2", "--temperature", "0.5", "--seed", "7", "--max-new-tokens", "9"]
    other = ["--baseline", "base", "--baseline-format", "native", "--shots", "2"]
    command = [*SHOP, *model, *sampling, *other, "--shots-data", rows[0], "--shots-data", rows[1], "--limit", "4"]

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
        assert seen.arguments == (options[1],)


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
