"""Preparation: every row is accounted for, no supervised call is cut, and lost tokens are reported."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers, pre_tokenizers

from agentft.engine.packing import Sample
from agentft.errors import InputError
from agentft.records import parse_row
from agentft.rendering import open_rendering
from agentft.rendering.encoding import learn_rule
from agentft.rendering.tokens import Tokens
from agentft.rows.ledger import UNSUPERVISED
from agentft.rows.preparation import DataReport, Encoder, Prepared, encode_row, prepare
from tests.engine.samples import msagent_row, write_rows
from tests.rendering.test_syntax import CALLS, END, SHOW, TOOLS, tokenizer_of
from tests.tiny import tiny_tokenizer
from tests.values import assert_immutable

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


def test_first_replies_that_native_does_not_supervise_are_counted_by_row(tmp_path: Path) -> None:
    greeting = {"role": "assistant", "content": "Good day."}
    later = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    path = write(tmp_path / "rows.jsonl", [{"messages": later}, {"messages": [greeting, *later]}])
    tokenizer = tokenizer_of(TOOLS + SHOW + CALLS + END)
    supervising = {}
    for name in ("native", "hermes"):
        given = Encoder(tokenizer, open_rendering(name, tokenizer), learn_rule("assistant"), 4096)
        made = prepare([path], given)
        sample = made.samples[-1]
        supervising[name] = "Good day." in tokenizer.decode([sample.tokens[place] for place in sample.places])
        told = {} if name == "hermes" else {"rows_with_unasked_replies": f"{path}:2"}
        assert made.report.ledger.first_remarks == told
    assert supervising == {"native": False, "hermes": True}


def test_every_row_is_accounted_for_across_files(tmp_path: Path) -> None:
    good = write_rows(tmp_path / "good.jsonl", 3, quiet=1)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"conversations": []}\nnot json\n' + json.dumps(msagent_row("Oslo", 1)) + "\n[1]\n")

    report = prepare([good, bad], encoder(), tmp_path / "kept").report

    assert (report.ledger.rows, report.ledger.kept, report.ledger.rejected) == (8, 5, 3)
    assert report.ledger.remarks[UNSUPERVISED] == 1
    assert (report.document()["trained"], report.document()["rows_without_supervised_tokens"]) == (4, 1)
    assert report.ledger.notes() == [f"1 row has no supervised token: not trained on; the first: {good}:4"]
    assert report.ledger.first_places()["invalid-json"].startswith(f"{bad}:2")
    lines = [path.read_text().splitlines() for path in sorted((tmp_path / "kept").iterdir())]
    assert [len(file) for file in lines] == [3]


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

    with pytest.raises(
        InputError,
        match=r"no row can be used .*rows\.jsonl:1: the .* over 50 tokens; .* \(too-long\); `agentft data inspect` ",
    ):
        prepare([path], encoder(max_length=50))


def test_without_a_row_to_train_on_every_reason_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [msagent_row("Rome", 2, call=False), {"messages": []}])

    with pytest.raises(InputError, match=r"\(of 2\); the first: .*:2: .*; .*:1: learn = 'calls' supervises no token"):
        prepare([path], encoder())


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
    assert (report.ledger.kept, report.ledger.remarks[UNSUPERVISED]) == (5, 0 if quiet_learnt else 2)


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


def characters(text: list[str], *, add_special_tokens: bool, return_offsets_mapping: bool) -> Tokens:
    """A tokenizer with a token for each character."""
    del add_special_tokens, return_offsets_mapping
    offsets = [[(place, place + 1) for place in range(len(one))] for one in text]
    return {"input_ids": [list(map(ord, one)) for one in text], "offset_mapping": offsets}


def openai_row(*turns: str, tools: int = 0) -> dict[str, object]:
    """A row with alternating user and assistant turns, and this many tools."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(turns)]
    declared = [
        {"type": "function", "function": {"name": f"t{number}", "parameters": {"type": "object", "properties": {}}}}
        for number in range(tools)
    ]
    return {"messages": messages, "tools": declared}


def by_characters(max_length: int = 4096, template: str = TOKENIZER.chat_template, **weights: float) -> Encoder:
    """The rule `balanced`, with one token for each character."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return Encoder(characters, open_rendering("hermes", tokenizer), learn_rule("balanced", weights), max_length)


def test_the_report_of_no_rows_is_empty() -> None:
    report = DataReport().document()
    assert {key: value for key, value in report.items() if value} == {}
    assert set(report) == {
        "rows", "trained", "rejected", "reasons", "first", "samples", "tokens", "supervised", "weight", "quiet",
        "quiet_learnt", "trimmed", "left_out", "longest", "fingerprint", "tools", "control_texts", "answered",
            "thoughts", "thoughts_learnt", "held_out",
    }  # fmt: skip


def test_the_report_counts_the_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [openai_row("Hi", "Hello"), openai_row("Hi", "Hello, you. ", "So", "Bye")])

    made = prepare([path], by_characters(answer=0.5))

    stop = len("<|im_end|>")
    report = made.report.document()
    assert (report["rows"], report["trained"], report["rejected"]) == (2, 2, 0)
    assert (report["samples"], report["quiet"], report["quiet_learnt"]) == (2, 3, True)
    assert report["supervised"] == sum(len(sample.places) for sample in made.samples) == 5 + 8 + 3 + 3 * stop
    assert report["weight"] == 0.5 * (5 + 8 + 3) + 3 * stop
    assert report["tokens"] == sum(len(sample.tokens) for sample in made.samples)
    assert [report["trimmed"], report["left_out"], report["tools"]] == [0, 0, ()]


@pytest.mark.parametrize(("weight", "quiet"), [(0.0, False), (0.1, True)])
def test_answers_with_any_weight_are_supervised(tmp_path: Path, weight: float, quiet: bool) -> None:
    path = write(tmp_path / "rows.jsonl", [openai_row("Hi", "Hello")])
    assert prepare([path], by_characters(answer=weight)).report.quiet_learnt is quiet


def test_the_fingerprint_of_the_same_data_never_changes(tmp_path: Path) -> None:
    """A resumed run compares it with the one that an earlier version wrote."""
    path = write(tmp_path / "rows.jsonl", [openai_row("Hi", "Hello")])
    found = prepare([path], by_characters()).report.fingerprint
    assert found == "e3e8c34f0344ff7a87802ff6cdf0236e52f4871b58b5dde7b530c2ec07068cc5"


@pytest.mark.parametrize(("end", "supervised_tokens"), [(1.0, 18), (0.0, 8)])
def test_a_run_is_kept_if_its_supervised_tokens_fit(tmp_path: Path, end: float, supervised_tokens: int) -> None:
    """8 tokens of the answer are supervised, and either all 10 tokens of the end or none."""
    path = write(tmp_path / "rows.jsonl", [openai_row("Hi", "A" * 20), openai_row("Hi", "B")])
    longest = prepare([path], by_characters(end=end)).report.longest[0][2]

    fitting = prepare([path], by_characters(longest, end=end))
    short = prepare([path], by_characters(longest - 1, end=end))

    assert [len(sample.places) for sample in fitting.samples if sample.row == 1] == [supervised_tokens]
    assert [sample.row for sample in short.samples] == [2]
    assert short.report.ledger.reasons == {"too-long": 1}


UNSTABLE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
)


def test_a_later_sample_of_a_row_that_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [openai_row("Hi", "Hello", "More", "Yes")])
    first, second = prepare([path], by_characters(template=UNSTABLE)).samples

    report = prepare([path], by_characters(len(first.tokens), template=UNSTABLE)).report

    assert (report.samples, report.trimmed, report.left_out) == (1, 1, len(second.places))
    assert report.quiet == 2, "an earlier answer in the prompt is not counted again"


def test_a_row_that_the_template_changes_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [openai_row("Hi", "Hello"), openai_row("Ho", "Hello")])
    shouting = TOKENIZER.chat_template.replace("message['content']", "message['content'] | replace('Hi', 'Hey')")
    assert prepare([path], by_characters(template=shouting)).report.ledger.reasons == {"template": 1}


@pytest.mark.parametrize(("tools", "named"), [(0, 0), (1, 1), (64, 64), (65, 0)])
def test_up_to_64_tools_are_listed(tmp_path: Path, tools: int, named: int) -> None:
    path = write(tmp_path / "rows.jsonl", [openai_row("Hi", "Hello", tools=tools)])
    made = prepare([path], by_characters(100_000))
    assert made.report.tools == tuple(f"t{number}" for number in range(named))
    assert len(made.tools) == tools
    assert (made.samples[0].stem > 0) is (tools > 0)


def test_the_five_longest_samples_are_listed_the_longest_first(tmp_path: Path) -> None:
    lengths = [1, 5, 3, 7, 2, 6, 4]
    path = write(tmp_path / "rows.jsonl", [openai_row("x" * length, "Hello") for length in lengths])
    report = prepare([path], by_characters()).report
    assert [line for line, _, _ in report.longest] == [4, 6, 2, 7, 3]
    assert report.longest[0][2] - report.longest[4][2] == 4


def test_the_quarantine_file_has_the_number_and_name_of_its_data_file(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", [openai_row("Hi", "Hello")])
    bad = write(tmp_path / "bad.part.jsonl", [{}])
    prepare([good, bad], by_characters(), tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["1-bad.jsonl"]


def test_control_tokens_in_contents_are_counted_by_row(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    path = write(tmp_path / "rows.jsonl", [openai_row("Hi", "Hello<|endoftext|>"), openai_row("<|im_end|>" * 3, "A")])
    encoder = Encoder(tokenizer, open_rendering("hermes", tokenizer), learn_rule("assistant"), 4096)
    assert prepare([path], encoder).report.control_texts == {"<|endoftext|>": 1, "<|im_end|>": 1}


def test_without_a_sample_the_first_reason_is_given_rejections_first(tmp_path: Path) -> None:
    quiet: dict[str, object] = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    }
    with pytest.raises(
        InputError, match=r"no row can be used .*\(of 1\).*; the first: .*rows\.jsonl:1: .* supervises no token"
    ):
        prepare([write(tmp_path / "rows.jsonl", [quiet])], encoder())
    with pytest.raises(
        InputError, match=r"no row can be used .*\(of 2\).*; the first: .*rows\.jsonl:2: .*\(no-turns\)"
    ):
        prepare([write(tmp_path / "rows.jsonl", [quiet, {"messages": []}])], encoder())


def test_prepared_samples_cannot_be_changed(tmp_path: Path) -> None:
    row: Any = msagent_row("Oslo", 0)
    used = encoder()
    assert_immutable(used)
    assert_immutable(encode_row(1, parse_row(row, "r"), used)[0])


@pytest.mark.parametrize("threshold", [700, 0])
def test_collections_are_rare_while_rows_are_prepared(tmp_path: Path, threshold: int) -> None:
    usual, seen = gc.get_threshold(), []
    gc.set_threshold(threshold, 11, 12)
    try:
        made = Prepared(encoder())
        made.add(write_rows(tmp_path / "rows.jsonl", 1), on_row=lambda _, __: seen.append(gc.get_threshold()))
        with pytest.raises(InputError):
            made.add(tmp_path / "none.jsonl")
        assert gc.get_threshold() == (threshold, 11, 12)
    finally:
        gc.set_threshold(*usual)
    assert seen == [(threshold * 100, 11, 12)], "0 means that collections are off; they stay off"


@pytest.mark.parametrize("text", ["a" * 40, "b" * 30_000])
def test_a_text_that_the_tokenizer_fails_on_costs_its_row_only(text: str, tmp_path: Path) -> None:
    """A panic of the tokenizers library ended the command; 1 MB of text that grows took up to 7.9 GB."""
    tokenizer = tiny_tokenizer()
    core = tokenizer.backend_tokenizer
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("(a+)+x"), "isolated"), core.pre_tokenizer]
    )
    core.normalizer = normalizers.Replace("b", "cc")
    path = write(tmp_path / "rows.jsonl", [openai_row("Hi", "A"), openai_row(text, "A"), openai_row("Ho", "A")])
    made = prepare([path], Encoder(tokenizer, open_rendering("hermes", tokenizer), learn_rule("balanced"), 4096))
    assert [sample.row for sample in made.samples] == [1, 3]
    assert made.report.ledger.reasons == {"template": 1}
    assert made.report.ledger.first_places()["template"].startswith(f"{path}:2: the tokenizer ")
