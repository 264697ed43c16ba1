"""Loads tokenizers, and converts failures of the model libraries to clear errors."""

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
    """Load the fast tokenizer of a folder, a hub id or an embedded model (pulled on first use).

    Raises:
        MissingError: it is not on this machine and cannot be downloaded.
        InputError: there is only a slow tokenizer, which has no character offsets.
    """
    # Keep the libraries' progress bars and warnings off the user's terminal.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for library in ("bitsandbytes", "accelerate"):
        logging.getLogger(library).setLevel(logging.ERROR)
    tokenizer = located(model, AutoTokenizer.from_pretrained, resolve(model))
    if not tokenizer.is_fast:
        raise InputError(f"{model} has no tokenizer.json (a fast tokenizer); convert its tokenizer first")
    return tokenizer


def located(model: str, load: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a `from_pretrained`; if it fails, tell the user what to do.

    Raises:
        MissingError: the model is not on this machine and cannot be downloaded.
    """
    try:
        return load(*arguments, **options)
    except (OSError, ValueError) as error:
        line = str(error).strip().split("\n")[0]
        raise MissingError(
            f"the model {model!r} cannot be loaded ({line}); give a model's folder, a hub id (if this machine can "
            "reach the hub), or the embedded smollm2-135m"
        ) from error
