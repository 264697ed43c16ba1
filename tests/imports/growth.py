"""Hostile API descriptions and traffic of any size, for the bench of growth and the tests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentft.imports.documents import open_description
from agentft.imports.openapi import import_openapi
from agentft.imports.traffic import import_traffic

__all__ = ["DESCRIPTIONS", "TRAFFIC", "read_description", "read_traffic"]

HEAD: dict[str, Any] = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}}
OK: dict[str, Any] = {"responses": {"200": {"description": "ok"}}}


def described(operations: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**HEAD, "paths": {path: {"get": {**OK, **found}} for path, found in operations.items()}, **more}


def parameter(name: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema or {"type": "string"}}


def in_path(count: int) -> list[dict[str, Any]]:
    return [{**parameter(f"p{number}"), "in": "path"} for number in range(count)]


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def chain(count: int) -> dict[str, Any]:
    """Schemas of which each refers to the next."""
    links: dict[str, Any] = {f"S{number}": {"$ref": f"#/components/schemas/S{number + 1}"} for number in range(count)}
    return {"schemas": {**links, f"S{count}": {"type": "string"}}}


def doubling(count: int) -> dict[str, Any]:
    """Schemas of which each refers to the next twice."""
    links: dict[str, Any] = {
        f"S{number}": {"properties": {key: {"$ref": f"#/components/schemas/S{number + 1}"} for key in "ab"}}
        for number in range(count)
    }
    return {"schemas": {**links, f"S{count}": {"type": "string"}}}


def referring(size: int, kind: str, shared: Any, **more: Any) -> dict[str, Any]:
    """Operations that refer to one large component, which takes half of the file."""
    reference = {"$ref": f"#/components/{kind}/C"}
    places: dict[str, dict[str, Any]] = {
        "parameters": {"parameters": [reference]},
        "requestBodies": {"requestBody": reference},
        "responses": {"responses": {"200": reference}},
        "schemas": {"parameters": [parameter("p", **reference)]},
    }
    return described(
        {f"/a{number}": places[kind] for number in range(size // 250)}, components={kind: {"C": shared}}, **more
    )


def body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "ok", "content": {"application/json": {"schema": schema}}}


def items(size: int) -> dict[str, Any]:
    """Paths that refer to one item, which has eight operations and many parameters."""
    methods = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
    item = {"parameters": [parameter(f"p{n}") for n in range(min(size // 130, 990))], **dict.fromkeys(methods, OK)}
    paths = {f"/a{number}": {"$ref": "#/components/pathItems/I"} for number in range(size // 80)}
    return {**HEAD, "paths": paths, "components": {"pathItems": {"I": item}}}


def all_of(count: int) -> dict[str, Any]:
    """Schemas of which each adds a property to the next."""
    links: dict[str, Any] = {
        f"S{n}": {"allOf": [{"$ref": f"#/components/schemas/S{n + 1}"}, {"properties": {f"p{n}": {}}}]}
        for n in range(count)
    }
    return {"schemas": {**links, f"S{count}": {"type": "object"}}}


FIRST = {"$ref": "#/components/schemas/S0"}
DESCRIPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "paths": lambda size: described({f"/a{number}": {} for number in range(size // 60)}),
    "templates": lambda size: described({"/{a}" * (size // 4): {}}),
    "undeclared": lambda size: described({"".join(f"/{{p{n}}}" for n in range(min(size // 10, 990))): {}}),
    "not-in-path": lambda size: described({"/a": {"parameters": in_path(size // 60)}}),
    "other-in-path": lambda size: described({"/{a}" * min(size // 8, 1990): {"parameters": in_path(size // 70)}}),
    "parameters": lambda size: described({"/a": {"parameters": [parameter(f"p{n}") for n in range(size // 60)]}}),
    "same-parameters": lambda size: described({"/a": {"parameters": [parameter("p")] * (size // 60)}}),
    "enum": lambda size: described({"/a": {"parameters": [parameter("p", enum=list(range(size // 8)))]}}),
    "one-of": lambda size: described(
        {"/a": {"parameters": [parameter("p", oneOf=[{"const": n} for n in range(size // 16)])]}}
    ),
    "nested": lambda size: described({"/a": {"parameters": [parameter("p", **nested(min(size // 45, 80)))]}}),
    "chain": lambda size: described({"/a": {"parameters": [parameter("p", **FIRST)]}}, components=chain(size // 50)),
    "doubling": lambda size: described(
        {"/a": {"parameters": [parameter("p", **FIRST)]}}, components=doubling(size // 110)
    ),
    "shared": lambda size: described(
        {f"/a{number}": {"parameters": [parameter("p", **FIRST)]} for number in range(size // 200)},
        components={"schemas": {"S0": {"enum": [f"v{number}" for number in range(size // 20)]}}},
    ),
    "wrappers": lambda size: described(
        {f"/a{n}": {"parameters": [parameter("p", properties={f"x{n}": FIRST})]} for n in range(size // 190)},
        components={"schemas": {"S0": {"properties": {f"p{n}": {"type": "string"} for n in range(300)}}}},
    ),
    "broken": lambda size: referring(
        size,
        "schemas",
        {"properties": {**{f"p{n}": {} for n in range(380)}, "z": {"$ref": "#/components/schemas/No"}}},
    ),
    "shared-text": lambda size: referring(size, "schemas", {"const": "a" * (size // 2)}),
    "shared-parameter": lambda size: referring(
        size, "parameters", {**parameter("p"), **{f"k{number}": 1 for number in range(size // 22)}}
    ),
    "shared-example": lambda size: referring(
        size, "parameters", {**parameter("p", type="array"), "example": list(range(size // 16))}
    ),
    "shared-body": lambda size: referring(
        size, "requestBodies", body({"properties": {f"p{number}": {} for number in range(min(size // 26, 390))}})
    ),
    "shared-media": lambda size: referring(
        size, "requestBodies", {"content": {f"a/{number}": {} for number in range(size // 26)}}
    ),
    "shared-response": lambda size: referring(
        size,
        "responses",
        body({"properties": {f"p{number}": {"enum": ["a" * 99] * 9} for number in range(size // 2000)}}),
    ),
    "consumes": lambda size: referring(size, "parameters", parameter("p"), consumes=["a/b"] * (size // 14)),
    "items": items,
    "anchors": lambda size: described(
        {f"/a{n}": {"parameters": [parameter("p", **{"$ref": f"#a{n}"})]} for n in range(size // 230)},
        components={"schemas": {f"S{n}": {"$anchor": f"a{n}"} for n in range(size // 230)}},
    ),
    "all-of": lambda size: described({"/a": {"parameters": [parameter("p", **FIRST)]}}, components=all_of(size // 90)),
    "enums": lambda size: described(
        {"/a": {"parameters": [parameter("p", allOf=[{"enum": list(range(side, size // 9, 2))} for side in (0, 1)])]}}
    ),
    "mapping": lambda size: described(
        {
            "/a": {
                "parameters": [
                    parameter(
                        "p",
                        oneOf=[FIRST] * 390,
                        discriminator={"propertyName": "k", "mapping": {f"{n}": "S" for n in range(size // 16)}},
                    )
                ]
            }
        },
        components=doubling(0),
    ),
    "variables": lambda size: described(
        {"/a": {}},
        servers=[
            {
                "url": "http://h.test/" + "".join(f"{{{n}}}" for n in range(size // 40)),
                "variables": {f"{n}": {"default": "a"} for n in range(size // 40)},
            }
        ],
    ),
    "description": lambda size: described({"/a": {"description": "a " * (size // 2)}}),
    "name": lambda size: described({"/a": {"operationId": "a" * size}}),
    "names": lambda size: described({f"/a{number}": {"operationId": "a"} for number in range(size // 80)}),
    "pattern": lambda size: described({"/a": {"parameters": [parameter("p", pattern="(a|" * (size // 3))]}}),
}


def entry(path: str = "/a", sent: str = "", received: str = "{}") -> dict[str, Any]:
    body: dict[str, Any] = {"postData": {"mimeType": "application/json", "text": sent}} if sent else {}
    content = {"mimeType": "application/json", "text": received}
    request: dict[str, Any] = {"method": "POST", "url": f"http://h.test{path}", "headers": [], **body}
    return {"request": request, "response": {"status": 200, "headers": [], "content": content}}


TRAFFIC: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "same-call": lambda size: [entry()] * (size // 200),
    "calls": lambda size: [entry(sent=json.dumps({"a": number})) for number in range(size // 280)],
    "tools": lambda size: [entry(f"/a{number}") for number in range(size // 200)],
    "path": lambda size: [entry("/a" * (size // 2))],
    "query": lambda size: [entry("/a?" + "&".join(f"p{number}=1" for number in range(size // 8)))],
    "same-query": lambda size: [entry("/a?" + "p=1&" * (size // 4))],
    "keys": lambda size: [entry(sent=json.dumps({f"k{number}": number for number in range(size // 14)}))],
    "deep": lambda size: [entry(sent="[" * (size // 2) + "]" * (size // 2))],
    "open": lambda size: [entry(received='{"a":' * (size // 5))],
    "open-keys": lambda size: [entry(received="".join(f'{{"a{number}":' for number in range(size // 11)))],
    "shapes": lambda size: [entry(received=json.dumps([{f"k{number}": 1} for number in range(size // 14)]))],
    "results": lambda size: [entry(received=json.dumps({f"k{number}": 1})) for number in range(size // 220)],
}


def read_description(made: dict[str, Any]) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "api.json"
        path.write_text(json.dumps(made))
        return import_openapi(open_description(str(path)), "w")


def read_traffic(made: list[dict[str, Any]]) -> object:
    return import_traffic(json.dumps({"log": {"entries": made}}).encode(), "t.har", "w")
