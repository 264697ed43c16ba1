"""cases.jsonl: writing and reading records, refusing damaged ones, and the store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import InputError
from agentft.evaluation.plan import Arm
from agentft.evaluation.records import (
    Store,
    case_digest,
    dump_line,
    make_record,
    read_record,
    read_records,
    regrade,
)
from agentft.files import write_text
from agentft.metrics import SCORER_VERSION, Context
from agentft.models.scripted import ScriptedModel
from agentft.types import CallExpectation, Case, CaseTurn, Json, ParseFailure, Score, Span, Step, ToolCall, Trajectory
from tests.evaluation.world import small_plan
from tests.values import assert_immutable

GOLDEN = Path(__file__).parent / "golden" / "cases.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


def test_stored_records_are_written_back_byte_for_byte() -> None:
    assert "".join(dump_line(record.document()) for record in read_records(GOLDEN)) == GOLDEN.read_text("utf-8")


def test_stored_records_have_the_same_grades_as_before(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    cases = {case.id: case for case in plan.cases}
    for row, record in zip(ROWS, read_records(GOLDEN), strict=True):
        case = cases[record.case]
        context = Context({tool.name: tool for tool in plan.tools(case)}, record.gold_state)
        cleared = replace(record, error=None, findings=(), scores={}, decisions=(), scorer_version=None)
        document = regrade(cleared, case, context).document()
        # A metric that is newer than the fixture may be there too.
        document["scores"] = {name: document["scores"][name] for name in row["scores"]}
        assert document == row
        assert case_digest(case) == record.case_digest
        assert case_digest(replace(case, forbidden=(CallExpectation("f", {}),))) != record.case_digest
    assert {row["scorer_version"] for row in ROWS} == {SCORER_VERSION}


def test_records_without_parts_are_parsed_from_their_completions() -> None:
    for row in ROWS:
        old = json.loads(json.dumps(row))
        for step in old["steps"]:
            del step["parts"]
        del old["suite"], old["users"], old["scorer_version"], old["gold_state"]
        read, new = read_record(old, "x"), read_record(row, "x")
        assert read.steps == new.steps
        assert (read.suite, read.users, read.scorer_version, read.gold_state) == ("", (), None, None)
        assert (read.scores, read.findings, read.decisions) == (new.scores, new.findings, new.decisions)


def test_an_unreadable_call_keeps_its_failure() -> None:
    calls = [part for row in ROWS for step in read_record(row, "x").steps for part in step.parts]
    broken = [part for part in calls if isinstance(part, ToolCall) and part.parse_error]
    assert [type(call.parse_error) for call in broken] == [ParseFailure]
    exchanges = [exchange for row in ROWS for step in read_record(row, "x").steps for exchange in step.exchanges]
    assert broken[0] in [exchange.call for exchange in exchanges]


@pytest.mark.parametrize("key", ["arm", "case", "trial", "outcome", "problem", "prompt", "steps", "state", "format"])
def test_a_missing_key_is_refused(key: str) -> None:
    with pytest.raises(InputError, match=r"^f:3: it is not a line of an evaluation's cases\.jsonl$"):
        read_record({name: value for name, value in ROWS[0].items() if name != key}, "f:3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trial": "0"}, "f:3: `trial` is '0'; it must be a whole number"),
        ({"arm": 1}, "f:3: `arm` is 1; it must be a string"),
        ({"sutie": "x"}, "f:3: there is no key 'sutie'; did you mean 'suite'?"),
        ({"steps": [{}]}, "f:3: case 'i1' is damaged"),
        ({"steps": 1}, "f:3: case 'i1' is damaged"),
        ({"scores": {"success": 1}}, "f:3: case 'i1' is damaged"),
        ({"scores": []}, "f:3: case 'i1' is damaged"),
        ({"findings": [{"kind": "type"}]}, "f:3: `turn` is missing"),
        ({"findings": [1]}, "f:3: case 'i1' is damaged"),
        ({"scores": {"success": {"value": [], "reason": ""}}}, "f:3: case 'i1' is damaged"),
        ({"decisions": [[True]]}, "f:3: case 'i1' is damaged"),
        ({"users": "Hello"}, "f:3: `users` is 'Hello'; it must be a list"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(changes: dict[str, Json], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_record(ROWS[0] | changes, "f:3")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("row", [[], None, 1, {}])
def test_what_is_not_an_object_is_refused(row: object) -> None:
    with pytest.raises(InputError, match=r"it is not a line of an evaluation's cases\.jsonl"):
        read_record(row, "f:3")


def test_only_what_every_version_wrote_is_required() -> None:
    keys = [
        "arm",
        "case",
        "trial",
        "outcome",
        "problem",
        "prompt",
        "steps",
        "state",
        "format",
        "case_digest",
        "fingerprint",
    ]
    record = read_record({key: ROWS[0][key] for key in keys}, "x")
    assert (record.case, record.findings, record.decisions) == ("i1", (), ())
    assert record.scores == {"success": Score(None, "")}


def test_a_call_without_an_exchange_is_read() -> None:
    row = next(row for row in ROWS if row["case"] == "p1")
    cut = row | {"steps": [row["steps"][0] | {"exchanges": row["steps"][0]["exchanges"][:1]}]}
    (step,) = read_record(cut, "x").steps
    assert [exchange.call for exchange in step.exchanges] == [step.parts[0]]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"n": [float("nan"), {"m": float("-inf")}, 1.5]}, '{"n": ["nan", {"m": "-inf"}, 1.5]}\n'),
        ({"n": float("inf")}, '{"n": "inf"}\n'),
        ({"text": "北京"}, '{"text": "北京"}\n'),
        ({"text": "北京\ud800"}, '{"text": "北京\ud800"}\n'),
    ],
)
def test_every_line_is_valid_json_in_utf_8(value: dict[str, Json], line: str, tmp_path: Path) -> None:
    assert dump_line(value) == line
    write_text(tmp_path / "line", dump_line(value))
    assert (tmp_path / "line").read_bytes() == line.replace("\ud800", r"\ud800").encode()


def test_a_number_that_json_has_not_is_never_written() -> None:
    unusual: Any = {"text": "\ud800", "n": (float("nan"),)}
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_line(unusual)


def test_a_digest_covers_all_of_a_case_but_the_order_of_keys(tmp_path: Path) -> None:
    cases = {case.id: case for case in small_plan(tmp_path).cases}
    assert [case_digest(cases[row["case"]]) for row in ROWS] == [row["case_digest"] for row in ROWS]
    orders: list[dict[str, Json]] = [{"item": "tea", "count": 1}, {"count": 1, "item": "tea"}]
    one, two = (CaseTurn("u", (CallExpectation("order", arguments),)) for arguments in orders)
    case = cases["s1"]
    assert case_digest(replace(case, turns=(one,))) == case_digest(replace(case, turns=(two,)))
    assert len({case_digest(case), case_digest(replace(case, lang="zh")), case_digest(replace(case, turns=()))}) == 3


def test_a_record_names_how_its_prompt_was_rendered(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    arm = Arm("tuned", "some model", "identity", lambda: ScriptedModel({}))
    trajectory = Trajectory("i1", 2, "prompt", (Step(0, (), "No.", "stop", ()),), "done", "state", "problem")
    rendering: dict[str, Json] = {"call_format": "hermes", "frame_sha256": "abc", "other": 1}
    case = next(case for case in plan.cases if case.id == "i1")
    made = make_record(case, trajectory, Context(), arm, fingerprint="f", rendering=rendering)
    assert (made.arm, made.suite, made.case, made.trial, made.users) == (
        "tuned",
        "shopping",
        "i1",
        2,
        ("Write a poem.",),
    )
    assert (made.format, made.frame_sha256, made.fingerprint) == ("hermes", "abc", "f")
    assert (made.case_digest, made.key, made.trajectory) == (case_digest(case), ("f", "i1", 2), trajectory)
    for unknown in ({}, {"call_format": None, "frame_sha256": 1}):
        made = make_record(case, trajectory, Context(), arm, fingerprint="f", rendering=unknown)
        assert (made.format, made.frame_sha256) == (None, None)


def test_only_a_failed_case_has_errors() -> None:
    row = next(row for row in ROWS if row["error"] == "no-call")
    record = read_record(row, "x")
    solved = Case(record.case, "s", "single", "en", ("shop",), (CaseTurn("u"),))
    called = replace(record.steps[0], parts=(ToolCall("c", "price", {}, Span(0, 0)),))
    graded = regrade(replace(record, steps=(called,)), solved, Context())
    assert (graded.scores["success"].value, graded.error, graded.findings) == (1.0, None, ())
    invalid = regrade(replace(record, outcome="invalid"), solved, Context())
    assert (invalid.scores["success"].value, invalid.findings, invalid.decisions) == (None, (), ())


def test_calls_that_an_older_version_read_otherwise_are_not_compared() -> None:
    """They were made without arguments; the model went on with what that returned."""
    record = next(record for record in read_records(GOLDEN) if record.steps)
    case = Case(record.case, "s", "single", "en", ("shop",), (CaseTurn("u"),))
    record = replace(record, format="hermes")
    assert regrade(replace(record, scorer_version=8), case, Context()).scorer_version == SCORER_VERSION
    raw = '<tool_call>\n{"name": "price", "parameters": {"item": "tea"}}\n</tool_call>'
    made = replace(record.steps[0], raw=raw, parts=(ToolCall("c", "price", {}, Span(0, len(raw))),))
    with pytest.raises(
        InputError, match=r"version 8 of the scorer read other calls in the replies of .* evaluate it again"
    ):
        regrade(replace(record, scorer_version=8, steps=(made,)), case, Context())
    assert regrade(replace(record, steps=(made,)), case, Context()).steps == (made,)


def test_records_are_immutable() -> None:
    assert_immutable(read_record(ROWS[0], "x"))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing: cannot be read \(No such file or directory\)"):
        list(read_records(tmp_path / "missing"))


def fingerprints() -> set[str]:
    return {row["fingerprint"] for row in ROWS}


def test_a_store_keeps_valid_cases_and_drops_invalid_ones(tmp_path: Path) -> None:
    (tmp_path / "cases.jsonl").write_bytes(GOLDEN.read_bytes())
    valid = [row for row in ROWS if row["outcome"] != "invalid"]
    assert len(valid) == len(ROWS) - 1
    with Store(tmp_path, fingerprints()) as store:
        assert store.kept == len(valid)
        assert list(store.records) == [(row["fingerprint"], row["case"], row["trial"]) for row in valid]
        assert [json.loads(line) for line in store.path.read_text("utf-8").splitlines()] == valid
        added = replace(next(iter(store.records.values())), trial=7, case="北京")
        store.add(added)
        assert store.records[added.key] == added
        assert list(read_records(store.path))[-1] == added  # on disk before the store is closed
        assert store.kept == len(valid)
    assert "北京" in store.path.read_text("utf-8")
    with Store(tmp_path, fingerprints()) as store:
        assert store.kept == len(valid) + 1


def test_a_store_makes_its_folder_and_refuses_other_arms(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with Store(folder, ()) as store:
        assert store.path == folder / "cases.jsonl"
        assert (store.kept, store.records) == (0, {})
    with Store(folder, ()) as store:
        assert store.kept == 0
    (folder / "cases.jsonl").write_bytes(GOLDEN.read_bytes())
    with pytest.raises(InputError, match="holds another evaluation"):
        Store(folder, {ROWS[0]["fingerprint"]})
    assert (folder / "cases.jsonl").read_bytes() == GOLDEN.read_bytes()


@pytest.mark.parametrize("content", [None, ""], ids=["removed", "replaced"])
def test_a_store_refuses_cases_when_its_file_is_gone(content: str | None, tmp_path: Path) -> None:
    record = next(read_records(GOLDEN))
    with Store(tmp_path, fingerprints()) as store:
        (tmp_path / "cases.jsonl").unlink()
        if content is not None:
            (tmp_path / "cases.jsonl").write_text(content)
        with pytest.raises(InputError, match=r"cases.jsonl was removed or replaced while .*; give the command again"):
            store.add(record)
        assert record.key not in store.records


def test_only_the_last_line_may_be_cut_off_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    line = dump_line(ROWS[0])
    path.write_text(f"{line}\n \n{line}{line[:50]}", encoding="utf-8")
    assert len(list(read_records(path))) == 2
    path.write_text(f"{line}{line[:50]}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"cases.jsonl:2: it is not JSON"):
        list(read_records(path))


def test_a_cut_first_line_is_dropped_before_anything_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(dump_line(ROWS[0])[:50], encoding="utf-8")
    (tmp_path / ".summary.json.123.partial").touch()
    record = read_record(ROWS[0], "x")
    with Store(tmp_path, fingerprints()) as store:
        store.add(record)
    assert list(read_records(path)) == [record]
    assert {entry.name for entry in tmp_path.iterdir()} == {".lock", "cases.jsonl"}


def test_a_second_evaluation_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path, ()), pytest.raises(InputError, match=r"is being evaluated by process \d+, since .*; wait"):
        Store(tmp_path, ())
    with Store(tmp_path, ()):
        pass
