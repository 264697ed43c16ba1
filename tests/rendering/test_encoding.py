"""Tokens get the weight of the segment that they overlap; injected text gets weight 0."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import FrozenInstanceError, dataclass, field
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.errors import InputError
from agentft.rendering.encoding import LEARN_RULES, LearnRule, encode, learn_rule, tokens_of
from agentft.rendering.tokens import Tokens
from agentft.types import Segment, SegmentKind

Offsets = list[tuple[int, int]]


@dataclass
class Cutter:
    """A tokenizer that splits each text at the given offsets, or into characters, and records the texts."""

    offsets: list[Offsets] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __call__(self, text: list[str], *, add_special_tokens: bool, return_offsets_mapping: bool) -> Tokens:
        assert not add_special_tokens
        assert return_offsets_mapping
        self.texts += text
        found = self.offsets or [[(at, at + 1) for at in range(len(one))] for one in text]
        return {"input_ids": [list(range(len(one))) for one in found], "offset_mapping": found}


CALL, END = Segment("abc", True, "call"), Segment("de", True, "terminator")
RULE = LearnRule("test", {"call": 0.5, "terminator": 2.0, "answer": 1.0})


def encoded(segments: list[Segment], offsets: Offsets, rule: LearnRule = RULE) -> list[tuple[float, int]]:
    """(weight, segment) of each token."""
    found = encode(segments, Cutter([offsets]), rule)
    return list(zip(found.loss_weights, found.segments, strict=True))


@pytest.mark.parametrize(
    ("name", "kinds", "opening"),
    [
        ("calls", ["call", "terminator"], None),
        ("balanced", ["call", "terminator", "answer", "end"], 8),
        ("assistant", ["call", "terminator", "thought", "preamble", "answer", "end"], None),
    ],
)
def test_each_rule_supervises_its_kinds_with_weight_1(name: str, kinds: list[str], opening: int | None) -> None:
    assert learn_rule(name) == LEARN_RULES[name] == LearnRule(name, dict.fromkeys(kinds, 1.0), opening)


def test_weights_replace_those_of_the_rule_without_changing_the_table() -> None:
    rule = learn_rule("calls", {"call": 0, "answer": 2.5})
    assert rule == LearnRule("calls", {"call": 0, "terminator": 1.0, "answer": 2.5})
    assert "answer" not in LEARN_RULES["calls"].weights
    with pytest.raises(FrozenInstanceError):
        LEARN_RULES["calls"].opening = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("call", {}, "unknown learn rule 'call'; use one of: calls, balanced, assistant"),
        ("calls", {"user": 1.0}, "weights.user: this segment kind cannot be supervised"),
        ("calls", {"call": -0.5}, r"weights.call = -0.5: a loss weight must be a finite number of at least 0"),
        ("calls", {"call": float("inf")}, "weights.call = inf: "),
        ("calls", {"call": float("nan")}, "weights.call = nan: "),
    ],
)
def test_an_unknown_rule_or_kind_or_an_invalid_weight_is_refused(
    name: str, weights: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        learn_rule(name, weights)


def test_tokens_that_end_with_their_segment_have_its_weight() -> None:
    assert encoded([CALL, END], [(0, 1), (1, 3), (3, 4), (4, 5)]) == [(0.5, 0), (0.5, 0), (2.0, 1), (2.0, 1)]


@pytest.mark.parametrize("weight", [0.25, 2.0])
def test_a_token_over_a_boundary_has_the_larger_weight_and_belongs_to_the_first_segment(weight: float) -> None:
    rule = LearnRule("test", {"call": 0.5, "terminator": weight})
    for straddling in [(2, 4), (2, 5), (1, 4), (0, 5)]:
        assert encoded([CALL, END], [straddling], rule) == [(max(0.5, weight), 0)]


def test_a_token_over_three_segments_can_get_the_weight_of_the_middle_one() -> None:
    segments = [Segment("a", True, "call"), Segment("b", True, "terminator"), Segment("c", True, "answer")]
    assert encoded(segments, [(0, 3)]) == [(2.0, 0)]
    assert encoded(segments, [(0, 1), (1, 3)]) == [(0.5, 0), (2.0, 1)]
    assert encoded(segments, [(0, 2), (2, 3)]) == [(2.0, 0), (1.0, 2)]


def test_a_token_without_text_belongs_to_the_segment_that_begins_there() -> None:
    assert encoded([CALL, END], [(0, 0), (0, 3), (3, 3), (3, 5)]) == [(0.5, 0), (0.5, 0), (2.0, 1), (2.0, 1)]


@pytest.mark.parametrize("opening", [1, 2, 3])
def test_the_opening_counts_an_answers_tokens_from_the_first_that_overlaps_it(opening: int) -> None:
    rule = LearnRule("test", {"call": 1.0, "answer": 1.0}, opening)
    segments = [Segment("abcd", True, "call"), Segment("efghij", True, "answer"), Segment("k", True, "call")]
    offsets = [(0, 1), (1, 2), (2, 3), (3, 5), (5, 6), (6, 7), (7, 10), (10, 11)]
    in_answer = [1.0] * opening + [0.0] * (4 - opening)
    assert [weight for weight, _ in encoded(segments, offsets, rule)] == [1.0] * 3 + in_answer + [1.0]


def test_without_an_opening_the_whole_answer_is_supervised() -> None:
    answer = Segment("x" * 50, True, "answer")
    assert encode([answer], Cutter(), RULE).loss_weights == (1.0,) * 50


def test_injected_text_is_never_supervised() -> None:
    given = [Segment("ab", False, "answer"), Segment("c", False, "call")]
    found = encode([*given, CALL, Segment("f", True, "unreadable")], Cutter(), RULE)
    assert list(found.loss_weights) == [0, 0, 0, 0.5, 0.5, 0.5, 0]
    assert list(found.segments) == [0, 0, 1, 2, 2, 2, 3]


def test_sampled_and_injected_text_are_tokenised_separately() -> None:
    segments = [Segment("<", False, "frame"), Segment("hi", False, "user"), CALL, END, Segment(">", False, "frame")]
    cutter = Cutter()
    found = encode(segments, cutter, RULE)
    assert cutter.texts == ["<hi", "abcde", ">"]
    assert list(found.input_ids) == tokens_of(segments, cutter) == [0, 1, 2, 0, 1, 2, 3, 4, 0]


def test_no_segments_give_no_tokens() -> None:
    cutter = Cutter([[(0, 1)]])
    assert encode([], cutter, RULE).input_ids == array("i")
    assert tokens_of([], cutter) == []
    assert cutter.texts == []


@pytest.mark.parametrize(
    "tokens",
    [
        Tokens(input_ids=[[1, 2]], offset_mapping=[[(0, 1)]]),
        Tokens(input_ids=[[1]], offset_mapping=[[(0, 1), (1, 2)]]),
        Tokens(input_ids=[[1, 2]], offset_mapping=[]),
        Tokens(input_ids=[], offset_mapping=[[(0, 1), (1, 2)]]),
    ],
)
def test_a_tokenizer_that_loses_tokens_is_an_error(tokens: Tokens) -> None:
    with pytest.raises(ValueError, match="zip"):
        encode([Segment("ab", True, "call")], lambda *_, **__: tokens, RULE)


def encoded_one_by_one(segments: list[Segment], offsets: Offsets, rule: LearnRule) -> list[tuple[float, int]]:
    """(weight, segment) of each token of one run, token by token: what projecting by segment must equal."""
    ends = list(accumulate(len(segment.text) for segment in segments[:-1]))
    counts = [0] * len(segments)
    found: list[tuple[float, int]] = []
    for start, end in offsets:
        first = bisect_right(ends, start)
        touched = range(first, max(first, bisect_right(ends, end - 1)) + 1)
        weights = [0.0]
        for index in touched:
            segment = segments[index]
            late = segment.kind == "answer" and rule.opening is not None and counts[index] >= rule.opening
            if segment.sampled and not late and not segment.excluded:
                weights.append(rule.weights.get(segment.kind, 0.0))
            counts[index] += 1
        found.append((max(weights), first))
    return found


KINDS: list[SegmentKind] = ["answer", "call", "terminator", "thought", "unreadable", "end"]
PIECES = st.tuples(st.integers(1, 6), st.sampled_from(KINDS), st.booleans())


@given(st.lists(PIECES, min_size=1, max_size=6), st.lists(st.integers(0, 4), min_size=40, max_size=40), st.booleans())
def test_projecting_by_segment_equals_weighing_every_token(
    pieces: list[tuple[int, SegmentKind, bool]], widths: list[int], sampled: bool
) -> None:
    segments = [Segment("x" * size, sampled, kind, excluded) for size, kind, excluded in pieces]
    length = sum(size for size, _, _ in pieces)
    places = [min(place, length) for place in accumulate(widths, initial=0)]
    offsets = [(start, end) for start, end in pairwise(places) if start < length]
    for opening in (None, 0, 1, 3):
        rule = LearnRule("test", {"answer": 0.5, "call": 1.0, "terminator": 2.0, "thought": 0.25}, opening)
        assert encoded(segments, offsets, rule) == encoded_one_by_one(segments, offsets, rule)
