"""Files of the base model that an export keeps as they are, since transformers 5 omits or rewrites them."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

from transformers.utils import cached_file

from agentft.errors import AgentftError
from agentft.files import read_object, write_text
from agentft.models.embedded import resolve

__all__ = ["keep_originals"]

_ALWAYS = ("tokenizer.model", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""llama.cpp's converter and servers of models that see need these; transformers saves none of them here."""
_OF_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
"""transformers 4, which servers use, does not read tokenizer_config.json as transformers 5 writes it."""
_ROPE = ("rope_theta", "rope_scaling", "rope_local_base_freq")
"""transformers 4 takes its default for a `rope_theta` that is only in `rope_parameters`."""


def keep_originals(model: str, target: Path, *, added: bool) -> None:
    """Copy the files of the base `model` that are right for the export in `target`, as far as they are on this machine.

    `added`: the run added tokens, so that the files of the tokenizer are its own.
    """
    for name in (*_ALWAYS, *(() if added else _OF_TOKENIZER)):
        if source := _find(model, name):
            shutil.copyfile(source, target / name)
    settings = read_object(target / "tokenizer_config.json")
    if settings.pop("chat_template", None):  # that of the base; the run's is in chat_template.jinja
        write_text(target / "tokenizer_config.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    path = target / "config.json"
    base = read_object(Path(_find(model, path.name) or path)) if path.is_file() else {}
    if rope := {key: base[key] for key in _ROPE if key in base}:
        write_text(path, json.dumps({**read_object(path), **rope}, indent=2) + "\n")


def _find(model: str, name: str) -> str | None:
    """The base's file; None if it has none, or is neither here nor within reach."""
    with suppress(OSError, AgentftError):
        found: str | None = cached_file(resolve(model), name, _raise_exceptions_for_missing_entries=False)
        return found
    return None
