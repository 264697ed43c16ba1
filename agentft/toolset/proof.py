"""Checks a tool world by calling each of its tools."""

from __future__ import annotations

import json
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from agentft.content import find_content
from agentft.errors import InputError, ToolError
from agentft.strict import own_table
from agentft.toolset.arguments import count_values
from agentft.toolset.containment import Interruption, foreign_code
from agentft.toolset.loading import load_toolset
from agentft.toolset.marks import State
from agentft.toolset.sampling import UnsatisfiableError, draw
from agentft.toolset.schemas import expand
from agentft.toolset.world import HandlerError, Tool, Toolset
from agentft.types import Json

__all__ = ["PROMISES", "BrokenPromise", "prove"]

DRAWS = 50
ANSWER_LIMIT = 16 << 10
SECONDS = 5.0
_EFFORT = 100_000  # values of a schema times its calls, and calls of a world
_REPEATS = 8  # calls with the same arguments, which find a result that is random
MESSAGE_LIMIT = 300
HOSTILE: tuple[str | float, ...] = (*json.loads(Path(__file__).with_name("hostile.json").read_bytes()), "x" * 100_000)
PROMISES = own_table(__file__, str)
"""Check -> how to fix a violation."""


@dataclass(frozen=True, slots=True)
class BrokenPromise:
    """A promise that a world breaks. `tool` is empty if the promise concerns the whole world."""

    world: str
    tool: str
    promise: str
    problem: str


def prove(name: str, seed: int = 0) -> list[BrokenPromise]:
    """The promises that a world breaks. `name` is its name or folder; its handlers run in this process.

    Raises:
        InputError: there is no such world.
    """
    try:
        # Loading checks that schemas are valid and tools are described.
        world, twin = load_toolset(name, seed), load_toolset(name, seed)
    except InputError as error:
        if not find_content("tools", name):
            raise
        return [BrokenPromise(name, "", "loads", str(error))]
    with _interruptible():
        found = [(tool, *one) for tool in world.tools for one in dict(_broken(world, twin, tool)).items()]
        found += [("", "snapshot", problem) for problem in _snapshot(world)]
    return [BrokenPromise(world.name, *one) for one in found]


def _broken(world: Toolset, twin: Toolset, name: str) -> Iterator[tuple[str, str]]:
    """The broken promises of a tool and their problems; the caller keeps the last problem of each promise."""
    tool = world.tools[name]
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
        yield "name", f"{name!r:.80} is not accepted as a name by every API"
    state = world.new_state()
    before = world.digest(state)
    status, text = _call(world, tool, tool.example, state)
    if status != 200:
        yield "example", f"{_short(tool.example)} returns {status}: {text}"
    elif tool.access != "read" and world.digest(state) == before:
        yield "write", f"it is marked @{tool.access}, but {_short(tool.example)} does not change the state"
    # The work is bounded: a schema with thousands of values, or a world with thousands of tools, gets fewer calls.
    calls = max(8, _EFFORT // max(count_values(tool.definition.parameters, _EFFORT)[0], len(world.tools)))
    for argument, arguments in islice(_invalid_arguments(tool), calls):
        status, text = _call(world, tool, arguments, world.new_state())
        if not 400 <= status < 500 or argument not in text or len(text) >= MESSAGE_LIMIT:
            yield "errors", f"a missing or wrong {argument!r} returns {status}: {text:.200}"
    repeats: Counter[str] = Counter()
    for arguments in islice(_sample_arguments(tool), calls):
        repeats[key := json.dumps(arguments)] += 1
        if repeats[key] > _REPEATS:
            continue
        state, other = world.new_state(), twin.new_state()
        status, text = _call(world, tool, arguments, state)
        if status >= 500:
            promise = "read" if tool.access == "read" and "marked @read" in text else "answers"
            yield promise, f"{_short(arguments)}: {text}"
        elif status >= 400 and len(text) >= MESSAGE_LIMIT:
            yield "errors", f"{_short(arguments)} is refused with a message of {len(text)} characters"
        elif len(text) > ANSWER_LIMIT + len(json.dumps(arguments)):
            yield "answers", f"{_short(arguments)} returns {len(text)} characters"
        if _call(twin, tool, arguments, other) != (status, text) or state != other:
            yield "repeats", f"{_short(arguments)} gives two different results"


def _invalid_arguments(tool: Tool) -> Iterator[tuple[str, dict[str, Json]]]:
    """Arguments that must be refused, with the one at fault: missing, of the wrong type, or unknown."""
    schema: Any = tool.definition.parameters
    known = dict(tool.example)
    if schema.get("additionalProperties") is False:
        yield "no_such_argument", {**known, "no_such_argument": 1}
    for name in schema.get("required", []):
        yield name, {key: known[key] for key in known if key != name}
    for name, inner in schema.get("properties", {}).items():
        if isinstance(inner, dict) and inner.get("type") in ("string", "integer", "number", "boolean", "array"):
            yield name, {**known, name: {"a": 1}}


def _snapshot(world: Toolset) -> Iterator[str]:
    """Run all examples on one state, then again on that state and on its copy through JSON, which must agree."""
    state = world.new_state()
    for tool in world.tools.values():
        _call(world, tool, tool.example, state)
    restored: State = json.loads(json.dumps(state))
    if world.digest(restored) != world.digest(state):
        yield "the digest of the state changes when it is written to JSON and read back"
    for tool in world.tools.values():
        if _call(world, tool, tool.example, state) != _call(world, tool, tool.example, restored):
            yield f"{tool.definition.name} gives another result on a state that was read back from JSON"


def _call(world: Toolset, tool: Tool, arguments: Mapping[str, Json], state: State) -> tuple[int, str]:
    """The status of a call, and the JSON of its result or the error's message."""
    try:
        _set_alarm(SECONDS)
        try:
            result = world.call(tool.definition.name, arguments, state)
        finally:
            _set_alarm(0)
    except ToolError as error:
        return error.status, str(error)
    except _HangsError:
        return 500, f"TimeoutError: it did not return within {SECONDS:g} seconds"
    except HandlerError as error:
        return 500, f"{type(error.__cause__).__name__}: {error.__cause__}"
    return 200, json.dumps(result, ensure_ascii=False, allow_nan=False)


class _HangsError(Interruption):
    """Raised when a handler times out."""


@contextmanager
def _interruptible() -> Iterator[None]:
    """While the block runs, calls can be interrupted, by an alarm too. Signal handlers are set once for all."""

    def interrupt(*_: object) -> None:
        raise _HangsError

    before = signal.signal(signal.SIGALRM, interrupt) if _has_alarms() else None
    try:
        with foreign_code():
            yield
    finally:
        if before is not None:
            signal.signal(signal.SIGALRM, before)


def _set_alarm(seconds: float) -> None:
    if _has_alarms():
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _has_alarms() -> bool:
    """Only the main thread has them, of a system that has interval timers."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


def _short(arguments: Mapping[str, Json]) -> str:
    return f"{json.dumps(arguments, ensure_ascii=False):.100}"


def _sample_arguments(tool: Tool) -> Iterator[dict[str, Json]]:
    """The example with hostile strings and numbers, and with random values that satisfy the schema."""
    properties = expand(dict(tool.definition.parameters)).get("properties", {})
    schemas = {name: {key: schema[key] for key in schema if key != "default"} for name, schema in properties.items()}
    for index in range(DRAWS):
        for hostile in HOSTILE[index : index + 1]:
            yield {key: hostile if type(value) is type(hostile) else value for key, value in tool.example.items()}
        chance = random.Random(f"{tool.definition.name} {index}")
        arguments = dict(tool.example)
        for name, schema in schemas.items():
            try:
                if chance.random() < 0.5:
                    arguments[name] = draw(schema, str(index), formats=True)
            except UnsatisfiableError:
                continue
        yield arguments
