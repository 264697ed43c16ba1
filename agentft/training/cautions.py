"""What a user should know about the rows before a model is trained on them."""

from __future__ import annotations

from collections.abc import Iterator

from agentft.rows.preparation import DataReport
from agentft.training.recipe import Recipe

__all__ = ["cautions"]


def cautions(recipe: Recipe, report: DataReport) -> Iterator[str]:
    """A sentence about each thing in the rows that this recipe may not do what the user expects with."""
    if recipe.loss == "dft":
        yield "loss = 'dft' teaches little that the model would not have written before; use loss=ce first"
    if report.trimmed:
        rows = "1 row is" if report.trimmed == 1 else f"{report.trimmed} rows are"
        yield (
            f"{rows} longer than max_length = {recipe.max_length}: the last turns, with {report.left_out} supervised "
            "tokens, were cut off"
        )
    if report.control_texts:
        counted = ", ".join(f"{text}: {count}" for text, count in report.control_texts.most_common(3))
        yield (
            f"turns contain the text of control tokens (rows with {counted}); it is tokenised as plain text, and "
            "removed from the end of an answer"
        )
    if report.thoughts and not report.thoughts_learnt:
        thoughts = "1 thought is" if report.thoughts == 1 else f"{report.thoughts} thoughts are"
        yield (f"{thoughts} left out, since learn = {recipe.learn!r} does not supervise them; --learn assistant does")
    if report.quiet and not report.quiet_learnt:
        turns = "1 turn correctly makes" if report.quiet == 1 else f"{report.quiet} turns correctly make"
        yield (
            f"{turns} no call, and learn = {recipe.learn!r} does not supervise such turns, so the model may call tools "
            "where it should not; --learn balanced supervises them"
        )
    if report.answered and not report.quiet_learnt:
        turns = "1 turn answers" if report.answered == 1 else f"{report.answered} turns answer"
        yield (
            f"{turns} after a tool's result, and learn = {recipe.learn!r} does not supervise them: the model will call "
            "its tools again and again instead of answering; use --learn balanced"
        )
