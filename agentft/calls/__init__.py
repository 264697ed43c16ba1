"""Call formats: how tool definitions, calls and results are written as text.

A call format combines with any frame (chat template). To add one, write a module here and add a line to the table.
"""

from __future__ import annotations

from agentft.calls.format import CallFormat
from agentft.calls.hermes import HERMES
from agentft.calls.msagent import MSAGENT
from agentft.errors import InputError

__all__ = ["CALL_FORMATS", "CallFormat", "call_format"]

CALL_FORMATS: dict[str, CallFormat] = {"msagent": MSAGENT, "hermes": HERMES}


def call_format(name: str) -> CallFormat:
    """Look up a call format by name.

    Raises:
        InputError: there is no such format.
    """
    if name not in CALL_FORMATS:
        raise InputError(f"unknown call format {name!r}; known formats: {', '.join(CALL_FORMATS)}")
    return CALL_FORMATS[name]
