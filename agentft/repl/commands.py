"""The commands of a chat: `/help` lists them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from agentft.display.tools import tool_table
from agentft.errors import InputError

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
    if name in COMMANDS:
        return COMMANDS[name]
    near = difflib.get_close_matches(name, COMMANDS, 1)
    raise InputError(f"unknown command {name}; {f'did you mean {near[0]}?' if near else 'try /help'}")


def _help(repl: Repl, _: str) -> None:
    usages = {f"{name} {command.usage}".rstrip(): command.about for name, command in COMMANDS.items()}
    width = max(map(len, usages))
    lines = [Text.assemble("  ", (usage.ljust(width), "cyan"), "  ", about) for usage, about in usages.items()]
    keys = "  Esc or Ctrl-C stops an answer · Alt-Enter breaks the line · Ctrl-R searches the history · Ctrl-D leaves"
    repl.view.show(Text("\n").join([*lines, Text(keys, "dim")]))


def _tools(repl: Repl, _: str) -> None:
    repl.view.show(tool_table(repl.toolsets) if repl.toolsets else Text("no tools", "dim"))


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


def _save(repl: Repl, rest: str) -> None:
    if not rest:
        raise InputError("name a file: /save chats.jsonl")
    repl.save(Path(rest).expanduser())


def _undo(repl: Repl, _: str) -> None:
    if not repl.session.rounds:
        raise InputError("there is no round to undo")
    question = repl.session.rewind(len(repl.session.rounds))
    repl.view.note(f"undone, with what its calls changed: {question}", "dim")


COMMANDS: dict[str, Command] = {
    "/help": Command("", "list the commands", _help),
    "/tools": Command("", "list the tools with their arguments", _tools),
    "/show": Command("[N] [all]", "a call or thought in full (the last one)", _show),
    "/undo": Command("", "take the last round back, and what its calls changed", _undo),
    "/reset": Command("", "start a new conversation", _reset),
    "/save": Command("FILE", "append the conversation to a JSONL file of MS-Agent rows", _save),
    "/quit": Command("", "leave (or press Ctrl-D)", lambda repl, rest: None),  # noqa: ARG005  (the loop ends)
}

WORDS: dict[str, Callable[[Repl], list[str]]] = {}
"""What may follow a command, for completion."""
