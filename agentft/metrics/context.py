"""What a metric may know beside the case and the trajectory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from agentft.types import Case, Score, ToolDefinition, Trajectory

__all__ = ["Context", "Metric"]


@dataclass(frozen=True, slots=True)
class Context:
    """The tools that the model saw, by name, and the state's digest after the expected calls (None: none writes)."""

    tools: Mapping[str, ToolDefinition] = field(default_factory=dict)
    gold_state: str | None = None


Metric: TypeAlias = Callable[[Case, Trajectory, Context], Score]
