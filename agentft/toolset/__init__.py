"""A tool world: functions with types and docstrings, and a state, loaded from a folder.

The folder holds `tools.py` (functions marked `@read` or `@write`, and `BASE_URL`), `state.json` and `README.md`.
Handlers get the session's state first; the other parameters are the tool's arguments.
"""

from __future__ import annotations

from agentft.toolset.loading import find_tools, load_toolset, load_toolsets
from agentft.toolset.marks import Range, State, read, write
from agentft.toolset.state import digest
from agentft.toolset.world import HandlerError, Tool, Toolset, nearest

__all__ = [
    "HandlerError",
    "Range",
    "State",
    "Tool",
    "Toolset",
    "digest",
    "find_tools",
    "load_toolset",
    "load_toolsets",
    "nearest",
    "read",
    "write",
]
