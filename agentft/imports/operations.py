"""Converts an operation of an API description to a tool: its parameters, body and responses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentft.errors import InputError
from agentft.imports.world import ACCESS, ArgumentTable, ImportedWorld, ImportNote
from agentft.json_text import json_pointer, parse_json
from agentft.toolset.arguments import Validator
from agentft.toolset.references import References
from agentft.toolset.routes import check_route
from agentft.toolset.schemas import Schema, expand, plain_line
from agentft.types import Json

__all__ = ["OperationReader", "object_or_empty"]

_PLACES = {"path": "path", "query": "query", "header": "header", "cookie": "cookie", "formData": "form"}
_IGNORED_HEADERS = frozenset({"accept", "content-type", "authorization"})  # OpenAPI: the client sets these
_SUCCESS = ("200", "201", "202", "203", "204", "206", "2XX", "2xx", "default")
_SPREADABLE = frozenset({"type", "properties", "required", "description", "examples", "additionalProperties"})


class OperationReader:
    """Adds operations to `imported` as tools. `place`: JSON pointer of the current value, for notes."""

    def __init__(self, references: References, imported: ImportedWorld) -> None:
        self._references, self._imported = references, imported
        self.place = ""

    def resolve(self, value: Json, base: str, place: str) -> tuple[dict[str, Any], str]:
        """The object at `place`, or the object that it references, and the address of its document.

        Raises:
            InputError: the value is not an object, or the reference cannot be resolved.
        """
        self.place = place
        found, home = self._references.resolve(value, base)
        if not isinstance(found, dict):
            raise InputError(f"expected an object, got {type(found).__name__}")
        return found, home

    def add(self, path: str, method: str, item: Mapping[str, Any], base: str) -> None:
        """Import one operation as a tool.

        Args:
            path: the path's template, such as `/pets/{petId}`.
            method: the HTTP method in lower case.
            item: the path's object, which contains the operation.
            base: the address of the document that contains `item`.

        Raises:
            InputError: the operation cannot be a tool.
        """
        place = self.place = f"#{json_pointer('paths', path, method)}"
        check_route(method.upper(), path)
        operation, base = self.resolve(item[method], base, place)
        arguments = ArgumentTable()
        for parameter, home in self._parameters(item, operation, base, place):
            self._add_parameter(parameter, home, arguments)
        for wire in re.findall(r"\{([^{}]+)\}", path):
            if arguments.name("path", wire) not in arguments.places:
                self._note("no parameter is declared for {" + wire + "} in the path; it takes any string")
                arguments.add({"type": "string"}, "path", wire, required=True)
        if "requestBody" in operation:
            self._add_body(operation["requestBody"], base, f"{place}/requestBody", arguments)
        returns, answers = self._responses(operation.get("responses"), base, f"{place}/responses")
        self.place = place
        operation_id = operation.get("operationId")
        tool = {
            "description": plain_line(operation.get("summary")) or plain_line(operation.get("description")),
            "parameters": arguments.schema(),
            "access": ACCESS.get(method, "write"),
            "returns": returns,
            "route": {"method": method.upper(), "path": path, "places": arguments.places},
            "answers": answers,
            "operation": operation_id if isinstance(operation_id, str) else "",
        }
        origin = f"{method} {path}"
        self._imported.add(operation_id if isinstance(operation_id, str) else origin, origin, tool)

    def _parameters(
        self, item: Mapping[str, Any], operation: Mapping[str, Any], base: str, place: str
    ) -> Iterator[tuple[dict[str, Any], str]]:
        """The path's parameters; the operation's parameters replace those with the same name and place."""
        found: dict[tuple[str, str], tuple[dict[str, Any], str, str]] = {}
        above = place.rpartition("/")[0]
        for owner, at in ((item, above), (operation, place)):
            listed = owner.get("parameters")
            for index, value in enumerate(listed if isinstance(listed, list) else []):
                parameter, home = self.resolve(value, base, f"{at}/parameters/{index}")
                found[str(parameter.get("in")), str(parameter.get("name"))] = (parameter, home, self.place)
        for parameter, home, self.place in found.values():
            yield parameter, home

    def _add_parameter(self, parameter: dict[str, Any], base: str, arguments: ArgumentTable) -> None:
        where, wire, required = parameter.get("in"), parameter.get("name"), parameter.get("required") is True
        if where == "body":  # Swagger 2
            self._spread(self._expand(parameter.get("schema"), base, "readOnly"), "body", required, arguments)
            return
        if not isinstance(where, str) or where not in _PLACES or not isinstance(wire, str) or not wire:
            raise InputError(f"a parameter must have a name and be in {', '.join(_PLACES)} or body, not {where!r:.40}")
        if where == "header" and wire.lower() in _IGNORED_HEADERS:
            self._note(f"the header {wire} is set by the HTTP client, so it is not an argument")
            return
        declared = parameter.get("schema", _media(parameter.get("content"))[1].get("schema"))
        if declared is None:  # Swagger 2: the parameter itself is a schema
            declared = parameter | {"required": [], "description": ""}
        schema = self._expand(declared, base, "readOnly")
        if description := plain_line(parameter.get("description")):
            schema["description"] = description
        if examples := _examples(parameter, self._references, base):
            schema["examples"] = [value for value in examples if Validator(schema).is_valid(value)][:5]
        arguments.add(schema, _PLACES[where], wire, required=required or where == "path")

    def _add_body(self, value: Json, base: str, place: str, arguments: ArgumentTable) -> None:
        body, home = self.resolve(value, base, place)
        kind, media = _media(body.get("content"))
        where = "form" if "form" in kind else "body"
        if where == "body" and "json" not in kind:
            self._note(f"a body of type {kind[:60] or 'unknown'} is sent as JSON")
        schema = self._expand(media.get("schema"), home, "readOnly")
        self._spread(schema, where, body.get("required") is True, arguments)

    def _spread(self, schema: Schema, place: str, required: bool, arguments: ArgumentTable) -> None:
        """Add a body's properties as arguments, or the whole body as one argument if that would change its meaning."""
        needed, properties = schema.get("required", []), schema.get("properties", {})
        closed = not isinstance(schema.get("additionalProperties"), dict)
        known = bool(properties) and set(needed) <= properties.keys()
        if schema.keys() <= _SPREADABLE and closed and known and (required or not needed):
            for name, inner in properties.items():
                arguments.add(inner, place, name, required=name in needed)
        else:
            arguments.add(schema, place, "", required=required)

    def _responses(self, responses: Json, base: str, place: str) -> tuple[Schema, list[Json]]:
        """The schema of the first successful response, and answers from its examples."""
        table = object_or_empty(responses)
        status = next((status for status in _SUCCESS if status in table), None)
        if status is None:
            return {}, []
        try:
            response, home = self.resolve(table[status], base, f"{place}/{status}")
            kind, media = _media(response.get("content"))
            if "schema" in response:  # Swagger 2
                kind, media = "json", {"schema": response["schema"]}
            if not kind:
                return ({"type": "null"} if status == "204" else {}), []
            schema = self._expand(media.get("schema"), home, "writeOnly")
            examples = _examples(media, self._references, home)
            examples += object_or_empty(response.get("examples")).values()
        except InputError as error:
            self._note(f"the response's schema is ignored: {error}")
            return {}, []
        valid = [value for value in map(_decoded, examples) if Validator(schema).is_valid(value)]
        if examples and not valid:
            self._note("the response's examples do not satisfy its schema and are ignored")
        code = int(status) if status.isdigit() else 200
        return schema, [{"when": {}, "status": code, "body": value, "template": False} for value in valid[:1]]

    def _expand(self, schema: Json, base: str, hidden: str) -> Schema:
        self._references.cut.clear()
        expanded = expand(schema, self._references, base, hidden)
        if cut := sorted(self._references.cut):
            more = f" and {len(cut) - 3} more" if len(cut) > 3 else ""
            self._note(f"{', '.join(cut[:3])}{more}: recursive or too large, so any value is accepted there")
        return expanded

    def _note(self, reason: str) -> None:
        self._imported.adapted.append(ImportNote(self.place, reason))


def object_or_empty(value: Json) -> dict[str, Any]:
    """A JSON object, or {} for any other value."""
    return value if isinstance(value, dict) else {}


def _media(content: Json) -> tuple[str, dict[str, Any]]:
    """The preferred media type and its object: JSON before forms before any other."""
    kinds = list(object_or_empty(content))
    kinds.sort(key=lambda kind: 0 if "json" in kind else 1 if "form" in kind else 2)
    return (kinds[0].lower(), object_or_empty(object_or_empty(content)[kinds[0]])) if kinds else ("", {})


def _examples(holder: Mapping[str, Any], references: References, base: str) -> list[Json]:
    """The values of `example` and `examples` next to a schema."""
    named = [references.resolve(value, base)[0] for value in object_or_empty(holder.get("examples")).values()]
    found = [example["value"] for example in named if isinstance(example, dict) and "value" in example]
    return [holder["example"], *found] if "example" in holder else found


def _decoded(value: Json) -> Json:
    """An example; if it is the JSON text of an object or a list, the parsed value."""
    try:
        read: Json = parse_json(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return read if isinstance(read, dict | list) else value
