"""`/compare`: the last question, answered by the tuned model and by its base, side by side."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from agentft.display.blocks import markdown
from agentft.display.chat import call_line
from agentft.display.safe import safe_name
from agentft.errors import InputError
from agentft.repl.gate import CallGate
from agentft.repl.session import Session
from agentft.types import Step, Text

if TYPE_CHECKING:
    from agentft.repl.loop import Repl

__all__ = ["compare_with_base"]


def compare_with_base(repl: Repl, _: str) -> None:
    """Ask the base model the last question, in the state in which the tools were; the chat stays as it is."""
    session = repl.session
    if repl.open_base is None or not session.rounds:
        why = "nothing was asked yet" if repl.open_base else "/compare needs a tuned model: start with --adapter"
        raise InputError(why)
    repl.view.doing("loading the base model")
    repl.base = repl.base or repl.open_base()
    last, gate = (
        session.rounds[-1],
        CallGate(session.gate.inner, off=session.gate.off, cancelled=session.gate.cancelled),
    )
    other = Session(repl.base, gate, session.sampling, session.tools, session.persona, session.worlds)
    turns = session.conversation.turns[: last.at]
    other.conversation = replace(session.conversation, id=f"{session.conversation.id}-base", turns=turns)
    if session.worlds is not None:
        session.worlds.restore(other.conversation.id, last.states)
    repl.view.doing("the base model answers")
    steps = [*other.ask(last.question, lambda: nullcontext(lambda *_: None))]
    repl.view.doing("")
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True)
    for name in (session.model.name, f"{repl.base.name} (base)"):
        table.add_column(safe_name(name, "bold cyan"), ratio=1)
    table.add_row(_column(last.steps), _column(steps))
    repl.view.show(table)


def _column(steps: list[Step]) -> Group:
    """The calls, each with its status, and the text of the last step."""
    calls = [call_line(one, at, 0, 200) for at, one in enumerate((e for step in steps for e in step.exchanges), 1)]
    texts = [part.text for step in steps[-1:] for part in step.parts if isinstance(part, Text) and not part.thought]
    return Group(*calls, markdown("".join(texts)))
