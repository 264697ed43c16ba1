"""Reading a trajectory by user turns: calls that could be read, attempts that could not, the final answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agentft.types import Case, Exchange, Step, Text, ToolCall, Trajectory

__all__ = [
    "all_calls",
    "attempted",
    "exchanges",
    "expects_calls",
    "final_text",
    "looks_like_call",
    "turn_calls",
    "turn_steps",
]

_MARKER = re.compile(r"<\|?/?(?:tool_call|tool_calls|startofthink|endofthink|function_call|function)\b", re.IGNORECASE)
_NAME = r"""["'](?:api_name|name|function|tool|tool_name|action)["']\s*:"""
_ARGUMENTS = r"""["'](?:parameters|arguments|args|action_input)["']\s*:"""
_OBJECT = re.compile(rf"{_NAME}.{{0,400}}?{_ARGUMENTS}|{_ARGUMENTS}.{{0,400}}?{_NAME}", re.DOTALL)


def expects_calls(case: Case) -> bool:
    """Whether any turn of the case expects a call."""
    return any(turn.calls for turn in case.turns)


def turn_steps(trajectory: Trajectory, turn: int) -> list[Step]:
    """The steps that followed user turn `turn`."""
    return [step for step in trajectory.steps if step.turn == turn]


def turn_calls(trajectory: Trajectory, turn: int) -> list[ToolCall]:
    """All calls of a user turn, readable or not, in order."""
    return list(_calls(turn_steps(trajectory, turn)))


def all_calls(trajectory: Trajectory) -> list[ToolCall]:
    """All calls of the trajectory, readable or not, in order."""
    return list(_calls(trajectory.steps))


def exchanges(trajectory: Trajectory, turn: int) -> list[Exchange]:
    """What went over the wire in a user turn, in order."""
    return [exchange for step in turn_steps(trajectory, turn) for exchange in step.exchanges]


def attempted(trajectory: Trajectory, turn: int) -> bool:
    """Whether the model called, or tried to: an unreadable call is an attempt, and so is one in a broken wrapper."""
    return any(
        any(isinstance(part, ToolCall) for part in step.parts) or looks_like_call(step.completion)
        for step in turn_steps(trajectory, turn)
    )


def final_text(trajectory: Trajectory, turn: int) -> str:
    """What the user is told at the end of a turn: the text of its last step, if that one did not call; no thoughts."""
    steps = turn_steps(trajectory, turn)
    if not steps or any(isinstance(part, ToolCall) for part in steps[-1].parts):
        return ""
    return "".join(part.text for part in steps[-1].parts if isinstance(part, Text) and not part.thought).strip()


def looks_like_call(text: str) -> bool:
    """Whether text that no reader took for a call was meant as one: markers, or a name beside arguments."""
    return bool(_MARKER.search(text) or _OBJECT.search(text))


def _calls(steps: Iterable[Step]) -> Iterable[ToolCall]:
    return (part for step in steps for part in step.parts if isinstance(part, ToolCall))
