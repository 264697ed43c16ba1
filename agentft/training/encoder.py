"""The encoder that a recipe describes: training, plans, `data inspect` and `data mask` see the same samples."""

from __future__ import annotations

from agentft.models.tokenizers import load_tokenizer
from agentft.rendering import open_rendering
from agentft.rendering.encoding import learn_rule
from agentft.rows.preparation import Encoder
from agentft.training.recipe import Recipe

__all__ = ["open_encoder"]


def open_encoder(recipe: Recipe) -> Encoder:
    """Load the model's tokenizer.

    Raises:
        MissingError: the tokenizer is not on this machine and cannot be downloaded.
        InputError: it already has a token of `add_tokens`.
        FrameError: the tokenizer's chat template cannot be used.
    """
    tokenizer, learn = load_tokenizer(recipe.model), learn_rule(recipe.learn, recipe.weights)
    if recipe.add_tokens:
        from agentft.training.starts import add_tokens  # imports transformers' models

        add_tokens(tokenizer, recipe.add_tokens)
    return Encoder(
        tokenizer=tokenizer,
        rendering=open_rendering(recipe.format, tokenizer, thinking=learn.thinking),
        learn=learn,
        max_length=recipe.max_length,
    )
