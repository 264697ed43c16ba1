"""Call formats: how tool definitions, calls and results are written as text.

A call format combines with any frame (chat template). To add one, write a module here and add a line to the table.
"""

from __future__ import annotations

from agentft.calls.format import CallFormat
from agentft.calls.hermes import HERMES
from agentft.calls.msagent import MSAGENT
from agentft.errors import InputError

__all__ = ["CALL_FORMATS", "CALL_MARKERS", "NATIVE", "CallFormat", "call_format"]

NATIVE = "native"
"""The name of the format that is a chat template's own: `agentft.rendering.native`."""
CALL_FORMATS: dict[str, CallFormat] = {"msagent": MSAGENT, "hermes": HERMES}
CALL_MARKERS = tuple(marker for fmt in CALL_FORMATS.values() for marker in fmt.call_markers)
"""What begins and ends a call in any of these formats."""


def call_format(name: str) -> CallFormat:
    """Look up a call format by name.

    Raises:
        InputError: there is no such format.
    """
    if name == NATIVE:
        raise InputError("native is the call format of a model's own chat template, and there is none here; use hermes")
    if name not in CALL_FORMATS:
        raise InputError(f"unknown call format {name!r}; known formats: {', '.join(CALL_FORMATS)}, {NATIVE}")
    return CALL_FORMATS[name]
