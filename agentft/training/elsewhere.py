"""What other tools call our settings, commands and options, and what to do instead of those that only they have."""

from __future__ import annotations

from agentft.strict import own_table

__all__ = ["ELSEWHERE", "INSTEAD", "THEIR_COMMANDS", "THEIR_OPTIONS"]

_TABLES = own_table(__file__, dict)
ELSEWHERE: dict[str, str] = {name: key for key, row in _TABLES["settings"].items() for name in row.split()}
"""Their name -> our name."""
INSTEAD: dict[str, str] = {name: advice for advice, row in _TABLES["instead"].items() for name in row.split()}
"""Their name -> what to do instead."""
THEIR_COMMANDS: dict[str, str] = {name: ours for ours, row in _TABLES["commands"].items() for name in row.split()}
"""Their command -> ours."""
THEIR_OPTIONS: dict[str, str] = {
    name: f"here: {ours}" for ours, row in _TABLES["options"].items() for name in row.split()
}
"""Our command and their option (`eval:num-fewshot`) -> ours, or what to do instead."""
