"""Converts an operation of an API description to a tool: its parameters, body and responses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentft.errors import InputError
from agentft.imports.world import ACCESS, ArgumentTable, ImportedWorld, ImportNote
from agentft.json_text import json_pointer, parse_json
from agentft.strict import own_table
from agentft.toolset.arguments import validator_of
from agentft.toolset.references import References
from agentft.toolset.routes import CLIENT_HEADERS, DEFAULT_STYLES, STYLES, check_route
from agentft.toolset.schemas import BESIDE, Schema, expand, is_cut, plain_line
from agentft.types import Json

__all__ = ["OperationReader", "object_or_empty"]

_PLACES = {"path": "path", "query": "query", "header": "header", "cookie": "cookie", "formData": "form"}
_FORM, _MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
_TABLE = own_table(__file__, str)
KNOWN_KEYS = {name: frozenset(keys.split()) for name, keys in _TABLE.items()}
_TEXT: Schema = {"type": "string"}
_SUCCESS = ("200", "201", "202", "203", "204", "206", "2XX", "2xx", "default")
_SPREADABLE = frozenset({"type", "properties", "required", "description", "examples", "additionalProperties"})


class OperationReader:
    """Adds operations to `imported` as tools. `place`: JSON pointer of the current value, for notes."""

    def __init__(self, references: References, imported: ImportedWorld) -> None:
        self._references, self._imported = references, imported
        root = object_or_empty(references.find("#", references.address)[0])
        self._consumes = root.get("consumes")
        self._old = str(root.get("openapi", "2")).startswith(("2", "3.0"))
        self._parameters_read: dict[tuple[int, str], tuple[Any, list[str], Json]] = {}
        self._schemas: dict[tuple[Any, ...], Schema] = {}
        self.place = "#"

    def resolve(self, value: Json, base: str, place: str) -> tuple[dict[str, Any], str]:
        """The object at `place`, or the object that it references, and the address of its document.

        Raises:
            InputError: the value is not an object, or the reference cannot be resolved.
        """
        self.place = place
        found, home = self._references.resolve(value, base)
        if not isinstance(found, dict):
            raise InputError(f"expected an object, got {type(found).__name__}")
        if found is not value:
            self._imported.charge(found)
            self.tell_unread(object_or_empty(value), "reference")
        return found, home

    def tell_unread(self, value: Mapping[str, Any], kind: str) -> None:
        """Note the keys of an object that are not read; those of extensions begin with `x-`."""
        if unread := sorted(key for key in value.keys() - KNOWN_KEYS[kind] if not re.match("x-(?!webhooks$)", key)):
            self.note(f"not imported: {', '.join(unread)[:200]}")

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
        sent, _, fragment = path.partition("#")
        check_route(method.upper(), sent)
        if fragment:
            self.note(
                f"#{fragment[:100]} is not sent, so calls of the served path reach the first operation of its kind"
            )
        operation, base = self.resolve(item[method], base, place)
        self.tell_unread(operation, "operation")
        arguments, named = ArgumentTable(), dict.fromkeys(re.findall(r"\{([^{}]+)\}", sent))
        for parameter, home in self._parameters(item, operation, base, place):
            if parameter.get("in") == "path" and parameter.get("name") not in named:
                self.note(f"the path has no {{{parameter.get('name')}}}, so it is not an argument")
            else:
                self._add_parameter(parameter, home, arguments)
        media = self._consumed(operation, arguments)
        for wire in named:
            if arguments.name("path", wire) not in arguments.places:
                self.note("no parameter is declared for {" + wire + "} in the path; it takes any string")
                arguments.add(_TEXT, "path", wire, required=True)
        if "requestBody" in operation:
            media = self._add_body(operation["requestBody"], base, f"{place}/requestBody", arguments)
        returns, answers = self._responses(operation.get("responses"), base, f"{place}/responses")
        self.place = place
        text = operation.get("summary") if plain_line(operation.get("summary")) else operation.get("description")
        if is_cut(text):
            self.note("the description is cut to 300 characters")
        identity = str(operation.get("operationId") or "")
        tool = {
            "description": plain_line(text),
            "parameters": self._shared(arguments.schema()),
            "access": ACCESS.get(method, "write"),
            "returns": returns,
            "route": {"method": method.upper(), "path": sent, "places": arguments.places, "media": media},
            "answers": answers,
            "operation": identity,
        }
        self._imported.add(identity or f"{method} {path}", f"{method} {path}", tool)

    def _shared(self, schema: Schema) -> Schema:
        """The first schema with the same required arguments and the same objects as theirs: it is checked once."""
        parts = [(name, id(inner)) for name, inner in schema["properties"].items()]
        return self._schemas.setdefault((*parts, *schema.get("required", ())), schema)

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
        if parameter.get("in") == "body":  # Swagger 2
            schema = self._expand(parameter.get("schema"), base, "readOnly")
            self._spread(schema, "body", parameter.get("required") is True, arguments)
            return
        key = id(parameter), base
        if key in self._parameters_read:  # many operations may share it
            self._imported.adapted += [ImportNote(self.place, reason) for reason in self._parameters_read[key][1]]
        else:
            before = len(self._imported.adapted)
            made = self._read_parameter(parameter, base)
            reasons = [note.reason for note in self._imported.adapted[before:]]
            self._parameters_read[key] = made, reasons, parameter
        if found := self._parameters_read[key][0]:
            schema, place, wire, required, style = found
            arguments.add(schema, place, wire, required=required, style=style)

    def _read_parameter(self, parameter: dict[str, Any], base: str) -> tuple[Schema, str, str, bool, str] | None:
        """The argument that a parameter is, as `ArgumentTable.add` takes it, or None."""
        where, wire = parameter.get("in"), parameter.get("name")
        if not isinstance(where, str) or where not in _PLACES or not isinstance(wire, str) or not wire:
            raise InputError(f"a parameter must have a name and be in {', '.join(_PLACES)} or body, not {where!r:.40}")
        if where == "header" and wire.lower() in CLIENT_HEADERS:
            self.note(f"the header {wire} is set by the HTTP client, so it is not an argument")
            return None
        declared = parameter.get("schema", _media(parameter.get("content"))[1].get("schema"))
        if declared is not None:
            self.tell_unread(parameter, "parameter")
        else:  # Swagger 2: the parameter itself is a schema
            declared = {key: value for key, value in parameter.items() if key not in KNOWN_KEYS["parameter-2"]}
        schema = self._expand(declared, base, "readOnly")
        if is_cut(parameter.get("description")):
            self.note("the description is cut to 300 characters")
        if description := plain_line(parameter.get("description")):
            schema = {**schema, "description": description}
        if examples := _examples(parameter, self._references, base):
            schema = {**schema, "examples": [*filter(validator_of(schema).is_valid, examples)][:5]}
        required = parameter.get("required") is True or where == "path"
        return schema, _PLACES[where], wire, required, self._style(parameter, schema, _PLACES[where])

    def _style(self, parameter: Mapping[str, Any], schema: Schema, place: str) -> str:
        """How a parameter's arrays and objects are written, "" for the default of its place."""
        kinds = schema.get("type", ["array", "object"])
        if parameter.get("type") == "file":
            return "binary"
        if "schema" not in parameter and "content" in parameter:
            style = "json"
        elif "schema" not in parameter and "style" not in parameter:  # Swagger 2
            found = parameter.get("collectionFormat", "csv")
            style = _TABLE.get(f"collection-{found}" if place in {"query", "form"} else "", "form")
            style = style if "array" in kinds else "form*"
            style = style if place in {"query", "form"} else "simple"
        else:
            style = str(parameter.get("style") or DEFAULT_STYLES[place].rstrip("*"))
            explode = parameter.get("explode")
            spread = explode if isinstance(explode, bool) else style == "form"
            style += "*" if spread and style != "deepObject" else ""
            style = "form*" if style in {"spaceDelimited*", "pipeDelimited*"} else style  # as OpenAPI's table says
        if style not in STYLES[place]:
            self.note(f"the style {style[:40]} is not known for {place}; {DEFAULT_STYLES[place]} is used")
            return ""
        inner = [*schema.get("properties", {}).values(), schema.get("items", {})]
        if style not in {"json", "deepObject"} and any(
            each.get("type") in ("array", "object") for each in inner if each
        ):
            self.note("lists and objects inside it are sent as JSON text, because its style is for flat values")
        if parameter.get("allowReserved") is True:
            self.note("reserved characters are percent-encoded in spite of allowReserved")
        return "" if style == DEFAULT_STYLES[place] else style

    def _consumed(self, operation: Mapping[str, Any], arguments: ArgumentTable) -> str:
        """Swagger 2: the media type of the body; "" for JSON, and for a URL-encoded form."""
        listed = operation.get("consumes", self._consumes)
        kinds = [kind for kind in listed[:100] if isinstance(kind, str)] if isinstance(listed, list) else []
        written = [place for place in arguments.places.values() if isinstance(place, list)]
        places = [place[0] for place in written]
        if "form" in places:
            files = any("binary" in place for place in written)
            return _MULTIPART if files or (_MULTIPART in kinds and _FORM not in kinds) else ""
        body = next((name for name, place in arguments.places.items() if place == ["body", ""]), "")
        kind = _media(dict.fromkeys(kinds))[0]
        return self._body_media(kind, arguments.properties.get(body)) if kind and "body" in places else ""

    def _add_body(self, value: Json, base: str, place: str, arguments: ArgumentTable) -> str:
        """Add the arguments of a body, and return its media type: "" for JSON, and for a URL-encoded form."""
        body, home = self.resolve(value, base, place)
        kind, media = _media(body.get("content"))
        self.tell_unread(media, "media")
        where = "form" if re.search(r"\bform\b", kind) and "json" not in kind else "body"
        schema = self._expand(media.get("schema"), home, "readOnly")
        if not schema and where == "body" and kind and "json" not in kind and "*" not in kind:
            schema = _TEXT  # OpenAPI 3.1 describes files so
        self._spread(schema, where, body.get("required") is True, arguments, object_or_empty(media.get("encoding")))
        if where == "body":
            return self._body_media(kind, schema)
        return kind if kind != _FORM and "*" not in kind else ""

    def _body_media(self, kind: str, schema: Json) -> str:
        """The media type of a body that is no form, "" for JSON. A text is sent as it is."""
        if "json" in kind:
            return "" if kind == "application/json" or "*" in kind else kind
        if kind and object_or_empty(schema).get("type") == "string":
            return "application/octet-stream" if "*" in kind else kind
        self.note(f"a body of type {kind[:60] or 'unknown'} is sent as JSON")
        return ""

    def _spread(
        self,
        schema: Schema,
        place: str,
        required: bool,
        arguments: ArgumentTable,
        encoding: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a body's properties as arguments, or the whole body as one argument if that would change its meaning."""
        needed, properties = schema.get("required", []), schema.get("properties", {})
        closed = not isinstance(schema.get("additionalProperties"), dict)
        known = bool(properties) and set(needed) <= properties.keys()
        if schema.keys() <= _SPREADABLE and closed and known and (required or not needed):
            for name, inner in properties.items():
                style = self._field_style(inner, object_or_empty((encoding or {}).get(name))) if place == "form" else ""
                arguments.add(inner, place, name, required=name in needed, style=style)
        else:
            arguments.add(schema, place, "", required=required)

    def _field_style(self, schema: Schema, encoding: Mapping[str, Any]) -> str:
        """The style of a form's field."""
        leaf = schema.get("items", schema) if schema.get("type") == "array" else schema
        if leaf.get("format") in ("binary", "byte") or "contentMediaType" in leaf:
            return "binary"
        plain = schema.get("type") == "object" and not encoding.keys() & {"style", "explode", "allowReserved"}
        if plain or "json" in str(encoding.get("contentType", "")):
            return "json"
        return self._style({"schema": schema, **encoding}, {"type": schema.get("type", "object")}, "form")

    def _responses(self, responses: Json, base: str, place: str) -> tuple[Schema, list[Json]]:
        """The schema of the first successful response, and answers from its examples."""
        table = object_or_empty(responses)
        status = next((status for status in _SUCCESS if status in table), None)
        if status is None:
            return {}, []
        try:
            response, home = self.resolve(table[status], base, f"{place}/{status}")
            kind, media = _media(response.get("content"))
            if "schema" in response or "examples" in response:  # Swagger 2
                kind, media = "json", {"schema": response.get("schema", {})}
            if not kind:
                return ({"type": "null"} if status == "204" else {}), []
            schema = self._expand(media.get("schema"), home, "writeOnly")
            examples = _examples(media, self._references, home)
            examples += object_or_empty(response.get("examples")).values()
        except InputError as error:
            self.note(f"the response's schema is ignored: {error}")
            return {}, []
        valid = [*filter(validator_of(schema).is_valid, map(_decoded, examples))]
        if examples and not valid:
            self.note("the response's examples do not satisfy its schema and are ignored")
        code = int(status) if status.isdigit() else 200
        return schema, [{"when": {}, "status": code, "body": value, "template": False} for value in valid[:1]]

    def _expand(self, schema: Json, base: str, hidden: str) -> Schema:
        self._references.cut.clear()
        self._references.dropped.clear()
        expanded = expand(schema, self._references, base, hidden)
        if cut := sorted(self._references.cut):
            more = f" and {len(cut) - 3} more" if len(cut) > 3 else ""
            self.note(f"{', '.join(cut[:3])}{more}: recursive or too large, so any value is accepted there")
        beside = {keyword for keyword in self._references.dropped if keyword.endswith(BESIDE)}
        if beside and self._old:
            self.note(f"kept, though OpenAPI before 3.1 ignores it: {', '.join(sorted(beside))[:200]}")
        if dropped := sorted(self._references.dropped - beside):
            self.note(f"left out of the schema, because they are unknown or cannot be used: {', '.join(dropped)[:200]}")
        return expanded

    def note(self, reason: str) -> None:
        """Note what was adapted at the current place."""
        self._imported.adapted.append(ImportNote(self.place, reason))


def object_or_empty(value: Json) -> dict[str, Any]:
    """A JSON object, or {} for any other value."""
    return value if isinstance(value, dict) else {}


def _media(content: Json) -> tuple[str, dict[str, Any]]:
    """The preferred media type and its object: JSON before forms before any other."""
    kinds = list(object_or_empty(content))
    kinds.sort(key=lambda kind: (kind != "application/json", "json" not in kind, "form" not in kind))
    return (
        (kinds[0].lower().partition(";")[0].strip(), object_or_empty(object_or_empty(content)[kinds[0]]))
        if kinds
        else ("", {})
    )


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
