"""A guest book: the smallest world, and the example of a user's own folder."""

from __future__ import annotations

from agentft.toolset import State, write
from agentft.types import Json

BASE_URL = "http://guests.test"


@write
def sign_book(state: State, name: str) -> dict[str, Json]:
    """Sign the guest book.

    Args:
        name: Name of the guest.

    Example:
        {"name": "Ada"}
    """
    state["guests"].append(name)
    return {"name": name, "guests": len(state["guests"])}
