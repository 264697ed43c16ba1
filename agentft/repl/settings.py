"""`/set`: the settings that may change while a chat runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from rich.text import Text

from agentft.errors import InputError
from agentft.repl.gate import APPROVALS
from agentft.strict import nearest

if TYPE_CHECKING:
    from agentft.repl.loop import Repl

__all__ = ["change", "current"]

_LOWEST = {"max_new_tokens": 1, "temperature": 0, "top_p": 0, "top_k": 0, "max_steps": 1, "repetition_penalty": 0.01}
_HIGHEST = {"top_p": 1, "max_steps": 100, "max_new_tokens": 1_000_000}


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
        width = max(map(len, known))
        lines = [Text.assemble(f"  {name:<{width}}  ", (str(value), "cyan")) for name, value in known.items()]
        repl.view.show(Text("\n").join(lines))
        return
    if key not in known:
        raise InputError(f"there is no setting {key[:40]!r}; {nearest(key, [*known])}")
    value = _read(key, text, known[key])
    if key == "approve":
        session.gate.approve = value
        session.gate.always.clear()
    elif key == "max_steps":
        session.max_steps = value
    else:
        session.sampling = replace(session.sampling, **{key: value})
    repl.view.note(f"{key} = {value}", "dim")


def _read(key: str, text: str, now: Any) -> Any:
    if isinstance(now, str):
        if text not in APPROVALS:
            raise InputError(f"{key} is {text!r:.40}; use {', '.join(APPROVALS)}")
        return text
    try:
        value = type(now)(text)
    except ValueError:
        kind = "a whole number" if isinstance(now, int) else "a number"
        raise InputError(f"{key} is {text!r:.40}; use {kind}, such as {now}") from None
    low, high = _LOWEST.get(key, float("-inf")), _HIGHEST.get(key, float("inf"))
    if not low <= value <= high:
        most = f" and at most {high}" if key in _HIGHEST else ""
        raise InputError(f"{key} is {text}; it must be at least {low}{most}")
    return value
