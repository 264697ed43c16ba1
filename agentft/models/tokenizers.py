"""Loading tokenizers, and how the model libraries' failures become one clear line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from agentft.errors import InputError, MissingError
from agentft.models.embedded import resolve

__all__ = ["load_tokenizer", "located"]


def load_tokenizer(model: str) -> Any:
    """The fast tokenizer of a folder, a hub id or an embedded model (pulled on first use).

    Raises:
        MissingError: it is not here and cannot be fetched.
        InputError: there is only a slow one, which cannot tell where in the text its tokens lie.
    """
    # The libraries' bars and remarks stay off the user's terminal.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for library in ("bitsandbytes", "accelerate"):
        logging.getLogger(library).setLevel(logging.ERROR)
    tokenizer = located(model, AutoTokenizer.from_pretrained, resolve(model))
    if not tokenizer.is_fast:
        raise InputError(f"{model} has no tokenizer.json (a fast tokenizer); convert its tokenizer first")
    return tokenizer


def located(model: str, load: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a `from_pretrained`, saying of a failure what the user can do.

    Raises:
        MissingError: the model is not here and cannot be fetched.
    """
    try:
        return load(*arguments, **options)
    except (OSError, ValueError) as error:
        line = str(error).strip().split("\n")[0]
        raise MissingError(
            f"the model {model!r} cannot be loaded ({line}); give a folder that holds one, a hub id that can be "
            "reached from here, or the embedded smollm2-135m"
        ) from error
