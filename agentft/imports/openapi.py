"""An OpenAPI 3.0, 3.1 or Swagger 2 description as a declared world: one tool for each operation."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from agentft.errors import InputError, ToolError
from agentft.toolset.arguments import ArgumentCheck, Validator
from agentft.toolset.documents import Documents, pointer
from agentft.toolset.loading import is_base_url
from agentft.toolset.sampling import draw
from agentft.toolset.schemas import Schema, describe, expand
from agentft.types import Json, ToolDefinition

__all__ = ["ACCESS", "Arguments", "Importing", "Refusal", "import_openapi", "mock_address", "unique_name"]

ACCESS = {"get": "read", "head": "read", "options": "read", "trace": "read", "delete": "destructive"}
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_PLACES = {"path": "path", "query": "query", "header": "header", "cookie": "cookie", "formData": "form"}
# What the client itself sends: OpenAPI says that parameters of these names mean nothing.
_CLIENTS_OWN = frozenset({"accept", "content-type", "authorization"})
_SUCCESS = ("200", "201", "202", "203", "204", "206", "2XX", "2xx", "default")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was not imported: its place (a JSON pointer) and why."""

    place: str
    reason: str


@dataclass
class Importing:
    """What an import has made so far: the tools as `tools.json` has them, what was refused, and what was adapted."""

    base_url: str
    tools: list[dict[str, Json]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    adapted: list[Refusal] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def add(self, name: str, origin: str, tool: Mapping[str, Any], *, example: Json = None) -> None:
        """Take a tool.

        Args:
            name: what it would like to be called.
            origin: what tells it from all others.
            tool: its entry in `tools.json` without name and example.
            example: its arguments; None: they are drawn.

        Raises:
            InputError: its schema is not valid, or the example does not satisfy it.
        """
        told = describe(tool["description"]) or origin
        if example is None:
            example = draw(tool["parameters"], origin, sparse=True)
        try:
            ArgumentCheck(ToolDefinition(name, told, tool["parameters"]))(example)  # type: ignore[arg-type]
        except ToolError as error:
            raise InputError(str(error)) from None
        legal = unique_name(name, origin, self.names)
        self.tools.append({"name": legal, **tool, "description": told, "example": example})

    def checked(self, place: str) -> Importing:
        """Itself.

        Raises:
            InputError: nothing was imported.
        """
        if not self.tools:
            why = [f"; the first of {len(self.refused)}: {item.place}: {item.reason}" for item in self.refused[:1]]
            raise InputError(f"{place}: nothing in it can be imported{''.join(why)}")
        return self

    def readme(self, world: str, source: str) -> str:
        """The world's `README.md`: what was imported, from what, and what was not."""
        lines = [f"# {world}", "", f"Imported from `{_quoted(source)}` by `agentft tools import`."]
        lines += [f"{len(self.tools)} tools; {len(self.refused)} were refused, {len(self.adapted)} places adapted."]
        lines += ["", "## Tools", ""]
        for tool in self.tools:
            route = _table(tool.get("route"))
            origin = f"{route['method']} {route['path']}" if route else str(tool.get("operation") or "a call")
            lines.append(f"- `{tool['name']}` ({tool['access']}): `{_quoted(origin)}`")
        for title, places in (("Refused", self.refused), ("Adapted", self.adapted)):
            if places:
                lines += ["", f"## {title}", ""]
                lines += [f"- `{_quoted(item.place)}`: {_quoted(item.reason)}" for item in places]
        return "\n".join([*lines, ""])


def import_openapi(documents: Documents, world: str) -> Importing:
    """Every operation that can be a tool, and every other one refused with its place and reason.

    Args:
        documents: holds the description.
        world: the world's name, for its address where the description gives none.

    Raises:
        InputError: it is no such description, or nothing in it can be imported.
    """
    root, _ = documents.find("#", documents.address)
    version = root.get("openapi", root.get("swagger")) if isinstance(root, dict) else None
    if not isinstance(root, dict) or not str(version).startswith(("2", "3")):
        raise InputError(f"{documents.address}: no `openapi: 3.x` or `swagger: 2.0` in it; give an API description")
    paths = root.get("paths")
    if not isinstance(paths, dict):
        raise InputError(f"{documents.address}: no `paths` in it, so there is nothing to import")
    done = Importing(_base_url(root, world))
    reader = _Reader(documents, done)
    for path, value in paths.items():
        if path.startswith("x-"):
            continue
        try:
            item, base = reader.resolve(value, documents.address, pointer("paths", path))
        except InputError as error:
            done.refused.append(Refusal(reader.at, str(error)))
            continue
        for method in _METHODS:
            try:
                if method in item:
                    reader.add(path, method, item, base)
            except InputError as error:
                done.refused.append(Refusal(reader.at, str(error)))
    return done.checked(documents.address)


def unique_name(text: str, origin: str, taken: set[str]) -> str:
    """A legal name of at most 64 characters for `text`, unlike all that are taken: with a hash of `origin` if it must.

    It is added to `taken`, without regard to case.
    """
    name = _legal_name(text, "tool")
    if len(name) > 64 or name.lower() in taken:
        name = f"{name[:55]}_{hashlib.sha256(origin.encode()).hexdigest()[:8]}"
    taken.add(name.lower())
    return name


def _legal_name(text: str, otherwise: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or otherwise
    return f"n{name}" if name[0].isdigit() else name


def mock_address(world: str) -> str:
    """The base URL of a world that has none: `http://<world>.test`."""
    return f"http://{re.sub('[^a-z0-9-]+', '-', world.lower()).strip('-') or 'api'}.test"


def _quoted(text: str) -> str:
    return describe(text.replace("<", "‹").replace("`", "'"), 400)


def _base_url(root: Mapping[str, Any], world: str) -> str:
    """The first server's address with its variables' defaults, or that of a test host."""
    default = mock_address(world)
    servers, schemes = root.get("servers"), root.get("schemes")
    server = _table(servers[0]) if isinstance(servers, list) and servers else {}
    url = str(server.get("url") or root.get("basePath") or "")
    for name, variable in _table(server.get("variables")).items():
        url = url.replace(f"{{{name}}}", str(_table(variable).get("default", name)))
    if root.get("host"):  # Swagger 2
        url = f"{schemes[0] if isinstance(schemes, list) and schemes else 'https'}://{root['host']}{url}"
    try:
        full = urljoin(f"{default}/", url).rstrip("/")
    except ValueError:
        return default
    return full if is_base_url(full) and not {*"{@"} & {*full} else default


def _table(value: Json) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class Arguments:
    """The arguments of one tool, gathered: `properties` are their schemas, `places` where each one travels."""

    def __init__(self) -> None:
        self.properties: dict[str, Json] = {}
        self.required: list[Json] = []
        self.places: dict[str, Json] = {}
        self._names: dict[tuple[str, str], str] = {}

    def add(self, schema: Schema, place: str, wire: str, *, required: bool) -> None:
        """Add one, or replace the one of that place and name there."""
        name = self.name(place, wire)
        self.properties[name], self.places[name] = schema, [place, wire]
        if required and name not in self.required:
            self.required.append(name)

    def name(self, place: str, wire: str) -> str:
        """What the argument is called here: its own name, or with its place where another one has that."""
        if (place, wire) not in self._names:
            first = _legal_name(wire, place)[:50]
            names = (first, f"{first}_{place}", *(f"{first}_{number}" for number in range(2, len(self._names) + 2)))
            self._names[place, wire] = next(name for name in names if name not in self._names.values())
        return self._names[place, wire]

    def schema(self) -> Schema:
        """The JSON Schema of all of them."""
        made: Schema = {"type": "object", "properties": self.properties, "additionalProperties": False}
        return made | ({"required": self.required} if self.required else {})


class _Reader:
    """Reads operations; `at` is the place that is being read, for refusals."""

    def __init__(self, documents: Documents, done: Importing) -> None:
        self._documents, self._done = documents, done
        self.at = ""

    def resolve(self, value: Json, base: str, at: str) -> tuple[dict[str, Any], str]:
        """An object, or the one that it refers to."""
        self.at = at
        found, home = self._documents.resolve(value, base)
        if not isinstance(found, dict):
            raise InputError(f"it is {type(found).__name__}, not an object")
        return found, home

    def add(self, path: str, method: str, item: Mapping[str, Any], base: str) -> None:
        """One operation as a tool."""
        place = pointer("paths", path, method)
        operation, base = self.resolve(item[method], base, place)
        arguments = Arguments()
        for parameter, home in self._parameters(item, operation, base, place):
            self._parameter(parameter, home, arguments)
        for wire in re.findall(r"\{([^{}]+)\}", path):
            if arguments.name("path", wire) not in arguments.places:
                self._adapt("no parameter is declared for {" + wire + "} of the path; a text is taken")
                arguments.add({"type": "string"}, "path", wire, required=True)
        if "requestBody" in operation:
            self._body(operation["requestBody"], base, f"{place}/requestBody", arguments)
        returns, answers = self._responses(operation.get("responses"), base, f"{place}/responses")
        self.at = place
        named = operation.get("operationId")
        tool = {
            "description": describe(operation.get("summary")) or operation.get("description"),
            "parameters": arguments.schema(),
            "access": ACCESS.get(method, "write"),
            "returns": returns,
            "route": {"method": method.upper(), "path": path, "places": arguments.places},
            "answers": answers,
            "operation": named if isinstance(named, str) else "",
        }
        self._done.add(named if isinstance(named, str) else f"{method} {path}", f"{method} {path}", tool)

    def _parameters(
        self, item: Mapping[str, Any], operation: Mapping[str, Any], base: str, place: str
    ) -> Iterator[tuple[dict[str, Any], str]]:
        """Those of the path, replaced by the operation's own of the same name and place."""
        found: dict[tuple[str, str], tuple[dict[str, Any], str, str]] = {}
        above = place.rpartition("/")[0]
        for owner, at in ((item, above), (operation, place)):
            listed = owner.get("parameters")
            for index, value in enumerate(listed if isinstance(listed, list) else []):
                parameter, home = self.resolve(value, base, f"{at}/parameters/{index}")
                found[str(parameter.get("in")), str(parameter.get("name"))] = (parameter, home, self.at)
        for parameter, home, self.at in found.values():
            yield parameter, home

    def _parameter(self, parameter: dict[str, Any], base: str, arguments: Arguments) -> None:
        where, wire, required = parameter.get("in"), parameter.get("name"), parameter.get("required") is True
        if where == "body":  # Swagger 2
            self._spread(self._expand(parameter.get("schema"), base, "readOnly"), "body", required, arguments)
            return
        if not isinstance(where, str) or where not in _PLACES or not isinstance(wire, str) or not wire:
            raise InputError(f"a parameter must have a name and be in {', '.join(_PLACES)} or body, not {where!r:.40}")
        if where == "header" and wire.lower() in _CLIENTS_OWN:
            self._adapt(f"the header {wire} is the client's own and no argument")
            return
        written = parameter.get("schema", _media(parameter.get("content"))[1].get("schema"))
        if written is None:  # Swagger 2: the parameter is a schema itself
            written = parameter | {"required": [], "description": ""}
        schema = self._expand(written, base, "readOnly")
        if description := describe(parameter.get("description")):
            schema["description"] = description
        if given := _examples(parameter, self._documents, base):
            schema["examples"] = [value for value in given if Validator(schema).is_valid(value)][:5]
        arguments.add(schema, _PLACES[where], wire, required=required or where == "path")

    def _body(self, value: Json, base: str, at: str, arguments: Arguments) -> None:
        body, home = self.resolve(value, base, at)
        kind, media = _media(body.get("content"))
        place = "form" if "form" in kind else "body"
        if place == "body" and "json" not in kind:
            self._adapt(f"a body of type {kind[:60] or 'unknown'} is carried as JSON")
        schema = self._expand(media.get("schema"), home, "readOnly")
        self._spread(schema, place, body.get("required") is True, arguments)

    def _spread(self, schema: Schema, place: str, required: bool, arguments: Arguments) -> None:
        """A body's properties as arguments; the whole body as one where that would say something else."""
        needed, properties = schema.get("required", []), schema.get("properties", {})
        plain = schema.keys() <= {"type", "properties", "required", "description", "examples", "additionalProperties"}
        closed = not isinstance(schema.get("additionalProperties"), dict)
        known = bool(properties) and set(needed) <= properties.keys()
        if plain and closed and known and (required or not needed):
            for name, inner in properties.items():
                arguments.add(inner, place, name, required=name in needed)
        else:
            arguments.add(schema, place, "", required=required)

    def _responses(self, responses: Json, base: str, at: str) -> tuple[Schema, list[Json]]:
        """The first successful response's schema, and the answers that its examples make."""
        table = _table(responses)
        status = next((status for status in _SUCCESS if status in table), None)
        if status is None:
            return {}, []
        try:
            response, home = self.resolve(table[status], base, f"{at}/{status}")
            kind, media = _media(response.get("content"))
            if "schema" in response:  # Swagger 2
                kind, media = "json", {"schema": response["schema"]}
            if not kind:
                return ({"type": "null"} if status == "204" else {}), []
            schema = self._expand(media.get("schema"), home, "writeOnly")
            given = _examples(media, self._documents, home) + list(_table(response.get("examples")).values())
        except InputError as error:
            self._adapt(f"the response is left open: {error}")
            return {}, []
        right = [value for value in map(_unpacked, given) if Validator(schema).is_valid(value)]
        if given and not right:
            self._adapt("the response's examples break its schema and are left out")
        code = int(status) if status.isdigit() else 200
        return schema, [{"when": {}, "status": code, "body": value, "template": False} for value in right[:1]]

    def _expand(self, schema: Json, base: str, hidden: str) -> Schema:
        self._documents.cut.clear()
        made = expand(schema, self._documents, base, hidden)
        if cut := sorted(self._documents.cut):
            more = f" and {len(cut) - 3} more" if len(cut) > 3 else ""
            self._adapt(f"{', '.join(cut[:3])}{more}: cut inside itself, or as too large; there it takes anything")
        return made

    def _adapt(self, reason: str) -> None:
        self._done.adapted.append(Refusal(self.at, reason))


def _media(content: Json) -> tuple[str, dict[str, Any]]:
    """The media type that is carried best, and what is said of it: JSON first, then forms."""
    kinds = list(_table(content))
    kinds.sort(key=lambda kind: 0 if "json" in kind else 1 if "form" in kind else 2)
    return (kinds[0].lower(), _table(_table(content)[kinds[0]])) if kinds else ("", {})


def _examples(holder: Mapping[str, Any], documents: Documents, base: str) -> list[Json]:
    """The values of `example` and `examples` beside a schema."""
    named = [documents.resolve(value, base)[0] for value in _table(holder.get("examples")).values()]
    found = [example["value"] for example in named if isinstance(example, dict) and "value" in example]
    return [holder["example"], *found] if "example" in holder else found


def _unpacked(value: Json) -> Json:
    """An example that is the JSON text of an object or list is that object or list."""
    try:
        read: Json = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
    return read if isinstance(read, dict | list) else value
