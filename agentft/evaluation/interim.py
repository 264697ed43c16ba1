"""The evaluation of a model that is still being trained: the ordinary one, with the model that is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agentft.evaluation.plan import Arm, Plan
from agentft.evaluation.records import Record
from agentft.evaluation.runner import Settings, evaluate
from agentft.evaluation.suites import stratified
from agentft.models import Model
from agentft.toolset import stdout_to_stderr

__all__ = ["FIGURES", "InterimEvaluation"]

FIGURES = ("call_recall", "tool_name", "argument_f1", "schema_valid")
"""What is told besides the score: calls where calls are expected, their tools, their arguments, valid calls."""

_ARM = "model"
_SHOWN = 300  # characters of one piece of a conversation


class InterimEvaluation:
    """Runs the cases of a plan over HTTP against the plan's worlds, and grades them as `agentft eval` does."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.cases = len(plan.cases)

    def __call__(self, model: Model, folder: Path, limit: int) -> tuple[dict[str, float], list[str]] | None:
        """Evaluate the model on at most `limit` cases; None if it was interrupted.

        Returns:
            The figures, and two of the conversations as text. `eval_score` is the share of cases with exactly the
            expected calls, or with none where none is expected. A figure that applies to no case is left out.

        Args:
            folder: what was finished there with this model is not run again.
        """
        plan = replace(self._plan, cases=stratified(self._plan.cases, limit))
        rows: list[Record] = []

        def on_results(_folder: object, _summary: object, found: Mapping[str, Sequence[Record]]) -> None:
            rows.extend(found[_ARM])

        settings = Settings(folder, on_results=on_results)
        with stdout_to_stderr():  # for handlers that print
            summary = evaluate(plan, [Arm(_ARM, model.name, model.name, lambda: model)], settings)
        if summary.interrupted:
            return None
        values = {name: summary.metrics[name].arms[_ARM].value for name in FIGURES}
        figures = {f"eval_{name}": value for name, value in values.items() if value is not None}
        right = {row.case: all(_right(row)) for row in rows if row.outcome != "invalid"}
        if right:
            figures = {"eval_score": sum(right.values()) / len(right), **figures}
        figures |= {"eval_cases": float(len(right))}
        return figures, list(_samples(rows, right))


def _right(row: Record) -> Iterator[bool]:
    values = (row.scores[name].value for name in ("exact_call", "abstention"))
    return (value == 1 for value in values if value is not None)


def _samples(rows: Sequence[Record], right: dict[str, bool]) -> Iterator[str]:
    """The first conversation that is wrong and the first that is right, or else invalid."""
    for wanted in (False, True):
        for row in [row for row in rows if right.get(row.case, False) is wanted][:1]:
            verdict = row.problem or ("right" if wanted else row.error or "wrong calls")
            yield f"{row.case} ({verdict}): {' | '.join(_pieces(row))}"


def _pieces(row: Record) -> Iterator[str]:
    for turn, user in enumerate(row.users):
        yield f"user: {user:.{_SHOWN}}"
        for step in (step for step in row.steps if step.turn == turn):
            yield f"model: {step.raw or '':.{_SHOWN}}"
            yield from (f"tool: {exchange.status} {exchange.received:.{_SHOWN}}" for exchange in step.exchanges)
