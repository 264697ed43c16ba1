"""The commands of a chat: `/help` lists them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from agentft.errors import InputError
from agentft.repl import keeping, seeing, tooling
from agentft.repl.gate import fault_kinds

if TYPE_CHECKING:
    from agentft.repl.loop import Repl

__all__ = ["COMMANDS", "WORDS", "Command", "find_command"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command: what follows its name, what it does in a few words, and the function that gets the rest."""

    usage: str
    about: str
    run: Callable[[Repl, str], None]


def find_command(name: str) -> Command:
    """The command with this name.

    Raises:
        InputError: there is none.
    """
    name = _ELSEWHERE.get(name, name)
    if name in COMMANDS:
        return COMMANDS[name]
    near = difflib.get_close_matches(name, COMMANDS, 1)
    raise InputError(f"unknown command {name}; {f'did you mean {near[0]}?' if near else 'try /help'}")


def _help(repl: Repl, _: str) -> None:
    table = Table.grid(Column(no_wrap=True), padding=(0, 2, 0, 0))
    for name, command in COMMANDS.items():
        table.add_row(Text(f"{name} {command.usage}", "cyan"), Text(command.about))
    keys = "While it answers: Enter queues a line, !TEXT is sent after its next call\n"
    keys += "Esc, Ctrl-C stop it · Alt-Enter: new line · Ctrl-R: search · Tab: complete"
    repl.view.show(Padding(Group(table, Text(keys, "dim")), (0, 0, 0, 2)))


def _show(repl: Repl, rest: str) -> None:
    number, _, whole = rest.partition(" ")
    wanted = number or str(len(repl.view.items))
    if not wanted.isdecimal() or not repl.view.show_item(int(wanted), whole=whole == "all"):
        have = f"there are {len(repl.view.items)}" if repl.view.items else "there is none yet"
        raise InputError(f"/show takes the number of a call or thought; {have}")


def _reset(repl: Repl, _: str) -> None:
    repl.finish()
    repl.session.reset()
    repl.view.note("new conversation", "dim")


COMMANDS: dict[str, Command] = {
    "/tools": Command("[on|off] [NAME]", "list the tools, show one, switch one on or off", tooling.tools),
    "/call": Command("NAME {...}", "call a tool yourself; the model does not see it", tooling.call),
    "/state": Command("[PATH|all]", "changes to the tools' state; PATH: part of it; all", tooling.state),
    "/fault": Command("[KIND|off]", "make the next call fail, with status 503 by default", tooling.fault),
    "/show": Command("[N] [all]", "show call or thought N in full; the last: Ctrl-O", _show),
    "/prompt": Command("", "exactly what the model was sent for its last reply", seeing.prompt),
    "/raw": Command("", "exactly what the model replied", seeing.raw),
    "/mask": Command("", "the tokens that training would supervise", seeing.mask),
    "/logprobs": Command("", "how sure the model was of each token, and of its call", seeing.logprobs),
    "/why": Command("", "the alternatives at its first unsure token", seeing.why),
    "/compare": Command("", "the last answer beside the base model's", seeing.compare_with_base),
    "/undo": Command("", "undo the last round, and what its calls changed", keeping.undo),
    "/retry": Command("", "ask the last question again", keeping.retry),
    "/edit": Command("[N]", "edit question N and ask it again; the last by default", keeping.edit),
    "/rewind": Command("[N]", "list the rounds; go back to before round N", keeping.rewind),
    "/branch": Command("", "continue in a copy; this session stays as it is", keeping.branch),
    "/load": Command("[N|NAME|ID]", "list the stored sessions; continue one", keeping.load),
    "/reset": Command("", "start a new conversation", _reset),
    "/good": Command("[FILE] [openai]", "keep the conversation as a training row", keeping.good),
    "/save": Command("NAME", "name the session, for /load and --resume", keeping.save),
    "/fix": Command("[NAME {...}]", "correct the last call; answer TEXT: the last answer", keeping.fix),
    "/case": Command("FOLDER", "add the conversation to an evaluation suite as a case", keeping.case),
    "/export": Command("FILE", "write the conversation as OpenAI messages", keeping.export),
    "/set": Command("[KEY VALUE]", "show the settings of sampling and approval; change one", tooling.change),
    "/help": Command("", "show this help", _help),
    "/quit": Command("", "leave; so does Ctrl-D", lambda repl, rest: None),  # noqa: ARG005  (the loop ends)
}

_ELSEWHERE = {"/resume": "/load", "/continue": "/load", "/clear": "/reset", "/new": "/reset", "/fork": "/branch"}
"""Names of other terminals' commands."""

WORDS: dict[str, Callable[[Repl], list[str]]] = {
    "/set": lambda repl: [*tooling.current(repl)],
    "/state": lambda repl: ["all", *(toolset.name for toolset in repl.toolsets)],
    "/fault": lambda _: [*fault_kinds(), "off"],
    "/load": lambda repl: [one.name for one in repl.store.newest(99) if one.name] if repl.store else [],
    "/save": lambda _: [],
}
"""What may follow a command, for completion."""
