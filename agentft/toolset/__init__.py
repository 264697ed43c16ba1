"""A tool world: functions with types and docstrings, and a state, loaded from a folder.

The folder holds `tools.py` (functions marked `@read`, `@write` or `@destructive`, and `BASE_URL`), `state.json` and
`README.md`. A handler's first parameter is the session's state; the others are the tool's arguments.
"""

from __future__ import annotations

from agentft.toolset.containment import stdout_to_stderr
from agentft.toolset.loading import check_path, find_tools, load_toolset, load_toolsets, locate_world, shipped_worlds
from agentft.toolset.marks import Range, State, destructive, did_you_mean, read, write
from agentft.toolset.routes import Route
from agentft.toolset.state import digest
from agentft.toolset.world import HandlerError, Tool, Toolset

__all__ = [
    "HandlerError",
    "Range",
    "Route",
    "State",
    "Tool",
    "Toolset",
    "check_path",
    "destructive",
    "did_you_mean",
    "digest",
    "find_tools",
    "load_toolset",
    "load_toolsets",
    "locate_world",
    "read",
    "shipped_worlds",
    "stdout_to_stderr",
    "write",
]
