"""Commands that show what the model got and wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from agentft.display.safe import safe_text
from agentft.errors import InputError
from agentft.models import InspectableModel
from agentft.models.messages import declare, write_messages
from agentft.types import Conversation, Turn

if TYPE_CHECKING:
    from agentft.repl.loop import Repl

__all__ = ["last_reply", "prompt", "raw"]


def prompt(repl: Repl, _: str) -> None:
    """`/prompt`: what the model got for its last reply."""
    before, _turn = last_reply(repl)
    model = repl.session.model
    if isinstance(model, InspectableModel):
        repl.view.show(safe_text(model.prompt(before)))
    else:
        document = {"messages": write_messages(before), "tools": declare(before.tools)}
        repl.view.show(safe_text(json.dumps(document, ensure_ascii=False, indent=2)))


def raw(repl: Repl, _: str) -> None:
    """`/raw`: the last reply as the model wrote it, or as the endpoint sent it."""
    turn = last_reply(repl)[1]
    step = next((step for one in repl.session.rounds[-1:] for step in one.steps[-1:]), None)
    repl.view.show(safe_text((step and (step.raw if step.raw is not None else step.response)) or turn.raw))


def last_reply(repl: Repl) -> tuple[Conversation, Turn]:
    """The conversation before the last reply, and the reply.

    Raises:
        InputError: there is none.
    """
    turns = repl.session.conversation.turns
    place = max((index for index, turn in enumerate(turns) if turn.role == "assistant"), default=None)
    if place is None:
        raise InputError("the model has not replied yet")
    return replace(repl.session.conversation, turns=turns[:place]), turns[place]
