"""Worlds that are declared in `tools.json` instead of written in Python: schemas, canned answers, seeded answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from agentft.errors import InputError, ToolError
from agentft.files import write_text
from agentft.strict import read_as, read_bytes, read_json_line
from agentft.toolset.arguments import ArgumentCheck
from agentft.toolset.marks import Access, State
from agentft.toolset.routes import STYLES, Route, check_route
from agentft.toolset.sampling import UnsatisfiableError, draw
from agentft.toolset.schemas import Schema, expand
from agentft.toolset.state import digest
from agentft.toolset.world import Tool
from agentft.types import Json, ToolDefinition

__all__ = ["DeclaredAnswer", "DeclaredRoute", "DeclaredTool", "DeclaredWorld", "load_declared", "write_world"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_PLACES = ("path", "query", "header", "cookie", "form", "body")


@dataclass(frozen=True, slots=True)
class DeclaredAnswer:
    """The answer to calls whose arguments include those of `when`.

    `status`: 400 and above is a refusal. `template`: `{city}` in the body's texts is replaced by the argument `city`.
    `exact`: only if there are no other arguments.
    """

    body: Any
    when: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    template: bool = True
    exact: bool = False


@dataclass(frozen=True, slots=True)
class DeclaredRoute:
    """A `Route` as written in the file: `places` is argument -> [place, name there], or [place, name there, style]."""

    method: str
    path: str
    places: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    media: str = ""


@dataclass(frozen=True, slots=True)
class DeclaredTool:
    """A tool of `tools.json`. `operation` is its `operationId` in the API that it was imported from."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    access: Access
    example: Mapping[str, Any] = field(default_factory=dict)
    returns: Mapping[str, Any] = field(default_factory=dict)
    route: DeclaredRoute | None = None
    answers: tuple[DeclaredAnswer, ...] = ()
    operation: str = ""


@dataclass(frozen=True, slots=True)
class DeclaredWorld:
    """The content of `tools.json`."""

    base_url: str
    tools: tuple[DeclaredTool, ...]


def load_declared(source: Path) -> tuple[str, dict[str, Tool]]:
    """The base URL and the tools of a `tools.json`.

    Raises:
        InputError: it cannot be read, or part of it is invalid.
    """
    content = read_bytes(source, "give the folder of a tool world")
    world = read_as(DeclaredWorld, read_json_line(content, str(source)), str(source))
    tools: dict[str, Tool] = {}
    for declared in world.tools:
        try:
            if not _NAME.fullmatch(declared.name) or declared.name in tools:
                raise InputError("a tool's name must be unique and consist of letters, digits, _ and -; rename it")
            tools[declared.name] = _tool(declared, f"{world.base_url.rstrip('/')}/{declared.name}")
        except (InputError, ToolError) as error:
            raise InputError(f"{source}: {declared.name}: {error}") from None
    if not tools:
        raise InputError(f"{source}: no tools; declare at least one")
    return world.base_url, tools


def write_world(folder: Path, tools: list[dict[str, Json]], base_url: str, readme: str) -> None:
    """Write a declared world's three files.

    Raises:
        InputError: the folder already holds a world.
    """
    state = folder / "state.json"
    # A killed import leaves at most an empty state and a README: tools.json comes last.
    other = state.exists() and state.read_text(encoding="utf-8") != "{}\n"
    if other or any((folder / name).exists() for name in ("tools.json", "tools.py")):
        raise InputError(f"{folder}: it already holds a tool world; remove it, or choose another --output")
    write_text(state, "{}\n")
    write_text(folder / "README.md", readme)
    indent = 1 if len(str(tools)) < 10**6 else None  # with it, Python's encoder is slow
    text = json.dumps({"base_url": base_url, "tools": tools}, ensure_ascii=False, indent=indent)
    write_text(folder / "tools.json", f"{text}\n")


def _tool(declared: DeclaredTool, endpoint: str) -> Tool:
    definition = ToolDefinition(declared.name, declared.description, declared.parameters, (endpoint,))
    check = ArgumentCheck(definition)
    ArgumentCheck(ToolDefinition(f"{declared.name} (returns)", "", declared.returns))
    if declared.example:
        check(declared.example)
    if any(not 100 <= answer.status <= 599 for answer in declared.answers):
        raise InputError("an answer's status must be from 100 to 599")
    route = _route(declared.route, check.names) if declared.route else None
    handler = _Handler(declared)
    return Tool(
        definition, handler, declared.access, check, declared.example, declared.returns, route, declared.operation
    )


def _route(declared: DeclaredRoute, arguments: Sequence[str]) -> Route:
    method = declared.method.upper()
    try:
        check_route(method, declared.path)
    except InputError as error:
        raise InputError(f"route: {error}") from None
    for name, place in declared.places.items():
        known = len(place) in {2, 3} and place[0] in _PLACES and isinstance(place[1], str)
        if name not in arguments or not known:
            raise InputError(f"route.places: {name!r} must be an argument, with [place, name there]")
        if len(place) == 3 and place[2] not in STYLES.get(place[0], ()):
            listed = ", ".join(STYLES.get(place[0], ())) or "none"
            raise InputError(f"route.places: {name!r} has the style {place[2]!r:.40}; known for {place[0]}: {listed}")
    places = {name: (place[0], place[1]) for name, place in declared.places.items()}
    styles = {name: place[2] for name, place in declared.places.items() if len(place) == 3}
    return Route(method, declared.path, places, styles, declared.media)


class _Handler:
    """Answers calls of one tool: with the first answer whose `when` matches, else with a value drawn from the seed."""

    def __init__(self, declared: DeclaredTool) -> None:
        self._tool = declared
        self._when = [{key: digest(value) for key, value in answer.when.items()} for answer in declared.answers]

    def __call__(self, state: State, /, **arguments: Json) -> Json:
        digests = {key: digest(value) for key, value in arguments.items()}
        result = self._answer(digests, arguments, state["seed"])
        if self._tool.access != "read":
            # Counted by call, so that the end state does not depend on the order of two writes.
            writes = state.setdefault("writes", {})
            call = f"{self._tool.name} {json.dumps(arguments, sort_keys=True, ensure_ascii=False)}"
            writes[call] = writes.get(call, 0) + 1
        return result

    def _answer(self, digests: Mapping[str, str], arguments: Mapping[str, Json], seed: int) -> Json:
        for answer, when in zip(self._tool.answers, self._when, strict=True):
            if when == digests if answer.exact else when.items() <= digests.items():
                body: Json = _filled(answer.body, arguments) if answer.template else answer.body
                if answer.status >= 400:
                    raise _refusal(body, answer.status)
                return body
        if not self._tool.returns:
            return {"ok": True}
        seeded = f"{seed} {self._tool.name} {digest(arguments)}"
        try:
            return draw(self._returns, seeded, arguments, whole=self._tool.returns)
        except UnsatisfiableError as error:
            message = f"{self._tool.name} has no answer for this: {error}; give it one in its world's tools.json"
            raise ToolError(message, status=501) from None

    @cached_property
    def _returns(self) -> Schema:
        return expand(dict(self._tool.returns), hidden="writeOnly")


def _filled(body: Any, arguments: Mapping[str, Json]) -> Any:
    """The body with `{city}` replaced by the argument; placeholders inside an argument are not replaced.

    A text that consists of `{days}` alone becomes the argument itself and keeps its type.
    """
    if isinstance(body, dict):
        return {key: _filled(value, arguments) for key, value in body.items()}
    if isinstance(body, list):
        return [_filled(value, arguments) for value in body]
    if not isinstance(body, str):
        return body
    if body[:1] == "{" and body[-1:] == "}" and body[1:-1] in arguments:
        return arguments[body[1:-1]]

    def replace(found: re.Match[str]) -> str:
        value = arguments.get(found[1], found[0])
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return re.sub(r"\{([^{}]+)\}", replace, body)


def _refusal(body: Json, status: int) -> ToolError:
    """An error with the body unchanged; its `error`, `message` or `detail` is the message."""
    details = body if isinstance(body, dict) else {"error": body}
    message = next((details[key] for key in ("error", "message", "detail") if isinstance(details.get(key), str)), None)
    error = ToolError(str(message or json.dumps(body, ensure_ascii=False)), status=status)
    error.details = dict(details)
    return error
