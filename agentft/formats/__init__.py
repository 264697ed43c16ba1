"""Call formats: how tools, calls and results are written inside a conversation's text.

A call format combines with any frame (chat template). To add one: a module here and a line in the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentft.errors import InputError
from agentft.formats.hermes import HERMES
from agentft.formats.msagent import MSAGENT
from agentft.formats.pieces import Piece
from agentft.types import Part, ToolDefinition, ToolResult

__all__ = ["CALL_FORMATS", "CallFormat", "call_format"]


class CallFormat(Protocol):
    """The grammar of one call format."""

    @property
    def name(self) -> str:
        """The name that users give and that is stored with an adapter."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings at which serving stops sampling inside a turn (empty: only the frame's stop token)."""
        ...

    @property
    def inline_results(self) -> bool:
        """True: results stand inside the assistant's message; False: in a message of their own."""
        ...

    def write_system(self, persona: str, tools: Sequence[ToolDefinition]) -> str:
        """The system message that declares `tools`."""
        ...

    def write_run(self, parts: Sequence[Part]) -> list[Piece]:
        """Text and calls of one run in their canonical form, cut where the weight may change."""
        ...

    def read_run(self, parts: Sequence[Part], raw: str) -> list[Piece]:
        """The same for a run that `raw` holds in this format already: kept as it stands."""
        ...

    def write_parts(self, parts: Sequence[Part]) -> str:
        """Text and calls (and, with `inline_results`, results) in their canonical form, as one text."""
        ...

    def write_results(self, results: Sequence[ToolResult]) -> str:
        """The injected text that gives results back after a run that called."""
        ...

    def parse(self, text: str) -> tuple[Part, ...]:
        """What the model said, as parts whose spans tile `text`. Never raises: bad calls carry `parse_error`."""
        ...


CALL_FORMATS: dict[str, CallFormat] = {"msagent": MSAGENT, "hermes": HERMES}


def call_format(name: str) -> CallFormat:
    """The call format of that name.

    Raises:
        InputError: no such format.
    """
    try:
        return CALL_FORMATS[name]
    except KeyError:
        known = ", ".join(CALL_FORMATS)
        raise InputError(f"call format {name!r} is not known; the formats are: {known}") from None
