"""Commands that show what the model got and wrote, and what its base would have written."""

from __future__ import annotations

import json
import math
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agentft.display.blocks import markdown
from agentft.display.chat import call_line
from agentft.display.safe import safe_name, safe_text
from agentft.errors import InputError
from agentft.models import InspectableModel, TokenScore
from agentft.models.messages import declare, write_messages
from agentft.records import parse_row
from agentft.repl.gate import CallGate
from agentft.repl.saving import msagent_row, replace_row
from agentft.repl.session import Session
from agentft.types import Conversation, Step, ToolCall, Turn
from agentft.types import Text as Spoken

if TYPE_CHECKING:
    from agentft.repl.loop import Repl

__all__ = ["compare_with_base", "last_reply", "logprobs", "mask", "prompt", "raw", "why"]

SURE = 0.9
LISTED = 8  # of the least probable tokens


def prompt(repl: Repl, _: str) -> None:
    """`/prompt`: what the model got for its last reply."""
    before, _turn = last_reply(repl)
    write = getattr(repl.session.model, "prompt", None)  # not of an endpoint that renders its messages itself
    if write is not None:
        repl.view.show(safe_text(write(before)))
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


def logprobs(repl: Repl, _: str) -> None:
    """`/logprobs`: the last reply with its uncertain tokens, and how probable each of its calls was."""
    scores, turn = _scored(repl)
    body = Text()
    for one in scores:
        style = "green" if one.probability >= SURE else "yellow" if one.probability >= 0.5 else "bold red"
        body.append_text(safe_text(one.text, style))
    unsure = sorted((one for one in scores if one.probability < SURE), key=lambda one: one.probability)
    lines = [body, Text(f"tokens at least {SURE:.0%} sure: {len(scores) - len(unsure)} of {len(scores)}", "dim")]
    lines += [_chance(one.text, one.probability) for one in unsure[:LISTED]]
    starts = [*accumulate((len(one.text) for one in scores), initial=0)]
    for part in turn.parts:
        if isinstance(part, ToolCall):
            pairs = zip(scores, starts, strict=False)
            inside = [one.probability for one, at in pairs if part.span.start <= at < part.span.end]
            lines.append(Text.assemble("the call ", safe_name(part.name, "bold"), f": {math.prod(inside):.1%}"))
    repl.view.show(Text("\n").join(lines))


def why(repl: Repl, _: str) -> None:
    """`/why`: what else the model may have written at its first uncertain token."""
    scores, _turn = _scored(repl)
    place = next((at for at, one in enumerate(scores) if one.probability < SURE), None)
    if place is None:
        repl.view.note(f"every token was at least {SURE:.0%} sure", "dim")
        return
    before = "".join(one.text for one in scores[:place])
    lines = [safe_text(f"…{before[-200:]}" if len(before) > 200 else before, "dim")] if before else []
    lines += [_chance(text, chance) for text, chance in scores[place].others]
    if scores[place].text not in {text for text, _ in scores[place].others}:
        lines.append(_chance(scores[place].text, scores[place].probability))
    repl.view.show(Text("\n").join(lines))


def mask(repl: Repl, _: str) -> None:
    """`/mask`: the conversation as a training row, with the tokens that training would supervise."""
    model = repl.tokenizer_of
    if not model or not repl.session.rounds:
        raise InputError("there is no conversation yet" if model else "/mask needs a tokenizer: --tokenizer MODEL")
    from agentft.display.data import mask_view
    from agentft.rows.mask import mask_rows
    from agentft.training.encoder import open_encoder
    from agentft.training.recipe import read_settings

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chat.jsonl"
        kept = msagent_row(repl.session.conversation)
        parse_row(kept, "")
        replace_row(path, kept)
        options = {"model": model, "format": repl.session.model.source, "data": [str(path)]}
        repl.view.doing("loading the tokenizer")
        encoder = open_encoder(read_settings([], options))
        repl.view.doing("")
        plain = repl.view.console.no_color or not repl.view.console.color_system
        for row in mask_rows(path, encoder, 1):
            repl.view.show(mask_view(row, plain=plain))


def compare_with_base(repl: Repl, _: str) -> None:
    """Ask the base model the last question, in the state in which the tools were; the chat stays as it is."""
    session = repl.session
    if repl.open_base is None or not session.rounds:
        raise InputError("nothing was asked yet" if repl.open_base else "/compare needs a tuned model: --adapter RUN")
    repl.view.doing("loading the base model")
    repl.base = repl.base or repl.open_base()
    last = session.rounds[-1]
    gate = CallGate(session.gate.inner, off=session.gate.off, cancelled=session.gate.cancelled)
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


def _scored(repl: Repl) -> tuple[list[TokenScore], Turn]:
    before, turn = last_reply(repl)
    model = repl.session.model
    scores = model.explain(before, turn.raw) if isinstance(model, InspectableModel) else []
    if not scores:
        raise InputError(f"{model.name} does not show the probabilities of its tokens")
    return scores, turn


def _chance(text: str, probability: float) -> Text:
    return Text.assemble((f"{probability:>7.1%}  ", "cyan"), safe_name(text))


def _column(steps: list[Step]) -> Group:
    """The calls, each with its status, and the text of the last step."""
    calls = [call_line(one, at, None, 200) for at, one in enumerate((e for step in steps for e in step.exchanges), 1)]
    texts = [part.text for step in steps[-1:] for part in step.parts if isinstance(part, Spoken) and not part.thought]
    return Group(*calls, markdown("".join(texts)))
