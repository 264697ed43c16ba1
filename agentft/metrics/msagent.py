"""The metrics of the MSAgent-Bench authors, for comparison with their tables: one reference call, one predicted call.

Calls are paired by assignment; each figure is the mean over the case's required calls. Comparators, alternatives and
optional arguments of a case play no part: exactly equal means equal to the reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from agentft.metrics.matching import case_matchings, same
from agentft.metrics.reading import Context, final_text
from agentft.types import CallExpectation, Case, Json, Score, ToolCall, Trajectory

__all__ = ["action_em", "input_em", "msagent_f1", "pair_f1", "rouge_l"]


def action_em(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """The tool's name is equal."""
    return _mean(case, trajectory, context, lambda want, call: float(call.name == want.name))


def input_em(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """The parameters are exactly equal."""
    return _mean(case, trajectory, context, lambda want, call: same(dict(want.arguments), dict(call.arguments)))


def msagent_f1(case: Case, trajectory: Trajectory, context: Context) -> Score:
    """Argument F1 with half credit for a right key with a wrong value; a wrong name gives 0."""

    def score(want: CallExpectation, call: ToolCall) -> float:
        return pair_f1(want.arguments, call.arguments) if call.name == want.name else 0.0

    return _mean(case, trajectory, context, score)


def pair_f1(reference: Mapping[str, Json], predicted: Mapping[str, Json]) -> float:
    """F1 = 2PR/(P+R) with R = (half/2 + full)/|reference| and P = (half/2 + full)/|predicted|.

    An empty reference gives 1 exactly when the prediction is empty too.
    """
    if not reference or not predicted:
        return float(not reference and not predicted)
    shared = [key for key in reference if key in predicted]
    full = sum(same(reference[key], predicted[key]) for key in shared)
    credit = full + (len(shared) - full) / 2
    return 2 * credit / (len(reference) + len(predicted))


def rouge_l(case: Case, trajectory: Trajectory, _context: Context) -> Score:
    """ROUGE-L (F) of the final answers against the case's `reference`, or else against its answer values in order."""
    pairs = [
        (turn.reference or " ".join(turn.answer), final_text(trajectory, index))
        for index, turn in enumerate(case.turns)
        if turn.reference or turn.answer
    ]
    if not pairs:
        return Score(None, "the case names no answer")
    from rouge_score.rouge_scorer import RougeScorer  # it imports nltk, which takes a while

    scorer = RougeScorer(["rougeL"], tokenizer=_Tokenizer())
    values = [float(scorer.score(reference, said)["rougeL"].fmeasure) for reference, said in pairs]
    return Score(sum(values) / len(values), f"mean of {len(values)} answers")


class _Tokenizer:
    """Words of Latin letters and digits, and every other letter (a Chinese character) for itself."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-case tokens."""
        return re.findall(r"[a-z0-9]+|[^\W_]", text.lower())


def _mean(
    case: Case, trajectory: Trajectory, context: Context, value: Callable[[CallExpectation, ToolCall], float]
) -> Score:
    """A required call that was not made has the value 0."""
    pairs = [pair for matching in case_matchings(case, trajectory, context) for pair in matching.pairs if pair.required]
    values = [float(value(pair.expected, pair.call)) if pair.call else 0.0 for pair in pairs]
    if not values:
        return Score(None, "the case expects no call")
    return Score(sum(values) / len(values), f"mean of {len(values)} expected calls")
