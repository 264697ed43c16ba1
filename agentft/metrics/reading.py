"""What metrics read: the context, and the calls, attempted calls and final answer of each user turn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentft.calls import CALL_MARKERS
from agentft.metrics.bfcl import BfclEntry
from agentft.records.written import is_call_written
from agentft.types import Exchange, Step, Text, ToolCall, ToolDefinition, Trajectory

__all__ = [
    "Context",
    "all_calls",
    "attempted",
    "exchanges",
    "final_text",
    "is_only_thought",
    "looks_like_call",
    "met_fault",
    "turn_steps",
    "written_text",
]

_ALTERED = {"empty", "wrong-type", "schema"}  # faults that replace a good result by an unusable one
_INTACT = {"drip", "huge", "stale", "injection"}  # faults after which the model has a result that it can read
_TRY_LATER = {408, 425, 429}
_OTHER_MARKER = r"<\|?/?(?:tool_call|tool_calls|startofthink|endofthink|function_call|function)\b"
_MARKER = re.compile("|".join([_OTHER_MARKER, *map(re.escape, CALL_MARKERS)]), re.IGNORECASE)
_NAME = r"""["'](?:api_name|name|function|tool|tool_name|action)["']\s*:"""
_ARGUMENTS = r"""["'](?:parameters|arguments|args|action_input)["']\s*:"""
_OBJECT = re.compile(rf"{_NAME}.{{0,400}}?{_ARGUMENTS}|{_ARGUMENTS}.{{0,400}}?{_NAME}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Context:
    """The tools, and `gold_state`: the state digest after the expected calls, or None if no expected call writes.

    `entry`: the entry of BFCL that the case was made from.
    """

    tools: Mapping[str, ToolDefinition] = field(default_factory=dict)
    gold_state: str | None = None
    entry: BfclEntry | None = None


def turn_steps(trajectory: Trajectory, turn: int) -> list[Step]:
    """The steps that followed user turn `turn`."""
    return [step for step in trajectory.steps if step.turn == turn]


def all_calls(trajectory: Trajectory, turn: int | None = None) -> list[ToolCall]:
    """All calls of the trajectory, or of one user turn, in order, including unreadable ones."""
    steps = trajectory.steps if turn is None else turn_steps(trajectory, turn)
    return [part for step in steps for part in step.parts if isinstance(part, ToolCall)]


def exchanges(trajectory: Trajectory, turn: int) -> list[Exchange]:
    """The exchanges with the tool server in a user turn, in order."""
    return [exchange for step in turn_steps(trajectory, turn) for exchange in step.exchanges]


def met_fault(exchange: Exchange) -> bool:
    """Whether a call got no usable result through no fault of its own, so that sending it again is right.

    An injected fault, unless it left a readable result; or a real service's "try again later" (408, 425, 429).
    """
    if exchange.fault in _ALTERED:
        return exchange.status == 200  # a tool's own error passes unchanged
    if not exchange.fault:
        return exchange.status in _TRY_LATER
    return exchange.status is None or (exchange.is_error and exchange.fault not in _INTACT)


def attempted(trajectory: Trajectory, turn: int) -> bool:
    """Whether the model made a call or attempted one: an unreadable call, or text that looks like a call."""
    steps = turn_steps(trajectory, turn)
    return bool(all_calls(trajectory, turn)) or any(looks_like_call(written_text(step)) for step in steps)


def final_text(trajectory: Trajectory, turn: int) -> str:
    """The answer to the user: the text of the last step of a turn, without thoughts.

    Empty if that step calls, or if a server's filter withheld or cut it.
    """
    steps = turn_steps(trajectory, turn)
    if not steps or steps[-1].finish == "filtered" or any(isinstance(part, ToolCall) for part in steps[-1].parts):
        return ""
    return written_text(steps[-1]).strip()


def written_text(step: Step) -> str:
    """What the model wrote in a step besides calls and thoughts, in which it may weigh a call that it does not make."""
    return "".join(part.text for part in step.parts if isinstance(part, Text) and not part.thought)


def is_only_thought(step: Step) -> bool:
    """Whether a reply that was not cut is a thought and nothing else."""
    said = [part for part in step.parts if not isinstance(part, Text) or part.text.strip()]
    return step.finish in {"end", "stop"} and bool(said) and all(isinstance(p, Text) and p.thought for p in said)


def looks_like_call(text: str) -> bool:
    """Whether plain text was meant as a call: it has call markers, a tool name near arguments, or another notation."""
    return bool(_MARKER.search(text) or _OBJECT.search(text)) or is_call_written(text)
