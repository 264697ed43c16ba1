"""An imported world: its tools as in `tools.json`, and notes on what was refused or adapted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, count
from typing import Any

from agentft.errors import InputError, ToolError
from agentft.redaction import redacted, redacted_command
from agentft.toolset.arguments import VALUES_LIMIT, ArgumentCheck
from agentft.toolset.sampling import draw
from agentft.toolset.schemas import Schema, plain_line
from agentft.types import Json, ToolDefinition

__all__ = ["ACCESS", "ArgumentTable", "ImportNote", "ImportedWorld", "by_reason", "default_base_url", "unique_name"]

ACCESS = {"get": "read", "head": "read", "options": "read", "trace": "read", "delete": "destructive"}
"""HTTP method -> access of its tool; other methods have `write`."""

_MAX_ARGUMENTS = 1000
"""Arguments of one tool: far above real tools, and checking a call against more would take seconds."""
_TOO_MANY = f"more than {_MAX_ARGUMENTS:,} arguments, which is too many for a tool"


@dataclass(frozen=True, slots=True)
class ImportNote:
    """Why something was refused or adapted. `place`: a JSON pointer or `file:line`."""

    place: str
    reason: str


@dataclass
class ImportedWorld:
    """The imported tools, the refused operations, and the adapted places.

    `limit`: characters of all tools.
    """

    base_url: str
    tools: list[dict[str, Json]] = field(default_factory=list)
    refused: list[ImportNote] = field(default_factory=list)
    adapted: list[ImportNote] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    limit: int = 100 << 20
    _size: int = 0
    _known: dict[int, Any] = field(default_factory=dict)
    _counted: dict[int, tuple[int, Any]] = field(default_factory=dict)

    def add(self, name: str, origin: str, tool: Mapping[str, Any], *, example: Json = None) -> None:
        """Add a tool.

        Args:
            name: the preferred name; it is made legal and unique.
            origin: identifies the tool within the import.
            tool: the tool's entry in `tools.json`, without name and example. An empty description becomes `origin`.
            example: arguments of an example call; None: they are drawn from the schema.

        Raises:
            InputError: the world is full, the schema is invalid or has too many arguments, or the example does not fit.
        """
        if len(tool["parameters"].get("properties") or ()) > _MAX_ARGUMENTS:
            raise InputError(_TOO_MANY)
        if self._count(tool["parameters"]) > VALUES_LIMIT:  # no world could be loaded with it
            raise InputError(f"its schema has over {VALUES_LIMIT:,} values, too many to check every call against")
        if self._count(tool.get("returns")) > VALUES_LIMIT:
            tool = {**tool, "returns": {}}
            why = f"the schema of its results is ignored: it has over {VALUES_LIMIT:,} values"
            self.adapted.append(ImportNote(origin, why))
        description = str(tool["description"] or origin)
        if example is None:
            example = draw(tool["parameters"], origin, sparse=True, formats=True)
        try:
            ArgumentCheck(ToolDefinition(name, "", tool["parameters"]), self._known)(example)  # type: ignore[arg-type]
        except ToolError as error:
            raise InputError(str(error)) from None
        self.charge(tool)
        legal = unique_name(name, origin, self.names)
        self.tools.append({"name": legal, **tool, "description": description, "example": example})

    def _count(self, value: Any) -> int:
        """The values in a part of a tool, counted up to the limit. A part that tools share is counted once."""
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in self._counted:
            total = 1
            for inner in value.values() if isinstance(value, dict) else value:
                total += self._count(inner) if total <= VALUES_LIMIT else 0
            self._counted[id(value)] = total, value
        return self._counted[id(value)][0]

    def charge(self, part: object) -> None:
        """Count the characters of a tool, or of what it refers to: many may share a large part, each with its own copy.

        Raises:
            InputError: `limit` is exceeded.
        """
        if self._size > self.limit:
            raise InputError(f"the tools before it take {self.limit >> 20} MiB; split the source, and import each part")
        self._size += len(str(part))

    def require_tools(self, place: str) -> ImportedWorld:
        """Return this world if it has a tool. `place`: the source of the import, for the error.

        Raises:
            InputError: nothing was imported.
        """
        if not self.tools:
            notes = self.refused or [ImportNote("#", "there is no operation, tool or exchange"), *self.adapted]
            shown = "; ".join(f"{places[0]:.300}: {reason}" for reason, places in by_reason(notes)[:3])
            raise InputError(f"{place}: nothing can be imported; the first of {len(notes)}: {shown}")
        return self

    def readme(self, name: str, source: str) -> str:
        """The `README.md` of the world `name`: what was imported from `source`, refused and adapted."""
        lines = [f"# {name}", "", f"Imported from `{_quoted(redacted_command(source))}` with `agentft tools import`."]
        lines += [f"Tools: {len(self.tools)}. Refused: {len(self.refused)}. Adapted: {len(self.adapted)}."]
        lines += ["", "## Tools", ""]
        for tool in self.tools:
            route: Any = tool.get("route")
            origin = f"{route['method']} {route['path']}" if route else str(tool.get("operation") or "a call")
            lines.append(f"- `{tool['name']}` ({tool['access']}): `{_quoted(origin)}`")
        for title, notes in (("Refused", self.refused), ("Adapted", self.adapted)):
            if notes:
                lines += ["", f"## {title}", ""]
                for reason, places in by_reason(notes):
                    listed = ", ".join(f"`{_quoted(place[:500])}`" for place in places)
                    lines.append(f"- {listed}: {_quoted(str(redacted(reason)))}")
        return "\n".join([*lines, ""])


def by_reason(notes: Iterable[ImportNote]) -> list[tuple[str, list[str]]]:
    """Each reason and the places that it holds for."""
    found: dict[str, list[str]] = {}
    for note in notes:
        found.setdefault(note.reason, []).append(note.place)
    return [*found.items()]


class ArgumentTable:
    """The arguments of one tool. `properties`: their schemas. `places`: each argument's place in the HTTP request."""

    def __init__(self) -> None:
        self.properties: dict[str, Json] = {}
        self.required: list[Json] = []
        self.places: dict[str, Json] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def add(self, schema: Schema, place: str, wire: str, *, required: bool, style: str = "") -> None:
        """Add an argument, or replace the one with the same place and the same name in requests (`wire`)."""
        name = self.name(place, wire)
        self.properties[name], self.places[name] = schema, [place, wire, *([style] if style else [])]
        if required and name not in self.required:
            self.required.append(name)

    def require_room(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Raise InputError if the tool would have too many arguments with these (place, name in requests)."""
        if len(self._names) + sum(pair not in self._names for pair in set(wanted)) > _MAX_ARGUMENTS:
            raise InputError(_TOO_MANY)

    def name(self, place: str, wire: str) -> str:
        """The argument's name for models: its own name, with the place appended if another argument has that name."""
        if (place, wire) not in self._names:
            if len(self._names) >= _MAX_ARGUMENTS:
                raise InputError(_TOO_MANY)
            name = first = _legal_name(wire, place)[:50]
            if name in self._taken:
                others = chain([f"{first}_{place}"], (f"{first}_{number}" for number in count(2)))
                name = next(other for other in others if other not in self._taken)
            self._names[place, wire] = name
            self._taken.add(name)
        return self._names[place, wire]

    def schema(self) -> Schema:
        """The JSON Schema of the arguments object."""
        made: Schema = {"type": "object", "properties": self.properties, "additionalProperties": False}
        return made | ({"required": self.required} if self.required else {})


def unique_name(text: str, origin: str, taken: set[str]) -> str:
    """A legal name of at most 64 characters for `text`, with a hash of `origin` if it is too long or in `taken`.

    Names are compared case-insensitively. The name is added to `taken`.
    """
    name = _legal_name(text, "tool")
    if len(name) > 64 or name.lower() in taken:
        name = f"{name[:55]}_{hashlib.sha256(origin.encode()).hexdigest()[:8]}"
    taken.add(name.lower())
    return name


@lru_cache(maxsize=1000)
def _legal_name(text: str, default: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or default
    return f"n{name}" if name[0].isdigit() else name


def default_base_url(world: str) -> str:
    """The base URL of a world whose source has none: `http://<world>.test`."""
    return f"http://{re.sub('[^a-z0-9-]+', '-', world.lower()).strip('-') or 'api'}.test"


def _quoted(text: str) -> str:
    return plain_line(text.replace("<", "‹").replace("`", "'"), 400)
