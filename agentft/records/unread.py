"""Keys of a row that no parser reads; they are counted and reported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from agentft.records.keys import WEIGHT_KEYS, argument_key, is_blank
from agentft.records.tools import read_list, tools_key
from agentft.records.turns import SYSTEM_ROLES, text_of
from agentft.types import Json

__all__ = ["unread_keys", "unread_of_turn"]

# The latter say something about the row. They are no part of the conversation, so nothing is lost if they are not read.
_ROW = frozenset({"id", "system", "source", "license", "lang", "language", "category", "subcategory", "task"})
_ROW |= {"dataset", "split", "metadata", "meta", "provenance", "uuid", "uid", "hash", "url", "model", "generator"}
_ROW |= {"created", "created_at", "date", "timestamp", "version", "topic", "domain", "tags", "difficulty", "quality"}
_ROW |= {"session_id", "conversation_id", "thread_id", "user_id"}
_CALL = frozenset({"id", "type", "function", "name"})
_TOOL = frozenset({"type", "function", "name", "description", "parameters", "input_schema", "inputSchema"})
_TEXT_TURNS = (frozenset({"from", "value"}), frozenset({"role", "content"}))
_TURN = frozenset({"id", *WEIGHT_KEYS})
_WEIGHT = re.compile("(?:^|_)(?:loss|mask|train|learn|supervis|weight|label|kto)", re.I)  # their numbers are named, too


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
    listed = tools_key(row)
    texts = [text_of(item) for item in items if isinstance(item, dict)]  # a column may repeat one, such as the question
    found = dict.fromkeys(name for name in _unread(row, _ROW | {key, listed}) if row[name] not in texts)
    for item in items if turn_keys else ():
        if isinstance(item, dict):
            found |= dict.fromkeys(unread_of_turn(item, turn_keys))
    return tuple(found | dict.fromkeys(_unread_of_functions(row.get(listed), "tools", _TOOL)))


def unread_of_turn(turn: Mapping[str, Json], turn_keys: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """The same for one turn."""
    if turn.keys() in _TEXT_TURNS:
        return
    role = next((name for key in ("from", "role") if isinstance(name := turn.get(key), str)), "")
    known = turn_keys[""].union(turn_keys.get(role, ()), _TURN)
    if role in SYSTEM_ROLES:
        known |= {tools_key(turn)}
        yield from _unread_of_functions(turn.get(tools_key(turn)), "tools", _TOOL)
    if "refusal" in turn and not is_blank(turn.get("content")):
        known -= {"refusal"}
    yield from (f"{role}.{name}" for name in _unread(turn, known))
    if role in ("assistant", "gpt", "function_call", "tool_call"):
        yield from _unread_of_functions(turn.get("tool_calls"), "tool_calls", _CALL)
    else:  # a weight of 0 changes nothing here
        yield from (f"{role}.{name}" for name in WEIGHT_KEYS if turn.get(name))


def _unread_of_functions(listed: Json, where: str, known: frozenset[str]) -> Iterator[str]:
    """The unread keys of calls or tools, and of the `function` inside each."""
    names = []
    for item in read_list(listed, where, "call-not-object") or ():
        function = item.get("function") if isinstance(item, dict) else None
        names += [name for one in (item, function) if isinstance(one, dict) and (name := one.get("name"))]
        for one in (item, function):
            if isinstance(one, dict):
                tool = "name" if one.get("parameters") is not None else "arguments"
                own = known | {argument_key(one) if known is _CALL else tool}
                yield from (f"{where}.{name}" for name in _unread(one, own))
    if known is _TOOL and len(names) > len(set(names)):
        yield f"{where}: the second {max(names, key=names.count)!r:.60}"


def _unread(item: Mapping[str, Json], known: frozenset[str]) -> Iterator[str]:
    for name, value in () if item.keys() <= known else item.items():
        if name not in known and not is_blank(value) and (isinstance(value, str | list | dict) or _WEIGHT.search(name)):
            yield name
