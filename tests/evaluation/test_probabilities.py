"""How likely a model is to make its calls and the expected ones: as in a plain pass, part by part, stored, resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agentft.agent import Job, replay
from agentft.calls import call_format
from agentft.errors import InputError
from agentft.evaluation.plan import Arm, Plan
from agentft.evaluation.probabilities import CallPiece, CallProbability, Probabilities, measure
from agentft.evaluation.records import read_records
from agentft.evaluation.runner import Settings, evaluate
from agentft.models import Likelihood, Reading, Sampling
from agentft.models.decoding import read_logs
from agentft.models.hf import HfEngine
from agentft.models.local import LocalModel
from agentft.models.scripted import ScriptedModel
from agentft.rendering import open_rendering
from agentft.rendering.encoding import tokens_of
from agentft.types import Exchange, Json, Segment, Span, Step, ToolCall, Turn
from tests.evaluation.world import CASES, small_plan
from tests.tiny import tiny_model, tiny_tokenizer
from tests.values import assert_immutable


def local(fmt: str = "hermes") -> LocalModel:
    tokenizer = tiny_tokenizer()
    return LocalModel(HfEngine(tiny_model(), tokenizer, "tiny"), open_rendering(fmt, tokenizer))


def job_of(plan: Plan, case: str) -> Job:
    return plan.job(next(one for one in plan.cases if one.id == case))


def step(raw: str, *, turn: int = 0, fmt: str = "hermes") -> Step:
    parts = call_format(fmt).parse(raw)
    calls = [part for part in parts if isinstance(part, ToolCall)]
    exchanges = tuple(Exchange(call, "POST", "", {}, 200, '{"price": 2.5}', False) for call in calls)
    return Step(turn, parts, raw, "end", exchanges)


def written(*calls: ToolCall, fmt: str = "hermes") -> str:
    return call_format(fmt).write_parts(calls)


def made(name: str, /, **arguments: Any) -> ToolCall:
    return ToolCall("", name, arguments, Span(0, 0))


class Certain:
    """Every character is a token, of probability 1/2 in the text `doubtful`, else 1."""

    name = source = "hermes"
    context = 0
    rendering: Mapping[str, Json] = {}

    def __init__(self, doubtful: str, fmt: str = "hermes") -> None:
        self.doubtful = doubtful
        self.format = call_format(fmt)
        self.source = fmt

    def reply(self, *_: Any) -> Any:
        raise AssertionError("nothing is generated, and no prompt is shown")

    prompt = count = explain = reply

    def read(self, replies: Any) -> list[Reading]:
        readings = []
        for _, turn in replies:
            text = turn.raw or self.format.write_parts(turn.parts) + "<|im_end|>"
            start = text.find(self.doubtful)
            doubt = range(start, start + len(self.doubtful)) if self.doubtful and start >= 0 else range(0)
            logs = (Likelihood(at, at + 1, math.log(0.5) if at in doubt else 0.0) for at in range(len(text)))
            readings.append(Reading(text, tuple(logs)))
        return readings


def parts(call: CallProbability) -> dict[tuple[str, str], float]:
    return {(piece.kind, piece.argument): piece.probability for piece in call.pieces}


@pytest.mark.parametrize("fmt", ["hermes", "msagent"])
@pytest.mark.parametrize(
    ("doubtful", "part"),
    [
        ("<t", ("decision", "")),
        ('"order"', ("name", "")),
        ('"item"', ("key", "item")),
        ('"tea"', ("value", "item")),
        ("[1, 2]", ("value", "count")),
    ],
)
def test_each_part_of_a_call_has_its_own_probability(
    tmp_path: Path, fmt: str, doubtful: str, part: tuple[str, str]
) -> None:
    doubtful = doubtful if fmt == "hermes" else doubtful.replace("<t", "<|")
    model = Certain(doubtful, fmt)
    raw = written(made("order", item="tea", count=[1, 2]), fmt=fmt)
    (found,) = measure([(job_of(small_plan(tmp_path), "s2"), [step(raw, fmt=fmt)])], model)
    (call,) = found.made
    assert (call.turn, call.step, call.index, call.name) == (0, 0, 0, "order")
    low = 0.5 ** len(doubtful)
    assert call.probability == pytest.approx(low)
    assert parts(call) == pytest.approx(
        {
            key: low if key == part else 1.0
            for key in [
                ("decision", ""),
                ("name", ""),
                ("key", "item"),
                ("value", "item"),
                ("key", "count"),
                ("value", "count"),
                ("stop", ""),
            ]
        }
    )


def test_the_stop_belongs_to_the_last_call_and_to_no_calls_probability(tmp_path: Path) -> None:
    job = job_of(small_plan(tmp_path), "p1")
    raw = written(made("price", item="tea"), made("price", item="cake"))
    (found,) = measure([(job, [step(raw)])], Certain("<|im_end|>"))
    assert [call.probability for call in (*found.made, *found.expected)] == pytest.approx([1, 1, 1, 1])
    assert [("stop", "") in parts(call) for call in (*found.made, *found.expected)] == [False, True, False, True]
    assert parts(found.expected[1])["stop", ""] == pytest.approx(0.5**10)
    (found,) = measure([(job, [step(raw)])], Certain('"cake"'))
    assert [call.probability for call in found.made] == pytest.approx([1, 0.5**6])
    assert parts(found.expected[1])["value", "item"] == pytest.approx(0.5**6)


def test_text_before_a_call_does_not_count(tmp_path: Path) -> None:
    raw = "I use price. " + written(made("price", item="tea"))
    (found,) = measure([(job_of(small_plan(tmp_path), "s1"), [step(raw)])], Certain("I use price."))
    assert found.made[0].probability == 1
    assert parts(found.made[0])["name", ""] == 1


def test_unreadable_calls_and_replies_without_calls(tmp_path: Path) -> None:
    job = job_of(small_plan(tmp_path), "m1")
    broken = '<tool_call>\n{"name": "order", "arguments": {"item"\n</tool_call>'
    steps = [step("How many?"), step(broken, turn=1)]
    (found,) = measure([(job, steps)], Certain('"item"'))
    assert [(call.turn, call.step) for call in found.made] == [(1, 1)]
    assert found.made[0].probability == pytest.approx(0.5**6)
    assert set(parts(found.made[0])) == {("stop", "")} or not parts(found.made[0])
    assert [(call.turn, call.step, call.name) for call in found.expected] == [(1, 1, "order")]
    (found,) = measure([(job_of(small_plan(tmp_path), "i1"), [step("A poem.")])], Certain(""))
    assert found == Probabilities((), ())


@pytest.mark.parametrize("fmt", ["hermes", "msagent"])
def test_reading_in_batches_equals_a_plain_pass(tmp_path: Path, fmt: str) -> None:
    plan, model = small_plan(tmp_path), local(fmt)
    raws = [written(made("price", item="tea"), fmt=fmt), written(made("order", item="cake", count=12), fmt=fmt), "No."]
    rows = []
    for case, raw in zip(("s1", "s2", "i1"), raws, strict=True):
        conversation = next(replay(job_of(plan, case), [step(raw, fmt=fmt)], model.source))
        rows.append((conversation, Turn("assistant", call_format(fmt).parse(raw), raw)))
    readings = model.read(rows)
    tokenizer, plain = tiny_tokenizer(), tiny_model().eval()
    rendering = open_rendering(fmt, tokenizer)
    for (conversation, turn), reading in zip(rows, readings, strict=True):
        prompt = rendering.prompt(conversation)
        ids = tokens_of([*prompt, Segment(turn.raw, True, "call")], tokenizer)
        with torch.inference_mode():
            logs = plain(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        count = len(reading.tokens)
        assert count == len(ids) - len(tokens_of(prompt, tokenizer))
        expected = [float(logs[at - 1, ids[at]]) for at in range(len(ids) - count, len(ids))]
        assert [token.log for token in reading.tokens] == pytest.approx(expected, abs=1e-4)
        assert reading.text == turn.raw
        assert (reading.tokens[0].start, reading.tokens[-1].end) == (0, len(turn.raw))


def test_small_batches_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, model = small_plan(tmp_path), local()
    rows = []
    for case in ("s1", "s2", "p1"):
        reply = Turn("assistant", (made("price", item="tea"),), "")
        rows.append((next(replay(job_of(plan, case), [step("Hm.")], model.source)), reply))
    whole = model.read(rows)
    assert whole[0].text.endswith("</tool_call><|im_end|>")
    monkeypatch.setattr("agentft.models.hf.LOGITS_AT_ONCE", 1)
    for one, other in zip(whole, local().read(rows), strict=True):
        assert [token.log for token in one.tokens] == pytest.approx([token.log for token in other.tokens], abs=1e-4)


def test_replies_of_like_length_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a batch are padded to the longest one, which doubled the time."""
    plan, model, lengths = small_plan(tmp_path), local(), list[int]()
    reply = Turn("assistant", (made("price", item="tea"),), "")
    said = ["Hm." * count for count in (90, 1, 60, 2, 120)]
    rows = [(next(replay(job_of(plan, "s1"), [step("Hm.")], model.source)), Turn("assistant", (), raw)) for raw in said]
    rows.append((rows[0][0], reply))

    def watched(engine: Any, ids: Sequence[Sequence[int]], *rest: Any) -> list[list[float]]:
        lengths.extend(map(len, ids))
        return read_logs(engine, ids, *rest)

    monkeypatch.setattr("agentft.models.hf.read_logs", watched)
    model.read(rows)
    assert (len(lengths), lengths) == (len(rows), sorted(lengths))


def test_probabilities_are_stored_read_back_and_added_to_a_finished_run(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, CASES[:2])
    arm = Arm("model", "tiny", "tiny", local)
    settings = Settings(tmp_path / "out", Sampling(max_new_tokens=3))
    evaluate(plan, [arm], settings)
    before = [replace(row, probabilities=None) for row in read_records(tmp_path / "out" / "cases.jsonl")]
    assert all(row.probabilities is None for row in read_records(tmp_path / "out" / "cases.jsonl"))
    summary = evaluate(plan, [arm], replace(settings, probabilities=True))
    rows = list(read_records(tmp_path / "out" / "cases.jsonl"))
    assert sorted((replace(row, probabilities=None) for row in rows), key=lambda row: row.case) == sorted(
        before, key=lambda row: row.case
    )
    found = {row.case: row.probabilities for row in rows}
    assert [call.name for call in found["s1"].expected if found["s1"]] == ["price"] if found["s1"] else False
    assert summary.calibration is not None
    assert set(summary.calibration["model"].expected) == {"decision", "name", "key", "value", "stop"}
    evaluate(plan, [replace(arm, open=lambda: pytest.fail("all is read"))], replace(settings, probabilities=True))


def test_cases_finished_after_a_rewrite_are_stored(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, CASES[:2])
    arm = Arm("model", "tiny", "tiny", local)
    other = Arm("base", "other", "other", local)
    settings = Settings(tmp_path / "out", Sampling(max_new_tokens=2), probabilities=True)
    evaluate(plan, [arm, other], settings)
    rows = list(read_records(tmp_path / "out" / "cases.jsonl"))
    assert len(rows) == 2 * len(plan.cases)
    assert all(row.probabilities is not None for row in rows)


def test_a_model_that_cannot_read_is_refused(tmp_path: Path) -> None:
    arm = Arm("model", "scripted", "s", lambda: ScriptedModel({"*": "Hm."}))
    with pytest.raises(InputError, match="--probabilities needs models on this machine"):
        evaluate(small_plan(tmp_path), [arm], Settings(tmp_path / "out", probabilities=True))


@pytest.mark.parametrize(
    "value",
    [CallPiece("name", "", 1.0), CallProbability(0, 0, 0, "", 1.0, ()), Probabilities((), ()), Reading("", ())],
    ids=lambda value: type(value).__name__,
)
def test_probabilities_are_immutable(value: object) -> None:
    assert_immutable(value)
