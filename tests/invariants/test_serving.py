"""Invariants 2 and 3 over every shipped row, both call formats, a real tokenizer and a throw-away one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from transformers import AutoTokenizer

from agentft.calls import CALL_FORMATS, CallFormat
from agentft.records import parse_row
from agentft.rendering.encoding import LEARN_RULES, encode, tokens_of
from agentft.rendering.frame import Frame
from agentft.rendering.render import render_prompt, render_samples
from agentft.types import Conversation, Encoded, Json, Segment, ToolCall
from tests.invariants.rows import conversations, served
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module", params=[pytest.param("smollm2", marks=pytest.mark.slow), "tiny"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    if request.param == "tiny":
        return tiny_tokenizer()
    return AutoTokenizer.from_pretrained(request.getfixturevalue("smollm2_folder"))


@pytest.fixture(scope="module")
def all_rows(tmp_path_factory: pytest.TempPathFactory) -> list[Conversation]:
    found = list(conversations(tmp_path_factory.mktemp("rows")))
    assert len(found) > 1500
    return found


@pytest.fixture
def rows(all_rows: list[Conversation], tokenizer: Any) -> list[Conversation]:
    """All with the real tokenizer, every fourth with the throw-away one."""
    return all_rows[:: 1 if tokenizer.vocab_size > 10_000 else 4]


@pytest.fixture(params=list(CALL_FORMATS))
def fmt(request: pytest.FixtureRequest) -> CallFormat:
    return CALL_FORMATS[request.param]


def test_what_serving_sends_is_a_token_prefix_of_the_training_row(
    rows: list[Conversation], fmt: CallFormat, tokenizer: Any
) -> None:
    frame = Frame.of_tokenizer(tokenizer)
    steps = 0
    for conversation in rows:
        trained = tokens_of(render_samples(conversation, fmt, frame)[0], tokenizer)
        for turns, said in served(conversation):
            so_far = Conversation(conversation.id, turns, conversation.tools, conversation.source)
            prompt = tokens_of(render_prompt(so_far, fmt, frame), tokenizer)
            assert trained[: len(prompt)] == prompt, f"{conversation.id}: before {said[:60]!r}"
            steps += 1
    assert steps > len(rows)


def learnt(encoded: Encoded) -> Iterator[list[int]]:
    """Runs of neighbouring supervised tokens."""
    run: list[int] = []
    for token, weight in zip((*encoded.input_ids, 0), (*encoded.loss_weights, 0.0), strict=True):
        if weight:
            run.append(token)
        elif run:
            yield run
            run = []


def expected(conversation: Conversation) -> list[tuple[str, Any, str | None]]:
    parts = [part for turn in conversation.turns for part in turn.parts]
    return [(p.name, p.arguments, p.endpoint) for p in parts if isinstance(p, ToolCall) and p.parse_error is None]


def test_the_supervised_tokens_decode_to_exactly_the_calls_with_their_terminators(
    rows: list[Conversation], fmt: CallFormat, tokenizer: Any
) -> None:
    """An independent check: the decoded text is read by the format again, and compared with the source's calls."""
    frame = Frame.of_tokenizer(tokenizer)
    runs = 0
    for conversation in rows:
        encoded = encode(render_samples(conversation, fmt, frame)[0], tokenizer, LEARN_RULES["calls"])
        found: list[tuple[str, Any, str | None]] = []
        for run in learnt(encoded):
            text = tokenizer.decode(run)
            ends = text.endswith(fmt.stop or frame.stop)
            assert ends or not closed(conversation), f"{conversation.id}: a call without its terminator: {text!r}"
            calls = [part for part in fmt.parse(text.strip().removesuffix(frame.stop)) if isinstance(part, ToolCall)]
            assert all(call.parse_error is None for call in calls)
            found += [(call.name, call.arguments, call.endpoint) for call in calls]
            runs += 1
        if fmt.name == "hermes":
            assert found == [(name, arguments, None) for name, arguments, _ in expected(conversation)]
        else:
            assert found == expected(conversation)
    assert runs > 0.6 * len(rows)


def closed(conversation: Conversation) -> bool:
    """Whether every call block of the row is closed (some fixtures end in the middle of one)."""
    return not any(turn.raw.count("<|startofthink|>") > turn.raw.count("<|endofthink|>") for turn in conversation.turns)


def test_results_and_what_is_given_are_never_learnt(rows: list[Conversation], fmt: CallFormat, tokenizer: Any) -> None:
    frame = Frame.of_tokenizer(tokenizer)
    for conversation in rows:
        segments = render_samples(conversation, fmt, frame)[0]
        encoded = encode(segments, tokenizer, LEARN_RULES["assistant"])
        for weight, at in zip(encoded.loss_weights, encoded.segments, strict=True):
            assert not weight or segments[at].sampled
        assert all(not s.sampled for s in segments if s.kind in ("result", "user", "system", "frame"))


def row(*said: str) -> Conversation:
    turns: list[Json] = [{"from": "user", "value": "u"}]
    turns += [{"from": "assistant", "value": text} for text in said]
    return parse_row({"conversations": turns}, "row")


CALL = '<|startofthink|>```JSON\n{"api_name": "w", "parameters": {"n": 1}}\n```<|endofthink|>'
BAD = "<|startofthink|>```JSON\n{oh no\n```<|endofthink|>"
RESULT = "\n\n<|startofexec|>```JSON\n{}\n```<|endofexec|>\n"


def weights(text: str, learn: str, fmt: str = "msagent") -> list[tuple[str, float, str]]:
    """(text, weight, kind) of the runs of equal weight and kind."""
    tokenizer = tiny_tokenizer()
    frame = Frame.of_tokenizer(tokenizer)
    segments = render_samples(row(text), CALL_FORMATS[fmt], frame)[0]
    encoded = encode(segments, tokenizer, LEARN_RULES[learn])
    merged: list[tuple[list[int], float, Segment]] = []
    for token, weight, at in zip(encoded.input_ids, encoded.loss_weights, encoded.segments, strict=True):
        if merged and merged[-1][1] == weight and merged[-1][2] is segments[at]:
            merged[-1][0].append(token)
        else:
            merged.append(([token], weight, segments[at]))
    return [(tokenizer.decode(tokens), weight, segment.kind) for tokens, weight, segment in merged]


def test_calls_learns_calls_and_terminators_only() -> None:
    parts = weights(f"Wait.{CALL}{RESULT}It is done.", "calls")
    assert "".join(text for text, weight, _ in parts if weight) == CALL
    assert [kind for _, weight, kind in parts if weight] == ["call", "terminator"]


def test_balanced_learns_the_opening_and_the_stop_of_answers_too() -> None:
    answer = "It is fine and it will be fine, in Beijing and in Paris and in Lisbon."
    parts = weights(answer, "balanced")
    assert [(weight, kind) for _, weight, kind in parts][-4:] == [
        (1, "answer"),
        (0, "answer"),
        (1, "end"),
        (0, "frame"),
    ]
    opening = next(text for text, weight, kind in parts if weight and kind == "answer")
    assert len(tiny_tokenizer()(opening)["input_ids"]) == 8


def test_assistant_learns_all_that_is_said() -> None:
    parts = weights(f"Wait.{CALL}{RESULT}It is done.", "assistant")
    kinds = [kind for _, weight, kind in parts if weight]
    assert kinds == ["preamble", "call", "terminator", "answer", "end"]


@pytest.mark.parametrize("fmt", CALL_FORMATS)
@pytest.mark.parametrize("learn", LEARN_RULES)
def test_an_unreadable_call_is_never_learnt_nor_what_ends_it(fmt: str, learn: str) -> None:
    parts = weights(BAD, learn, fmt)
    assert [text for text, weight, _ in parts if weight] == []
    assert any(kind == "unreadable" for _, _, kind in parts)


def test_neighbouring_blocks_become_one_because_serving_stops_at_the_first_end() -> None:
    parts = weights(f"{CALL}\n{CALL}{RESULT}{RESULT}ok", "calls")
    learnt_text = "".join(text for text, weight, _ in parts if weight)
    assert learnt_text.count("<|endofthink|>") == 1
    assert learnt_text.count('"api_name"') == 2


def test_what_follows_a_call_without_a_result_is_a_run_of_its_own() -> None:
    parts = weights(f"{CALL}So be it.", "balanced")
    assert [kind for _, weight, kind in parts if weight] == ["call", "terminator", "answer", "end"]
    assert [kind for _, weight, kind in weights(f"{CALL}\n", "assistant") if weight] == ["call", "terminator"]
