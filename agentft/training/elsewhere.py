"""What other trainers call our settings."""

from __future__ import annotations

from agentft.strict import own_table

__all__ = ["ELSEWHERE"]

ELSEWHERE = own_table(__file__, str)
"""Our name -> the others' names, for the hint after an unknown setting."""
