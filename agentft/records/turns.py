"""Turns that are one text under one role, as the rows of MS-Agent, Hermes and Qwen have them."""

from __future__ import annotations

from collections.abc import Mapping

from agentft.calls.thoughts import add_thought, begin_thought
from agentft.errors import RowError
from agentft.records.keys import read_reasoning, role_of, text_of
from agentft.records.tools import read_role
from agentft.types import Json, Role

__all__ = ["read_text_turn"]


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
    return role, add_thought(begin_thought(text), read_reasoning(item)) if role == "assistant" else text
