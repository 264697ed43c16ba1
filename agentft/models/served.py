"""Names of models behind endpoints: of the one that is asked for, and of the one that answers."""

from __future__ import annotations

import json
import re

__all__ = ["other_model", "served_name"]

_VERSION = re.compile(r"(?::[a-z]+|:\d+|-latest|-\d{4}(?:-?\d\d){0,2}|\.gguf)$")
"""What follows a name in that of a variant, an instance, a date or a file."""


def served_name(model: str, url: str, form: str) -> str:
    """The name of a served model in reports. `form`: the call format or rendering of its prompts, if written here."""
    return f"{model} at {url}, {f'prompts in {form}' if form else 'native tools'}"


def other_model(name: str, response: str | None) -> str:
    """The model that a response names, if it is not the one in `name` (see `served_name`) or a version of it."""
    try:
        said = str(json.loads(response or "")["model"] or "")
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    asked = name.rpartition(" at ")[0]
    return "" if not (said and asked) or _bare(said) == _bare(asked) else said


def _bare(model: str) -> str:
    return _VERSION.sub("", re.split(r"[/\\]", model)[-1].casefold())
