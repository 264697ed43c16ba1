"""Arguments of a call as a person types them."""

from __future__ import annotations

from agentft.errors import InputError
from agentft.json_text import UnreadableError, parse_json
from agentft.types import Json

__all__ = ["read_arguments"]


def read_arguments(text: str) -> dict[str, Json]:
    """The arguments of a call, written as a JSON object.

    Raises:
        InputError: it is none.
    """
    try:
        found = parse_json(text, unique_keys=True)
    except UnreadableError as error:
        raise InputError(f"the arguments cannot be read: {error}; write a JSON object") from None
    if not isinstance(found, dict):
        raise InputError(f'the arguments are {text[:60]}; write a JSON object, such as {{"city": "Oslo"}}')
    return found
