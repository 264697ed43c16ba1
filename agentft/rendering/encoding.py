"""Segments -> tokens with loss weights.

Sampled and injected text are tokenised separately, because serving does so. Each such run is tokenised once, and the
segment boundaries are mapped to tokens by character offsets.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from agentft.errors import InputError
from agentft.rendering.tokens import Tokenizer, tokenise
from agentft.types import Encoded, Segment

__all__ = ["LEARN_RULES", "LearnRule", "encode", "learn_rule", "tokens_of"]


@dataclass(frozen=True)
class LearnRule:
    """Which tokens are supervised: a loss weight for each kind of sampled segment (0 if it is not listed).

    `opening`: supervise only this many first tokens of an answer, where the model decides not to call (None: all).
    """

    name: str
    weights: Mapping[str, float] = field(default_factory=dict)
    opening: int | None = None

    @property
    def thinking(self) -> bool:
        """Whether thoughts are supervised; if not, they are left out of the samples."""
        return self.weights.get("thought", 0.0) > 0


LEARN_RULES: dict[str, LearnRule] = {
    "calls": LearnRule("calls", {"call": 1.0, "terminator": 1.0}),
    "balanced": LearnRule("balanced", {"call": 1.0, "terminator": 1.0, "answer": 1.0, "end": 1.0}, opening=8),
    "assistant": LearnRule(
        "assistant", {"call": 1.0, "terminator": 1.0, "thought": 1.0, "preamble": 1.0, "answer": 1.0, "end": 1.0}
    ),
}


def learn_rule(name: str, weights: Mapping[str, float] | None = None) -> LearnRule:
    """Look up a rule by name, and replace its weights by those in `weights`.

    Raises:
        InputError: no such rule, a kind that cannot be supervised, or a weight that is negative or not finite.
    """
    if name not in LEARN_RULES:
        raise InputError(f"unknown learn rule {name!r}; use one of: {', '.join(LEARN_RULES)}")
    rule = LEARN_RULES[name]
    kinds = LEARN_RULES["assistant"].weights
    for kind, weight in (weights or {}).items():
        if kind not in kinds:
            raise InputError(f"weights.{kind}: this segment kind cannot be supervised; use one of: {', '.join(kinds)}")
        if not 0 <= weight < float("inf"):
            raise InputError(f"weights.{kind} = {weight}: a loss weight must be a finite number of at least 0")
    return replace(rule, weights={**rule.weights, **(weights or {})})


def encode(segments: Sequence[Segment], tokenizer: Tokenizer, learn: LearnRule) -> Encoded:
    """Tokenise rendered segments and assign each token its loss weight.

    A token that overlaps several segments gets the largest of their weights, since the model generates it as a unit.
    """
    ids = array("i")
    weights: list[float] = []
    owners: list[int] = []
    for run in tokenise(segments, tokenizer):
        own = [segments[index] for index in run.segments]
        cuts = [(0, 0), (len(run.ids), len(run.ids))]
        if len(own) > 1:
            cuts[1:1] = run.cuts(accumulate(len(segment.text) for segment in own[:-1]))
        ids += run.ids
        for index, (_, first), (_, last) in zip(run.segments, cuts, cuts[1:], strict=False):
            owners += [index] * (last - first)
        weights += _project(own, cuts, learn) if own[0].sampled else [0.0] * len(run.ids)
    return Encoded(ids, tuple(weights), tuple(owners))


def _project(segments: Sequence[Segment], cuts: Sequence[tuple[int, int]], learn: LearnRule) -> list[float]:
    """The weights of a sampled run's tokens.

    Args:
        segments: the run's segments.
        cuts: where each segment begins, and the end: how many tokens end by then, and how many begin before.
        learn: the rule.
    """
    weights = [0.0] * cuts[-1][0]
    for segment, (ended, begun), (_, end) in zip(segments, cuts, cuts[1:], strict=False):
        weight = learn.weights.get(segment.kind, 0.0)
        if segment.excluded or not weight:
            continue
        first = min(ended, begun)  # tokens that begin before the segment and reach into it
        opening = learn.opening if segment.kind == "answer" else None
        last = end if opening is None else max(first, min(end, first + opening))
        for place in range(first, min(begun, last)):
            weights[place] = max(weights[place], weight)
        if begun < last:
            weights[begun:last] = [weight] * (last - begun)
    return weights


def tokens_of(segments: Sequence[Segment], tokenizer: Tokenizer) -> list[int]:
    """The tokens without weights, as serving needs them."""
    return [token for run in tokenise(segments, tokenizer) for token in run.ids]
