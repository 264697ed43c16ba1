"""Serves tool worlds over HTTP on loopback, and the client that model output goes through."""

from __future__ import annotations

from agentft.toolserver.client import ServerGone, ToolClient
from agentft.toolserver.limits import Limits
from agentft.toolserver.server import ToolServer
from agentft.toolserver.sessions import Sessions

__all__ = ["Limits", "ServerGone", "Sessions", "ToolClient", "ToolServer"]
