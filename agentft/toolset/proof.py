"""Proving a tool world: every promise of the README's contract, tried out on every tool."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from agentft.errors import InputError, ToolError
from agentft.toolset.loading import load_toolset
from agentft.toolset.marks import State
from agentft.toolset.world import HandlerError, Tool, Toolset
from agentft.types import Json

__all__ = ["PROMISES", "Finding", "prove"]

DRAWS = 50
ANSWER_LIMIT = 16 << 10
MESSAGE_LIMIT = 300
HOSTILE = ("", " ", "\x00", "x" * 100_000, "🌧️", "' OR 1=1", "{}", "%s", "../../etc/passwd", "\n", "{city.__class__}")
_PLAIN = ("string", "integer", "number", "boolean", "array")
PROMISES: Mapping[str, str] = {
    "loads": "mend the file that the message names",
    "name": "use 1 to 64 letters, digits and _, and begin with no digit",
    "schema": "write valid JSON Schemas (2020-12), and describe the tool",
    "example": "document arguments under which the tool succeeds in a fresh world",
    "answers": f"answer with JSON of at most {ANSWER_LIMIT >> 10} KiB, or raise ToolError, whatever the arguments",
    "read": "mark it @write, or leave the state alone",
    "write": "mark it @read, or give an example that changes the state",
    "errors": f"refuse with a 4xx that names the argument in under {MESSAGE_LIMIT} characters",
    "repeats": "let answers depend on the state, its seed and the arguments only: no clock, no random, no globals",
    "snapshot": "keep only JSON in the state, and everything that matters in the state",
}
"""What is proved -> what to do if it does not hold."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise that does not hold. `tool` is empty if it is the whole world's."""

    world: str
    tool: str
    promise: str
    problem: str


def prove(name: str, seed: int = 0) -> list[Finding]:
    """What does not hold of a world, given by its name or folder. Its handlers run in this process, without a limit."""
    try:
        world, twin = load_toolset(name, seed), load_toolset(name, seed)
    except InputError as error:
        return [Finding(name, "", "loads", str(error))]
    found = [
        Finding(world.name, tool, promise, problem)
        for tool in world.tools
        for promise, problem in dict(_broken(world, twin, tool)).items()
    ]
    return [*found, *(Finding(world.name, "", "snapshot", problem) for problem in _snapshot(world))]


def _broken(world: Toolset, twin: Toolset, name: str) -> Iterator[tuple[str, str]]:
    """Promise and problem; of several problems with one promise the last is told."""
    tool = world.tools[name]
    yield from _definition(tool)
    state, other = world.new_state(), twin.new_state()
    before = world.digest(state)
    status, answer = _ask(world, tool, tool.example, state)
    if status != 200:
        yield "example", f"{_short(tool.example)} answers {status}: {answer}"
    elif tool.access != "read" and world.digest(state) == before:
        yield "write", f"it is marked @{tool.access}, and {_short(tool.example)} leaves the state as it was"
    yield from _errors(world, tool)
    for arguments in _drawn(tool):
        if tool.access != "read":
            state, other = world.new_state(), twin.new_state()
        status, answer = _ask(world, tool, arguments, state)
        if status >= 500:
            yield (
                ("read" if tool.access == "read" and "marked @read" in answer else "answers"),
                f"{_short(arguments)}: {answer}",
            )
        elif status >= 400 and len(answer) >= MESSAGE_LIMIT:
            yield "errors", f"{_short(arguments)} is refused in {len(answer)} characters"
        elif len(answer) > ANSWER_LIMIT + len(json.dumps(arguments)):
            yield "answers", f"{_short(arguments)} is answered with {len(answer)} characters"
        if _ask(twin, tool, arguments, other) != (status, answer) or state != other:
            yield "repeats", f"{_short(arguments)} is answered in two ways"


def _definition(tool: Tool) -> Iterator[tuple[str, str]]:
    definition = tool.definition
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", definition.name):
        yield "name", f"{definition.name!r:.80} is not a name that every API takes"
    if not definition.description.strip():
        yield "schema", "the tool has no description"
    for schema in (definition.parameters, tool.returns):
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            yield "schema", error.message[:200]


def _errors(world: Toolset, tool: Tool) -> Iterator[tuple[str, str]]:
    """Each argument left out, of a wrong type, and one too many."""
    schema: Any = tool.definition.parameters
    known = dict(tool.example)
    wrong: list[tuple[str, dict[str, Json]]] = [("no_such_argument", {**known, "no_such_argument": 1})]
    if schema.get("additionalProperties") is not False:
        wrong.clear()
    wrong += [(name, {key: known[key] for key in known if key != name}) for name in schema.get("required", [])]
    wrong += [(name, {**known, name: {"a": 1}}) for name, kind in _properties(tool) if kind.get("type") in _PLAIN]
    for name, arguments in wrong:
        status, answer = _ask(world, tool, arguments, world.new_state())
        if not 400 <= status < 500 or name not in answer or len(answer) >= MESSAGE_LIMIT or "Traceback" in answer:
            yield "errors", f"{name!r} missing or wrong is answered {status}: {answer:.200}"


def _snapshot(world: Toolset) -> Iterator[str]:
    """All examples one after the other, and again, from the state's JSON."""
    state = world.new_state()
    for tool in world.tools.values():
        _ask(world, tool, tool.example, state)
    restored: State = json.loads(json.dumps(state))
    if world.digest(restored) != world.digest(state):
        yield "the state read back from JSON has another digest"
    for tool in world.tools.values():
        if _ask(world, tool, tool.example, state) != _ask(world, tool, tool.example, restored):
            yield f"{tool.definition.name} answers otherwise in a state that was read back from JSON"


def _ask(world: Toolset, tool: Tool, arguments: Mapping[str, Json], state: State) -> tuple[int, str]:
    """The status and the text of an answer: its JSON, or the error's message."""
    try:
        result = world.call(tool.definition.name, arguments, state)
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ToolError as error:
        return error.status, str(error)
    except HandlerError as error:
        return 500, f"{type(error.__cause__).__name__}: {error.__cause__}"
    # The tool boundary: a schema that refers to nowhere, a result that is no JSON.
    except Exception as error:
        return 500, f"{type(error).__name__}: {error}"
    return 200, text


def _short(arguments: Mapping[str, Json]) -> str:
    return f"{json.dumps(arguments, ensure_ascii=False):.100}"


def _drawn(tool: Tool) -> Iterator[dict[str, Json]]:
    """The example with hostile texts, and with some of its arguments drawn anew."""
    for text in HOSTILE:
        yield {key: text if isinstance(value, str) else value for key, value in tool.example.items()}
    for index in range(DRAWS):
        chance = random.Random(f"{tool.definition.name} {index}")
        changed = {key: _value(schema, chance) for key, schema in _properties(tool) if chance.random() < 0.5}
        yield {**tool.example, **changed}


def _properties(tool: Tool) -> list[tuple[str, Mapping[str, Any]]]:
    """The arguments whose schema says something (it may be `true`)."""
    properties: Any = tool.definition.parameters.get("properties", {})
    return [(name, schema) for name, schema in properties.items() if isinstance(schema, Mapping)]


def _value(schema: Mapping[str, Any], chance: random.Random) -> Json:
    """Something that mostly fits the schema."""
    if "enum" in schema:
        value: Json = chance.choice(schema["enum"])
        return value
    low = schema.get("minimum", min(-1000, schema.get("maximum", 0)))
    high = schema.get("maximum", max(1000, low))
    kinds = schema.get("type", "object")
    draw: dict[str, Callable[[], Json]] = {
        "integer": lambda: chance.randint(math.ceil(low), math.floor(high)),
        "number": lambda: round(chance.uniform(low, high), 2),
        "boolean": lambda: chance.random() < 0.5,
        "string": lambda: "".join(chance.choices("abc XYZ 019-:é中'\"", k=chance.randint(0, 20))),
        "array": lambda: [_value(schema.get("items", {}), chance) for _ in range(chance.randint(0, 3))],
        "object": lambda: {key: _value(inner, chance) for key, inner in schema.get("properties", {}).items()},
        "null": lambda: None,
    }
    return draw[chance.choice(kinds) if isinstance(kinds, list) else kinds]()
