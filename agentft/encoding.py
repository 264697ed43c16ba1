"""Segments -> tokens with loss weights.

What the model says is tokenised apart from what is given to it, because serving does the same; inside such a run the
text is tokenised once, and the segments' boundaries are projected on the tokens by their character offsets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby
from typing import Protocol, TypedDict

from agentft.errors import InputError
from agentft.types import Encoded, Segment

__all__ = ["LEARN_RULES", "LearnRule", "Tokenizer", "Tokens", "encode", "learn_rule", "tokens_of"]


class Tokens(TypedDict):
    """What a fast tokenizer returns for a list of texts."""

    input_ids: list[list[int]]
    offset_mapping: list[list[tuple[int, int]]]


class Tokenizer(Protocol):
    """The part of a fast transformers tokenizer that encoding needs."""

    def __call__(self, text: list[str], *, add_special_tokens: bool, return_offsets_mapping: bool) -> Tokens:
        """Tokenise each text on its own."""
        ...


@dataclass(frozen=True)
class LearnRule:
    """What is learnt: a loss weight for each kind of sampled segment (0 if not named).

    `opening`: of an answer only its first so many tokens, which is where the model decides not to call.
    """

    name: str
    weights: Mapping[str, float] = field(default_factory=dict)
    opening: int | None = None


LEARN_RULES: dict[str, LearnRule] = {
    "calls": LearnRule("calls", {"call": 1.0, "terminator": 1.0}),
    "balanced": LearnRule("balanced", {"call": 1.0, "terminator": 1.0, "answer": 1.0, "end": 1.0}, opening=8),
    "assistant": LearnRule(
        "assistant", {"call": 1.0, "terminator": 1.0, "thought": 1.0, "preamble": 1.0, "answer": 1.0, "end": 1.0}
    ),
}


def learn_rule(name: str, weights: Mapping[str, float] | None = None) -> LearnRule:
    """The rule of that name, with weights for single kinds replaced.

    Raises:
        InputError: no such rule, a kind that cannot be learnt, or a weight below 0.
    """
    if name not in LEARN_RULES:
        raise InputError(f"learn {name!r} is not known; it is one of: {', '.join(LEARN_RULES)}")
    rule = LEARN_RULES[name]
    kinds = LEARN_RULES["assistant"].weights
    for kind, weight in (weights or {}).items():
        if kind not in kinds:
            raise InputError(f"weights.{kind}: no such kind of segment is learnt; the kinds are: {', '.join(kinds)}")
        if not 0 <= weight < float("inf"):
            raise InputError(f"weights.{kind} = {weight}: a loss weight is 0 or more")
    chosen: dict[str, float] = {**rule.weights, **(weights or {})}
    return replace(rule, weights=chosen)


def encode(segments: Sequence[Segment], tokenizer: Tokenizer, learn: LearnRule) -> Encoded:
    """Tokenise rendered segments and give each token its loss weight.

    A token that reaches into several segments takes the largest of their weights: the model must produce it whole.
    """
    ids: list[int] = []
    weights: list[float] = []
    owners: list[int] = []
    runs = _runs(segments)
    for run, run_ids, offsets in zip(runs, *_tokenise(segments, runs, tokenizer), strict=True):
        ends = list(accumulate(len(segments[index].text) for index in run))
        taken = dict.fromkeys(run, 0)
        for token, (start, end) in zip(run_ids, offsets, strict=True):
            first = bisect_right(ends, start)
            last = max(first, bisect_right(ends, end - 1))
            touched = [run[i] for i in range(min(first, len(run) - 1), min(last, len(run) - 1) + 1)]
            weight = max(_weight(segments[index], taken[index], learn) for index in touched)
            for index in touched:
                taken[index] += 1
            ids.append(token)
            weights.append(weight)
            owners.append(touched[0])
    return Encoded(tuple(ids), tuple(weights), tuple(owners))


def tokens_of(segments: Sequence[Segment], tokenizer: Tokenizer) -> list[int]:
    """The tokens alone: what serving sends."""
    ids, _ = _tokenise(segments, _runs(segments), tokenizer)
    return [token for run in ids for token in run]


def _runs(segments: Sequence[Segment]) -> list[list[int]]:
    """Indices of neighbouring segments that are all sampled or all given."""
    groups = groupby(range(len(segments)), key=lambda index: segments[index].sampled)
    return [list(group) for _, group in groups]


def _tokenise(
    segments: Sequence[Segment], runs: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    texts = ["".join(segments[index].text for index in run) for run in runs]
    if not texts:
        return [], []
    tokens = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    return tokens["input_ids"], tokens["offset_mapping"]


def _weight(segment: Segment, taken: int, learn: LearnRule) -> float:
    """The weight of a segment's next token, `taken` of its tokens having come before."""
    if not segment.sampled:
        return 0.0
    if segment.kind == "answer" and learn.opening is not None and taken >= learn.opening:
        return 0.0
    return learn.weights.get(segment.kind, 0.0)
