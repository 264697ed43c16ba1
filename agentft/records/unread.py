"""Keys of a row that no parser reads; they are counted and reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache

from agentft.errors import RowError
from agentft.records.keys import WEIGHT_KEYS, is_blank
from agentft.records.tools import read_list
from agentft.types import Json

__all__ = ["unread_keys", "unread_of_turn"]

_ROW = frozenset({"id", "system", "tools", "functions"})
# What a row says about itself. It is no part of the conversation, so nothing is lost if it is not read.
_METADATA = frozenset({"source", "license", "lang", "language", "category", "dataset", "split", "metadata", "meta"})
_CALL = frozenset({"id", "type", "function", "name", "arguments"})
_TOOL = frozenset({"type", "function", "name", "description", "parameters", "input_schema", "inputSchema"})
_TURN = frozenset({"id", *WEIGHT_KEYS})


def unread_keys(
    row: Mapping[str, Json], key: str, items: Sequence[Json], turn_keys: Mapping[str, frozenset[str]]
) -> tuple[str, ...]:
    """The keys that hold text, a list or an object and are not read, each once: `plan`, `assistant.function_calls`.

    Args:
        row: the row.
        key: its key that holds the turns.
        items: the turns.
        turn_keys: the keys that are read, by role (`""`: of every role). Empty: the keys of turns are not checked.
    """
    found = dict.fromkeys(_unread(row, _ROW | _METADATA | {key}))
    if not is_blank(row.get("tools")):
        found |= dict.fromkeys(_unread({"functions": row.get("functions")}, frozenset()))
    for item in items if turn_keys else ():
        if isinstance(item, dict):
            found |= dict.fromkeys(unread_of_turn(item, turn_keys))
    tools = row.get("functions") if is_blank(row.get("tools")) else row.get("tools")
    return tuple(found | dict.fromkeys(_unread_of_functions(tools, "tools", _TOOL)))


def unread_of_turn(turn: Mapping[str, Json], turn_keys: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """The same for one turn."""
    role = next((name for key in ("from", "role") if isinstance(name := turn.get(key), str)), "")
    yield from (f"{role}.{name}" for name in _unread(turn, _known(turn_keys[""], turn_keys.get(role, frozenset()))))
    if turn.get("refusal") and not is_blank(turn.get("content")):
        yield from (f"{role}.{name}" for name in _unread({"refusal": turn["refusal"]}, frozenset()))
    if turn.get("tool_calls"):
        yield from _unread_of_functions(turn["tool_calls"], "tool_calls", _CALL)
    if role not in ("assistant", "gpt"):  # a weight of 0 changes nothing here
        yield from (f"{role}.{name}" for name in WEIGHT_KEYS if turn.get(name))


def _unread_of_functions(listed: Json, where: str, known: frozenset[str]) -> Iterator[str]:
    """The unread keys of calls or tools, and of the `function` inside each."""
    items: list[Json] | None = None
    with suppress(RowError):  # the parser reports it
        items = read_list(listed, where, "")
    for item in items or ():
        function = item.get("function") if isinstance(item, dict) else None
        for one in (item, function):
            if isinstance(one, dict):
                yield from (f"{where}.{name}" for name in _unread(one, known))


@cache
def _known(everywhere: frozenset[str], own: frozenset[str]) -> frozenset[str]:
    return _TURN | everywhere | own


def _unread(item: Mapping[str, Json], known: frozenset[str]) -> Iterator[str]:
    for name, value in () if item.keys() <= known else item.items():
        if name not in known and isinstance(value, str | list | dict) and not is_blank(value):
            yield name
