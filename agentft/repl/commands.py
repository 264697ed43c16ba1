"""The commands of a chat: `/help` lists them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    if name in COMMANDS:
        return COMMANDS[name]
    near = difflib.get_close_matches(name, COMMANDS, 1)
    raise InputError(f"unknown command {name}; {f'did you mean {near[0]}?' if near else 'try /help'}")


def _help(repl: Repl, _: str) -> None:
    usages = {f"{name} {command.usage}".rstrip(): command.about for name, command in COMMANDS.items()}
    width = max(map(len, usages))
    lines = [Text.assemble("  ", (usage.ljust(width), "cyan"), "  ", about) for usage, about in usages.items()]
    keys = "  While the model answers: Enter queues; !TEXT reaches it after its next call\n"
    keys += "  Esc, Ctrl-C stop an answer · Alt-Enter breaks the line · Ctrl-R searches"
    repl.view.show(Text("\n").join([*lines, Text(keys, "dim")]))


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
    "/help": Command("", "list the commands", _help),
    "/tools": Command("[on|off NAME]", "list the tools, show one, switch one on or off", tooling.tools),
    "/call": Command("NAME {...}", "call a tool yourself; the model does not see it", tooling.call),
    "/state": Command("[all]", "what the calls changed in the tools' state; all: the state", tooling.state),
    "/fault": Command("[KIND|off]", "let the next call fail (503)", tooling.fault),
    "/show": Command("[N] [all]", "a call or thought in full (the last one)", _show),
    "/prompt": Command("", "exactly what the model got last", seeing.prompt),
    "/raw": Command("", "exactly what the model wrote last", seeing.raw),
    "/mask": Command("", "the tokens, and which of them training would supervise", seeing.mask),
    "/logprobs": Command("", "how sure the model was, token by token, and of its call", seeing.logprobs),
    "/why": Command("", "what else it may have written at its first unsure token", seeing.why),
    "/compare": Command("", "the last question by the tuned model and by its base", seeing.compare_with_base),
    "/undo": Command("", "take the last round back, and what its calls changed", keeping.undo),
    "/retry": Command("", "answer the last question again", keeping.retry),
    "/edit": Command("[N]", "edit question N (the last one) and go on from there", keeping.edit),
    "/rewind": Command("[N]", "list the rounds; go back to before round N", keeping.rewind),
    "/branch": Command("", "go on in a copy of this session", keeping.branch),
    "/load": Command("[N|ID]", "list the stored sessions; go on with one", keeping.load),
    "/good": Command("[FILE]", "keep the conversation as a training row (msagent or openai)", keeping.good),
    "/fix": Command("[NAME {...}]", "correct the last call, run it, go on; /fix answer TEXT", keeping.fix),
    "/case": Command("FOLDER", "append the conversation to a suite as a case", keeping.case),
    "/export": Command("FILE", "the conversation as messages of the OpenAI API", keeping.export),
    "/set": Command("[KEY VALUE]", "show or change the settings of sampling and approval", tooling.change),
    "/reset": Command("", "start a new conversation", _reset),
    "/save": Command("FILE", "the same as /good", keeping.good),
    "/quit": Command("", "leave (or press Ctrl-D)", lambda repl, rest: None),  # noqa: ARG005  (the loop ends)
}

WORDS: dict[str, Callable[[Repl], list[str]]] = {
    "/set": lambda repl: [*tooling.current(repl)],
    "/fault": lambda _: [*fault_kinds(), "off"],
}
"""What may follow a command, for completion."""
