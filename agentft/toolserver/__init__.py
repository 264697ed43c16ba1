"""Serves tool worlds over HTTP on loopback, and the client that model output goes through."""

from __future__ import annotations

from agentft.toolserver.client import ServerGone, ToolClient
from agentft.toolserver.faults import Schedule, read_faults
from agentft.toolserver.limits import Limits
from agentft.toolserver.server import ToolServer
from agentft.toolserver.sessions import Sessions
from agentft.toolserver.source import Source, open_source

__all__ = [
    "Limits",
    "Schedule",
    "ServerGone",
    "Sessions",
    "Source",
    "ToolClient",
    "ToolServer",
    "open_source",
    "read_faults",
]
