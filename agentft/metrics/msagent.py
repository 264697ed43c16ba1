"""The metrics of the MSAgent-Bench authors, for comparison with their tables: one reference call, one predicted call.

Calls are paired by assignment; each score is the mean over the required calls of the case. Comparators, alternatives
and optional arguments are ignored: a call must equal the reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from agentft.metrics.matching import case_matchings, same
from agentft.metrics.reading import Context, final_text
from agentft.strict import counted
from agentft.types import CallExpectation, Case, Json, Score, ToolCall, Trajectory

__all__ = ["action_em", "input_em", "msagent_f1", "pair_f1", "rouge_l"]


def action_em(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """The share of required calls with the right tool name."""
    return _mean_over_calls(case, trajectory, context, lambda want, call: float(call.name == want.name))


def input_em(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """The share of required calls with exactly the reference arguments."""
    return _mean_over_calls(
        case, trajectory, context, lambda want, call: same(dict(want.arguments), dict(call.arguments))
    )


def msagent_f1(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """Argument F1, with half credit for a right key with a wrong value; 0 for a wrong tool."""

    def score(want: CallExpectation, call: ToolCall) -> float:
        return pair_f1(want.arguments, call.arguments) if call.name == want.name else 0.0

    return _mean_over_calls(case, trajectory, context, score)


def pair_f1(reference: Mapping[str, Json], predicted: Mapping[str, Json]) -> float:
    """F1 = 2PR/(P+R) with R = (half/2 + full)/|reference| and P = (half/2 + full)/|predicted|.

    1 if both are empty.
    """
    if not reference and not predicted:
        return 1.0
    shared = [key for key in reference if key in predicted]
    full = sum(same(reference[key], predicted[key]) for key in shared)
    credit = full + (len(shared) - full) / 2
    return 2 * credit / (len(reference) + len(predicted))


def rouge_l(case: Case, trajectory: Trajectory, _context: Context) -> Score:
    """ROUGE-L (F1) of the final answers against `reference`; if it is empty, against the joined answer values."""
    pairs = [
        (turn.reference or " ".join(turn.answer), final_text(trajectory, index))
        for index, turn in enumerate(case.turns)
        if turn.reference or turn.answer
    ]
    if not pairs:
        return Score(None, "the case expects no answer")
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which is slow

    scorer = RougeScorer(["rougeL"], tokenizer=_Tokenizer())
    values = [float(scorer.score(reference, text)["rougeL"].fmeasure) for reference, text in pairs]
    return _mean(values, "answer")


class _Tokenizer:
    """Splits into words of Latin letters and digits; every other letter, as in Chinese, is a token of its own."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-case tokens."""
        return re.findall(r"[a-z0-9]+|[^\W_]", text.lower())


def _mean_over_calls(
    case: Case, trajectory: Trajectory, context: Context, value: Callable[[CallExpectation, ToolCall], float]
) -> Score:
    """The mean of `value` over the required calls; a call that was not made counts as 0."""
    pairs = [pair for matching in case_matchings(case, trajectory, context) for pair in matching.pairs if pair.required]
    values = [float(value(pair.expected, pair.call)) if pair.call else 0.0 for pair in pairs]
    if not values:
        return Score(None, "the case expects no call")
    return _mean(values, "expected call")


def _mean(values: Sequence[float], noun: str) -> Score:
    return Score(sum(values) / len(values), f"mean of {counted(len(values), noun)}")
