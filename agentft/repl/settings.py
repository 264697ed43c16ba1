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

_BOUNDS: dict[str, tuple[float, float]] = {
    "max_new_tokens": (1, 1_000_000),
    "temperature": (0, 100),
    "top_p": (0, 1),
    "top_k": (0, 1_000_000),
}
_BOUNDS |= {"max_steps": (1, 100), "repetition_penalty": (0.01, 100), "seed": (0, 2**53)}


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
    if key == "approve":
        if text not in APPROVALS:
            raise InputError(f"{key} is {text!r:.40}; use {', '.join(APPROVALS)}")
        return text
    low, high = _BOUNDS[key]
    try:
        value = type(now)(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        kind = "whole number" if isinstance(now, int) else "number"
        raise InputError(f"{key} is {text!r:.40}; use a {kind} from {low:g} to {high:g}")
    return value
