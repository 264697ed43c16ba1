"""Commands about tools and settings: which are on, calls by hand, the worlds' states, faults, sampling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from rich.text import Text

from agentft.display.safe import safe_name, safe_text
from agentft.display.tools import tool_list
from agentft.errors import InputError
from agentft.json_text import UnreadableError, parse_json
from agentft.repl.gate import APPROVALS, fault_kinds
from agentft.strict import nearest
from agentft.types import Json, Span, ToolCall, ToolDefinition

if TYPE_CHECKING:
    from agentft.repl.loop import Repl

__all__ = ["call", "change", "changes", "current", "fault", "read_arguments", "read_call", "state", "tools"]

_WIDEST = 60  # characters of a value


def tools(repl: Repl, rest: str) -> None:
    """`/tools`: list them; `/tools NAME`: one with its schema; `/tools off NAME`: the model does not get it."""
    word, _, name = rest.partition(" ")
    if not rest:
        repl.view.show(tool_list(repl.toolsets, repl.session.gate.off) if repl.toolsets else Text("no tools", "dim"))
        return
    if word not in {"on", "off"}:
        tool = _find_tool(repl, rest)
        schema = json.dumps(dict(tool.parameters), ensure_ascii=False, indent=2)
        shown = [safe_name(tool.name, "bold cyan"), safe_text(tool.description), safe_text(schema)]
        repl.view.show(Text("\n").join(shown))
        return
    session, tool = repl.session, _find_tool(repl, name.strip())
    (session.gate.off.add if word == "off" else session.gate.off.discard)(tool.name)
    session.conversation = replace(session.conversation, tools=session.offered)
    repl.view.note(f"{tool.name} is {word}; tools on: {len(session.offered)} of {len(session.tools)}", "dim")


def call(repl: Repl, rest: str) -> None:
    """`/call NAME {...}`: send a call to the worlds of this chat."""
    made, session = read_call(repl, rest, "call_0"), repl.session
    before = session.gate.approve
    session.gate.approve = "never"  # the person makes the call
    session.gate.cancelled.clear()
    try:
        session.gate.call(made, session.conversation.id)
    finally:
        session.gate.approve = before
        repl.view.doing("")


def state(repl: Repl, rest: str) -> None:
    """`/state`: the values that differ from those at the start; `/state PATH`: this part of the worlds' states."""
    session = repl.session
    if session.worlds is None:
        raise InputError("these tools keep their state elsewhere")
    initial, now = session.worlds.initial(), session.worlds.snapshot(session.conversation.id)
    if rest:
        shown: Any = {**initial, **now}
        try:
            for key in rest.split(".") if rest != "all" else ():
                shown = shown[int(key) if isinstance(shown, list) else key]
        except (LookupError, TypeError, ValueError):
            raise InputError(f"the state has no {rest[:60]!r}; name a path, such as {next(iter(initial))}") from None
        repl.view.show(safe_text(json.dumps(shown, ensure_ascii=False, indent=2)))
        return
    changed = list(changes({world: initial[world] for world in now}, now))
    repl.view.show(safe_text("\n".join(changed)) if changed else Text("nothing has changed", "dim"))


def fault(repl: Repl, rest: str) -> None:
    """`/fault [KIND]`: the next call fails without being sent."""
    kind = rest or "503"
    if kind != "off" and kind not in (kinds := fault_kinds()):
        raise InputError(f"there is no fault {kind[:40]!r}; {nearest(kind, kinds)}")
    repl.session.gate.fault = "" if kind == "off" else kind
    repl.view.note("no fault" if kind == "off" else f"the next call fails with {kind}", "dim")


def read_call(repl: Repl, text: str, identity: str) -> ToolCall:
    """A call that was written as `NAME {...}`."""
    name, _, arguments = text.partition(" ")
    tool = _find_tool(repl, name)
    endpoint = next(iter(tool.endpoints), None)
    return ToolCall(identity, tool.name, read_arguments(arguments or "{}"), Span(0, 0), endpoint=endpoint)


def _find_tool(repl: Repl, name: str) -> ToolDefinition:
    """The tool with this name.

    Raises:
        InputError: there is none.
    """
    known = {tool.name: tool for toolset in repl.toolsets for tool in toolset.definitions}
    if name not in known:
        wrong = f"there is no tool {name[:60]!r}" if name else "name a tool"
        raise InputError(f"{wrong}; {nearest(name, [*known]) if known else 'this chat has none'}")
    return known[name]


def read_arguments(text: str) -> dict[str, Json]:
    """The arguments of a call, written as a JSON object.

    Raises:
        InputError: it is none.
    """
    try:
        found = parse_json(text, unique_keys=True)
    except UnreadableError as error:
        raise InputError(f"the arguments cannot be read: {error}; write a JSON object") from None
    if not isinstance(found, dict):
        raise InputError(f'the arguments are {text[:60]}; write a JSON object, such as {{"city": "Oslo"}}')
    return found


def changes(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """`bank.cards.C-1.frozen: false → true`, `+ path: value` for what is new, `- path: value` for what is gone."""
    pairs: list[tuple[str, Any, Any]]
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = [(str(key), before.get(key, _ABSENT), after.get(key, _ABSENT)) for key in {**before, **after}]
    elif isinstance(before, list) and isinstance(after, list):
        pairs = [(str(at), *both) for at, both in enumerate(zip_longest(before, after, fillvalue=_ABSENT))]
    else:
        if before != after:
            yield f"{path}: {_short(before)} → {_short(after)}"
        return
    for key, old, new in pairs:
        place = f"{path}.{key}" if path else key
        if old is _ABSENT:
            yield f"+ {place}: {_short(new)}"
        elif new is _ABSENT:
            yield f"- {place}: {_short(old)}"
        elif old is not new:
            yield from changes(old, new, place)


_ABSENT = object()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


_BOUNDS: dict[str, tuple[float, float]] = {"max_new_tokens": (1, 1_000_000), "temperature": (0, 100), "top_p": (0, 1)}
_BOUNDS |= {"top_k": (0, 1_000_000), "max_steps": (1, 100), "repetition_penalty": (0.01, 100), "seed": (0, 2**53)}


def current(repl: Repl) -> dict[str, Any]:
    """The settings by name."""
    session = repl.session
    return {**asdict(session.sampling), "max_steps": session.max_steps, "approve": session.gate.approve}


def change(repl: Repl, rest: str) -> None:
    """`/set KEY VALUE`; without a key, show all; `KEY=VALUE` is fine, too."""
    known, session = current(repl), repl.session
    key, _, text = rest.replace("=", " ", 1).partition(" ")
    key, text = key.replace("-", "_"), text.strip()
    if not key:
        repl.view.show(Text("\n".join(f"  {name:<20}{value}" for name, value in known.items())))
        return
    if key not in known:
        raise InputError(f"there is no setting {key[:40]!r}; {nearest(key, [*known])}")
    value = _setting(key, text, known[key])
    if key == "approve":
        session.gate.approve = value
        session.gate.always.clear()
    elif key == "max_steps":
        session.max_steps = value
    else:
        session.sampling = replace(session.sampling, **{key: value})
    repl.view.note(f"{key} = {value}", "dim")


def _setting(key: str, text: str, now: Any) -> Any:
    if key == "approve":
        if text not in APPROVALS:
            raise InputError(f"{key} is {text!r:.40}; use {', '.join(APPROVALS)}")
        return text
    low, high = _BOUNDS[key]
    value = None
    with suppress(ValueError):
        value = type(now)(text)
    if value is None or not low <= value <= high:
        kind = "whole number" if isinstance(now, int) else "number"
        raise InputError(f"{key} is {text!r:.40}; use a {kind} from {low:g} to {high:,.16g}")
    return value
