"""The role and the text of a turn, and turns that have no more, as those of MS-Agent, Hermes and Qwen."""

from __future__ import annotations

from collections.abc import Mapping

from agentft.calls.thoughts import add_thought, begin_thought
from agentft.errors import RowError
from agentft.records.keys import read_reasoning
from agentft.records.tools import read_role
from agentft.types import Json, Role

__all__ = ["SYSTEM_ROLES", "read_text_turn", "role_of", "text_of"]

SYSTEM_ROLES = ("system", "developer")
"""The roles of the turn that instructs the model, and may list its tools."""


def role_of(turn: Mapping[str, Json]) -> Json:
    """The role, under `role` or `from`."""
    return turn.get("role", turn.get("from"))


def text_of(turn: Mapping[str, Json]) -> Json:
    """The text, under `content` or `value`."""
    return turn.get("content", turn.get("value"))


def read_text_turn(item: Json, roles: Mapping[str, Role]) -> tuple[Role, str]:
    """The role of a turn, and its text; that of an assistant begins with the thought beside it, if there is one.

    Raises:
        RowError: `turn-not-object`, `unknown-role` or `value-not-text`.
    """
    if not isinstance(item, dict):
        raise RowError("turn-not-object", f"a turn must be an object, not {item!r:.60}")
    role, text = read_role(role_of(item), roles), text_of(item)
    if not isinstance(text, str):
        raise RowError("value-not-text", f"the text of a turn must be text, not {text!r:.60}")
    thought = read_reasoning(item) if role == "assistant" else ""
    return role, add_thought(begin_thought(text, thought), thought) if role == "assistant" else text
