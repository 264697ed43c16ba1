"""Commands about tools: which are on, calls by hand, the worlds' states, faults."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text

from agentft.display.safe import safe_name, safe_text
from agentft.display.tools import tool_table
from agentft.errors import InputError
from agentft.repl.arguments import read_arguments
from agentft.repl.changes import changes
from agentft.repl.gate import fault_kinds
from agentft.strict import nearest
from agentft.types import Span, ToolCall, ToolDefinition

if TYPE_CHECKING:
    from agentft.repl.loop import Repl

__all__ = ["call", "fault", "find_tool", "state", "tools"]


def tools(repl: Repl, rest: str) -> None:
    """`/tools`: list them; `/tools NAME`: one with its schema; `/tools off NAME`: the model does not get it."""
    word, _, name = rest.partition(" ")
    if not rest:
        repl.view.show(tool_table(repl.toolsets) if repl.toolsets else Text("no tools", "dim"))
        if off := sorted(repl.session.gate.off):
            repl.view.note(f"off: {', '.join(off)}", "dim")
        return
    if word not in {"on", "off"}:
        tool = find_tool(repl, rest)
        schema = json.dumps(dict(tool.parameters), ensure_ascii=False, indent=2)
        repl.view.show(
            Text("\n").join([safe_name(tool.name, "bold cyan"), safe_text(tool.description), safe_text(schema)])
        )
        return
    session, tool = repl.session, find_tool(repl, name.strip())
    if word == "off":
        session.gate.off.add(tool.name)
    else:
        session.gate.off.discard(tool.name)
    session.conversation = replace(session.conversation, tools=session.offered)
    repl.view.note(f"{tool.name} is {word}; the model has {len(session.offered)} of {len(session.tools)} tools", "dim")


def call(repl: Repl, rest: str) -> None:
    """`/call NAME {...}`: send a call to the worlds of this chat."""
    name, _, arguments = rest.partition(" ")
    tool = find_tool(repl, name)
    session = repl.session
    made = ToolCall(
        "call_0", tool.name, read_arguments(arguments or "{}"), Span(0, 0), endpoint=next(iter(tool.endpoints), None)
    )
    before = session.gate.approve
    session.gate.approve = "never"  # the person makes the call
    session.gate.cancelled.clear()
    try:
        session.gate.call(made, session.conversation.id)
    finally:
        session.gate.approve = before
        repl.view.doing("")


def state(repl: Repl, rest: str) -> None:
    """`/state`: the values that differ from those at the start; `/state all`: the states of the worlds."""
    session = repl.session
    if session.worlds is None:
        raise InputError("these tools keep their state elsewhere")
    initial, now = session.worlds.initial(), session.worlds.snapshot(session.conversation.id)
    if rest == "all":
        repl.view.show(safe_text(json.dumps({**initial, **now}, ensure_ascii=False, indent=2)))
        return
    found = list(changes({world: initial[world] for world in now}, now))
    repl.view.show(safe_text("\n".join(found)) if found else Text("nothing has changed", "dim"))


def fault(repl: Repl, rest: str) -> None:
    """`/fault [KIND]`: the next call fails without being sent."""
    kind = rest or "503"
    if kind != "off" and kind not in (kinds := fault_kinds()):
        raise InputError(f"there is no fault {kind[:40]!r}; {nearest(kind, kinds)}")
    repl.session.gate.fault = "" if kind == "off" else kind
    repl.view.note("no fault" if kind == "off" else f"the next call fails with {kind}", "dim")


def find_tool(repl: Repl, name: str) -> ToolDefinition:
    """The tool with this name.

    Raises:
        InputError: there is none.
    """
    known = {tool.name: tool for toolset in repl.toolsets for tool in toolset.definitions}
    if name not in known:
        raise InputError(
            f"there is no tool {name[:60]!r}; {nearest(name, [*known])}" if known else "there are no tools"
        )
    return known[name]
