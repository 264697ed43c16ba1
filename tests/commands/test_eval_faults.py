"""`agentft eval --faults`, `--record` and `--replay`, from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from agentft.evaluation.records import read_records
from agentft.toolserver import ToolServer
from agentft.toolset import load_toolset
from tests.evaluation.world import write_suite, write_world

FAULTS = """
seed = 4
client_seconds = 2
[[fault]]
kind = "timeout"
tools = ["shop.price"]
rate = 0.3
[[fault]]
kind = "503"
rate = 0.2
[[fault]]
kind = "reset"
rate = 0.3
after = true
"""
ASKED = ["eval", "./shopping", "--tools", "./shop", "--model", "scripted", "--quiet", "--json"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path)
    write_suite(tmp_path)
    (tmp_path / "faults.toml").write_text(FAULTS)
    return tmp_path


def summary(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert run([*ASKED, *arguments]) == code, capsys.readouterr().err
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def exchanges(folder: str) -> dict[str, list[dict[str, Any]]]:
    rows = {row.case: row.document() for row in read_records(Path(folder) / "cases.jsonl")}
    return {case: [sent for step in row["steps"] for sent in step["exchanges"]] for case, row in sorted(rows.items())}


def test_two_runs_meet_the_same_faults_and_have_the_same_results(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = summary(capsys, "--faults", "faults.toml", "--output", "one")
    second = summary(capsys, "--faults", "faults.toml", "--output", "two", "--batch-size", "1")
    for key in ("metrics", "errors", "faults", "hashes", "invalid", "verdict", "categories"):
        assert first[key] == second[key]
    assert exchanges("one") == exchanges("two")
    met = first["faults"]["met"]["model"]
    assert set(met) == {"timeout", "503", "reset"}
    assert (first["invalid"], first["problems"]) == (0, {})
    assert first["faults"]["seed"] == 4
    assert first["faults"]["sha256"] == first["hashes"]["faults"]
    sent = [exchange for found in exchanges("one").values() for exchange in found]
    statuses = {kind: {exchange["status"] for exchange in sent if exchange["fault"] == kind} for kind in ("", *met)}
    assert statuses == {"": {200, 404}, "timeout": {None}, "503": {503}, "reset": {None}}
    assert not any("fault" in exchange["received"] for exchange in sent)


@pytest.mark.slow
def test_both_arms_get_the_same_faults(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = summary(capsys, "--output", "base", "--faults", "faults.toml")
    other = summary(
        capsys, "--faults", "faults.toml", "--baseline", "base/cases.jsonl", "--output", "tuned", "--format", "hermes"
    )
    assert other["faults"]["met"]["model"] == other["faults"]["met"]["baseline"] == plain["faults"]["met"]["model"]


@pytest.mark.slow
def test_a_baseline_under_other_conditions_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary(capsys, "--output", "plain")
    summary(capsys, "--output", "faults", "--faults", "503=1")
    for stored in ("plain", "faults"):
        for given in ([], ["--faults", "503=1"], ["--faults", "503=0.9"], ["--faults", "503=1,seed=2"]):
            same = bool(given) == (stored == "faults") and given[1:] in ([], ["503=1"])
            asked = [*ASKED, *given, "--baseline", f"{stored}/cases.jsonl", "--output", f"{stored}{''.join(given)}"]
            assert run(asked) == (0 if same else 2), (stored, given)
            assert ("cannot be compared; run the baseline again" in capsys.readouterr().err) != same


def test_a_record_without_conditions_is_no_baseline(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was written by an older version, and what it was run under cannot be known."""
    summary(capsys, "--output", "plain")
    path = Path("plain/cases.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "conditions": None}) + "\n" for row in rows))
    assert run([*ASKED, "--baseline", str(path), "--output", "one"]) == 2
    assert "with the world seed unknown" in capsys.readouterr().err


def test_a_folder_of_another_faults_file_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary(capsys, "--output", "out", "--faults", "500=0.5")
    assert run([*ASKED, "--output", "out", "--faults", "500=0.6"]) == 2
    assert "holds another evaluation" in capsys.readouterr().err
    assert run([*ASKED, "--output", "out"]) == 2


def test_without_faults_none_are_reported(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = summary(capsys, "--output", "out")
    assert document["faults"] is None
    assert "faults" not in document["hashes"]
    assert {exchange["fault"] for found in exchanges("out").values() for exchange in found} == {""}


def test_wrong_faults_are_one_line_and_exit_code_2(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, message in [
        ("tmeout=0.5", "did you mean 'timeout'?"),
        ("nowhere.toml", "give a faults file, or KIND=RATE"),
    ]:
        assert run([*ASKED, "--faults", given]) == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def real(place: Path) -> Iterator[ToolServer]:
    with ToolServer([load_toolset("./shop")]) as server:
        yield server


def test_a_real_service_is_recorded_and_replayed(
    real: ToolServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTFT_REAL_AUTHORIZATION", f"Bearer {real.token}")
    recorded = summary(capsys, "--real", real.address, "--record", "kept.jsonl", "--output", "one")
    assert real.token not in Path("kept.jsonl").read_text()
    monkeypatch.delenv("AGENTFT_REAL_AUTHORIZATION")
    real.close()
    replayed = summary(capsys, "--replay", "kept.jsonl", "--output", "two")
    assert replayed["metrics"] == recorded["metrics"]
    assert run([*ASKED, "--replay", "kept.jsonl", "--baseline", "two/cases.jsonl", "--output", "same"]) == 0
    assert run([*ASKED, "--baseline", "two/cases.jsonl", "--output", "other"]) == 2
    capsys.readouterr()
    assert replayed["metrics"]["exact_call"]["model"]["value"] == 1.0
    # The state of a real service is unknown.
    assert replayed["metrics"]["end_state"]["model"]["n"] == 0
    received = {case: [sent["received"] for sent in found] for case, found in exchanges("one").items()}
    assert received == {case: [sent["received"] for sent in found] for case, found in exchanges("two").items()}
    mixed = summary(
        capsys, "--replay", "kept.jsonl", "--replay-miss", "mock", "--faults", "429=0.5", "--output", "three"
    )
    assert mixed["faults"]["met"]["model"]["429"] > 0


def test_a_real_service_that_is_gone_makes_cases_invalid(real: ToolServer, capsys: pytest.CaptureFixture[str]) -> None:
    real.close()
    document = summary(capsys, "--real", real.address, "--output", "out", code=1)
    assert document["verdict"] == "invalid"
    assert any("answered 502" in problem for problem in document["problems"])


def test_record_without_a_real_service_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*ASKED, "--record", "kept.jsonl"]) == 2
    assert "add --real, or omit --record" in capsys.readouterr().err
