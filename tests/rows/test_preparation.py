"""Preparation: every row is accounted for, no supervised call is cut, and lost tokens are reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentft.engine.packing import Sample
from agentft.errors import InputError
from agentft.rendering import open_rendering
from agentft.rendering.encoding import learn_rule
from agentft.rows.preparation import Encoder, prepare
from tests.engine.samples import msagent_row, write_rows
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def encoder(learn: str = "calls", max_length: int = 4096, fmt: str = "msagent") -> Encoder:
    return Encoder(TOKENIZER, open_rendering(fmt, TOKENIZER), learn_rule(learn), max_length)


def supervised(sample: Sample) -> str:
    """The text of the supervised tokens."""
    text: str = TOKENIZER.decode([sample.tokens[place] for place in sample.places])
    return text


def long_row(calls: int) -> dict[str, object]:
    """A conversation of several turns, each with a call."""
    row = msagent_row("Oslo", 0)
    turns = row["conversations"]
    assert isinstance(turns, list)
    for number in range(1, calls):
        more = msagent_row("Rome", number)["conversations"]
        assert isinstance(more, list)
        turns += more[1:]
    return row


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_exactly_the_calls_are_supervised(tmp_path: Path) -> None:
    made = prepare([write_rows(tmp_path / "rows.jsonl", 3)], encoder())

    assert made.report.ledger.kept == 3
    for number, sample in enumerate(made.samples):
        call = supervised(sample)
        assert call.startswith("<|startofthink|>```JSON")
        assert call.endswith("```<|endofthink|>")
        city = ("Oslo", "Rome", "Lima")[number]
        assert json.loads(call.split("```")[1].removeprefix("JSON\n"))["parameters"] == {"city": city}
        assert sample.places[-1] == len(sample.tokens) - 1, "cut after the last supervised token"


def test_rows_with_the_same_tools_have_the_same_stem(tmp_path: Path) -> None:
    made = prepare([write_rows(tmp_path / "rows.jsonl", 4)], encoder())

    stems = {tuple(sample.tokens[: sample.stem]) for sample in made.samples}
    assert len(stems) == 1
    assert "APIs" in TOKENIZER.decode(list(stems.pop()))


def test_every_row_is_accounted_for_across_files(tmp_path: Path) -> None:
    good = write_rows(tmp_path / "good.jsonl", 3, quiet=1)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"conversations": []}\nnot json\n' + json.dumps(msagent_row("Oslo", 1)) + "\n[1]\n")

    report = prepare([good, bad], encoder(), tmp_path / "kept").report

    assert (report.ledger.rows, report.ledger.kept, report.ledger.rejected) == (8, 4, 4)
    assert report.ledger.reasons["nothing-learnt"] == 1
    assert report.ledger.first_places()["invalid-json"].startswith(f"{bad}:2")
    lines = [path.read_text().splitlines() for path in sorted((tmp_path / "kept").iterdir())]
    assert [len(file) for file in lines] == [1, 3]


def test_without_rejected_rows_there_is_no_quarantine_file(tmp_path: Path) -> None:
    prepare([write_rows(tmp_path / "rows.jsonl", 2)], encoder(), tmp_path / "kept")

    assert list((tmp_path / "kept").iterdir()) == []


def test_a_long_row_is_cut_after_a_whole_call(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [long_row(4)])
    whole = prepare([path], encoder()).samples[0]

    made = prepare([path], encoder(max_length=len(whole.tokens) - 1))

    (sample,) = made.samples
    assert supervised(whole).count("<|endofthink|>") == 4
    assert supervised(sample).count("<|endofthink|>") == supervised(sample).count("<|startofthink|>") == 3
    assert supervised(whole).startswith(supervised(sample))
    assert (made.report.trimmed, made.report.left_out) == (1, len(whole.places) - len(sample.places))


def test_a_row_whose_first_call_does_not_fit_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [long_row(1), msagent_row("Rome", 2)])

    with pytest.raises(InputError, match=r"none of the 2 rows .*after max_length = 50 tokens; raise it \(too-long\)"):
        prepare([path], encoder(max_length=50))


@settings(max_examples=20, deadline=None)
@given(calls=st.integers(1, 4), limit=st.integers(16, 900))
def test_no_supervised_call_is_cut_at_any_limit(
    tmp_path_factory: pytest.TempPathFactory, calls: int, limit: int
) -> None:
    path = write(tmp_path_factory.mktemp("rows") / "rows.jsonl", [long_row(calls), msagent_row("Oslo", 1)])
    try:
        made = prepare([path], encoder(max_length=limit))
    except InputError as error:
        if "too-long" not in str(error):
            raise
        return
    for sample in made.samples:
        assert len(sample.tokens) <= limit
        text = supervised(sample)
        assert text.count("<|startofthink|>") == text.count("<|endofthink|>") > 0
        assert text.endswith("<|endofthink|>")
    assert made.report.ledger.kept + made.report.ledger.rejected == 2


@pytest.mark.parametrize(("learn", "quiet_learnt"), [("calls", False), ("balanced", True), ("assistant", True)])
def test_turns_that_rightly_make_no_call_are_counted(tmp_path: Path, learn: str, quiet_learnt: bool) -> None:
    report = prepare([write_rows(tmp_path / "rows.jsonl", 3, quiet=2)], encoder(learn)).report

    assert report.quiet == 2, "answers after a result are not counted"
    assert report.quiet_learnt is quiet_learnt
    assert report.ledger.kept == (5 if quiet_learnt else 3)


def test_the_fingerprint_changes_with_the_training_data(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 3)
    first = prepare([path], encoder()).report.fingerprint

    assert prepare([path], encoder()).report.fingerprint == first
    assert prepare([path], encoder("assistant")).report.fingerprint != first
    assert prepare([path], encoder(fmt="hermes")).report.fingerprint != first


def test_the_longest_samples_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [msagent_row("Oslo", 1), long_row(3), msagent_row("Rome", 1)])

    report = prepare([path], encoder()).report

    row, name, tokens = report.longest[0]
    assert (row, name) == (2, "Oslo-0")
    assert tokens == max(entry[2] for entry in report.longest)
